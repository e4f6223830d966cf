//! What is written down about an execution.

use bytes::Bytes;
use jiff::Timestamp;

use crate::error::StoreError;
use crate::id::Id;

/// An execution, as history keeps it. Streams are bytes as they came: NUL and broken UTF-8 survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name; sorts by the time of the start.
    pub id: Id,
    /// Whose it is: the id of a key, or a tag for an anonymous client. Decides who may read it back.
    pub owner: String,
    /// When it was accepted.
    pub started_at: Timestamp,
    /// Which way it came: `execute`, `job`, `batch`, `ws`, `piston`, …
    pub origin: String,
    /// The image (runtime) it ran in.
    pub image: String,
    /// The mode of the sandbox: `zygote`, `exec`, `docker`.
    pub mode: String,
    /// The program.
    pub code: Bytes,
    /// What it was given to read.
    pub stdin: Option<Bytes>,
    /// What it wrote, up to the limit.
    pub stdout: Bytes,
    /// What it wrote to standard error, up to the limit.
    pub stderr: Bytes,
    /// Whether standard output was longer.
    pub stdout_truncated: bool,
    /// Whether standard error was longer.
    pub stderr_truncated: bool,
    /// Its exit status, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How it ended: `ok`, `exit_nonzero`, `signal`, `timeout`, `cpu_limit`, `oom`, `output_limit`, `cancelled`.
    pub reason: String,
    /// Every limit it ran into, as words without commas: `wall`, `memory`, `pids`, …
    pub limits_hit: Vec<String>,
    /// What it used.
    pub usage: Usage,
    /// Anything else worth keeping (arguments, limits asked for), as JSON.
    pub details: Option<Bytes>,
}

/// What an execution used, from the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the first instruction to the last, in microseconds.
    pub wall_us: u64,
    /// Processor time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// The most memory it held at once, in bytes.
    pub memory_peak: u64,
    /// How long it waited for its turn, in microseconds.
    pub queue_us: u64,
}

impl Record {
    /// A record of something that begins now, with everything else empty. Fails if the kernel gives no random bytes.
    pub fn new(owner: impl Into<String>, code: impl Into<Bytes>) -> Result<Self, StoreError> {
        let started_at = now();
        Ok(Self {
            id: Id::new(started_at)?,
            owner: owner.into(),
            started_at,
            origin: String::new(),
            image: String::new(),
            mode: String::new(),
            code: code.into(),
            stdin: None,
            stdout: Bytes::new(),
            stderr: Bytes::new(),
            stdout_truncated: false,
            stderr_truncated: false,
            exit_code: None,
            signal: None,
            reason: "ok".to_owned(),
            limits_hit: Vec::new(),
            usage: Usage::default(),
            details: None,
        })
    }

    /// How many bytes it takes up, for the bounds of queues and of history: its streams, and 256 for all the rest.
    pub fn size(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let streams = self.code.len() + self.stdout.len() + self.stderr.len();
        streams + optional(&self.stdin) + optional(&self.details) + self.owner.len() + 256
    }
}

/// Now, as exactly as the database keeps it.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

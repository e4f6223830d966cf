//! What is executed, within which limits, and what comes of it.

use std::time::Duration;

use bytes::Bytes;

/// A program and everything it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The image's name.
    pub image: String,
    /// How it is run.
    pub mode: Mode,
    /// The program's text, in whatever encoding it declares.
    pub code: Vec<u8>,
    /// What it reads from its standard input.
    pub stdin: Stdin,
    /// `sys.argv[1:]`; none may contain NUL.
    pub args: Vec<String>,
    /// Variables added to those that every program has; neither names nor values may contain NUL, names no `=`.
    pub env: Vec<(String, String)>,
    /// Files put into the working directory before it starts.
    pub files: Vec<InputFile>,
    /// Patterns of the files that are brought back, relative to the working directory: `*`, `?`, `[a-z]` within a name, `**`
    /// for any number of directories.
    pub collect: Vec<String>,
    /// Limits, where lower ones than the daemon's are wanted.
    pub limits: RequestedLimits,
}

impl Execution {
    /// A program in an image, without input, with the daemon's limits.
    pub fn new(image: impl Into<String>, code: impl Into<Vec<u8>>) -> Self {
        Self {
            image: image.into(),
            mode: Mode::Zygote,
            code: code.into(),
            stdin: Stdin::Bytes(Vec::new()),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            collect: Vec::new(),
            limits: RequestedLimits::default(),
        }
    }
}

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// In a copy of a warm interpreter.
    #[default]
    Zygote,
    /// In an interpreter started for it, with an address layout and hash seed that nobody shares.
    Exec,
}

/// Where standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// All of it now.
    Bytes(Vec<u8>),
    /// As it is sent by [`crate::Running::write`].
    Interactive,
}

/// A file for the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Relative, without `..`.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Limits that an execution asks for: each lower than the daemon's, or it is the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestedLimits {
    /// Time from start to end.
    pub wall: Option<Duration>,
    /// Processor time of all its processes.
    pub cpu: Option<Duration>,
    /// Bytes of memory, files in it included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes kept of each of the two output streams.
    pub output_bytes: Option<u64>,
}

/// The limits of an execution, or the highest that a daemon grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time from start to end.
    pub wall: Duration,
    /// Processor time of all its processes.
    pub cpu: Duration,
    /// Bytes of memory, files in it included; there is no swap in addition.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes kept of each of the two output streams; what comes beyond is dropped, and too much of that ends the execution.
    pub output_bytes: u64,
    /// Share of the processor, in thousandths of one core.
    pub cpu_milli: u32,
}

impl Default for Limits {
    /// 10 s, of which all may be processor time, 256 MB, 64 processes, 1 MB per stream, half a core.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(10),
            memory_bytes: 256 << 20,
            pids: 64,
            output_bytes: 1 << 20,
            cpu_milli: 500,
        }
    }
}

impl Limits {
    /// The least memory in which an interpreter starts at all.
    pub const LEAST_MEMORY: u64 = 8 << 20;

    /// These limits, or those asked for where they are lower.
    pub fn lowered(&self, wanted: &RequestedLimits) -> Self {
        Self {
            wall: wanted.wall.map_or(self.wall, |wall| wall.min(self.wall)),
            cpu: wanted.cpu.map_or(self.cpu, |cpu| cpu.min(self.cpu)),
            memory_bytes: wanted
                .memory_bytes
                .map_or(self.memory_bytes, |bytes| bytes.max(Self::LEAST_MEMORY).min(self.memory_bytes)),
            pids: wanted.pids.map_or(self.pids, |pids| pids.max(1).min(self.pids)),
            output_bytes: wanted.output_bytes.map_or(self.output_bytes, |bytes| bytes.min(self.output_bytes)),
            cpu_milli: self.cpu_milli,
        }
    }
}

/// Something that happens to an execution, in order. [`Event::End`] is the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It got a slot, after this long.
    Started {
        /// The time it waited for one.
        queued: Duration,
    },
    /// A piece of its standard output.
    Stdout(Bytes),
    /// A piece of its standard error.
    Stderr(Bytes),
    /// A file that was asked for.
    File(Collected),
    /// It is over.
    End(End),
}

/// A file brought back from the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Relative to the working directory; bytes, because a name on Linux need not be text.
    pub path: Vec<u8>,
    /// Its content.
    pub content: Bytes,
}

/// How an execution ended. All of it is the kernel's word, nothing the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Why it ended.
    pub reason: Reason,
    /// Its exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What it used.
    pub usage: Usage,
    /// What was not kept.
    pub truncated: Truncated,
}

/// Why an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// By itself, with exit code 0.
    Ok,
    /// By itself, with another one.
    ExitNonzero,
    /// By a signal of its own doing.
    Signal,
    /// Its time was over.
    Timeout,
    /// Its processor time was over.
    CpuLimit,
    /// It reached its memory limit.
    Oom,
    /// It did not stop writing long after its output was cut.
    OutputLimit,
    /// Its client cancelled it or went away.
    Cancelled,
}

impl Reason {
    const ALL: [(Self, &str); 8] = [
        (Self::Ok, "ok"),
        (Self::ExitNonzero, "exit_nonzero"),
        (Self::Signal, "signal"),
        (Self::Timeout, "timeout"),
        (Self::CpuLimit, "cpu_limit"),
        (Self::Oom, "oom"),
        (Self::OutputLimit, "output_limit"),
        (Self::Cancelled, "cancelled"),
    ];

    /// The word for it: `exit_nonzero`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("ok", |(_, word)| word)
    }

    pub(crate) fn to_byte(self) -> u8 {
        Self::ALL.iter().zip(0..).find(|((reason, _), _)| *reason == self).map_or(0, |(_, byte)| byte)
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).map(|(reason, _)| *reason)
    }
}

/// What an execution used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// From its start to its end.
    pub wall: Duration,
    /// Processor time of all its processes.
    pub cpu: Duration,
    /// The most memory it had at once, in bytes; 0 where the kernel does not tell.
    pub memory_peak: u64,
    /// How long it waited for a slot.
    pub queued: Duration,
}

/// What was not kept, because there was too much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truncated {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Some file that was asked for.
    pub files: bool,
}

/// An image that a daemon serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// `cpython 3.11.2`; empty before its interpreter has started.
    pub interpreter: String,
    /// Slots waiting now.
    pub ready: u32,
    /// Slots that should be waiting.
    pub slots: u32,
    /// Why it cannot be used, if it cannot.
    pub trouble: Option<String>,
}

/// How a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its process.
    pub pid: u32,
    /// `cgroup v1`, `cgroup v2`.
    pub cgroups: String,
    /// Executions running now.
    pub running: u32,
    /// Executions waiting for a slot.
    pub waiting: u32,
    /// Executions ended since it started.
    pub executed: u64,
    /// Slots that could not be made since it started.
    pub failures: u64,
    /// The highest limits that it grants.
    pub limits: Limits,
    /// How programs are isolated: `zygote`, `exec`, `docker` or `nothing`.
    pub isolation: String,
    /// Why in this way.
    pub why: String,
    /// What is weaker than it could be, a sentence each; empty where nothing is.
    pub weaker: Vec<String>,
}

//! Running: instances of artifacts, from start to removal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use coracle_model::{
    AppName, ArtifactId, CommandLine, ContainerSettings, EnvName, InstanceId, Limits, ProcessSpec, ReleaseNumber, Secret,
    VolumeMount,
};
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::builder::OutputSink;
use crate::error::EngineError;

/// Runs instances.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Starts an instance and returns when its program has been started (not when it is healthy).
    ///
    /// Idempotent by instance id: one that runs is returned as it is; one that has exited is removed and started anew.
    /// The instance sees `PORT` if it has one, the given environment, and nothing of the server's own environment.
    async fn start(&self, spec: &InstanceSpec) -> Result<Instance, EngineError>;

    /// Sends SIGTERM, waits up to `grace`, kills what is left with all its descendants, and removes the instance with its
    /// logs. Succeeds if it is already gone.
    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError>;

    /// Every instance of ours, of all apps, running or exited, in the order of their ids.
    async fn list(&self) -> Result<Vec<Instance>, EngineError>;

    /// One instance; `None` if there is none of that id.
    async fn inspect(&self, id: &InstanceId) -> Result<Option<Instance>, EngineError>;

    /// Lines an instance wrote, oldest first. With `query.follow` the stream goes on until the instance ends or the
    /// stream is dropped; without, it ends with what is there.
    async fn logs(
        &self,
        id: &InstanceId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError>;

    /// What an instance uses now.
    async fn stats(&self, id: &InstanceId) -> Result<Stats, EngineError>;

    /// Runs a program inside a running instance, with its environment and its limits, until it ends or `cancel` fires
    /// (then it is killed and [`EngineError::Cancelled`] is answered).
    async fn exec(
        &self,
        id: &InstanceId,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError>;

    /// Runs an instance to completion (a release command, a one-off process), telling its output as it appears, and
    /// removes it. It is killed when `deadline` passes ([`EngineError::TimedOut`]) or `cancel` fires
    /// ([`EngineError::Cancelled`]). If the server dies meanwhile, the instance shows up in [`Runtime::list`].
    async fn run(
        &self,
        spec: &InstanceSpec,
        output: &OutputSink,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError>;

    /// Tells that something happened to an instance of ours, soon after it did. A hint, not a record: events may be
    /// missed or told twice, and whoever listens also looks on a timer.
    fn events(&self) -> BoxStream<'static, InstanceEvent>;

    /// Makes what the instances of a release share (its network), so that the first of them starts sooner. Idempotent; where it is
    /// left out, starting an instance does it.
    async fn prepare_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError>;

    /// Removes what a release owned beside its instances (its network, its directories), after they are gone. Idempotent.
    async fn remove_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError>;

    /// Removes a network of a release's instances that are kept apart ([`Surroundings::apart`]), after they are gone.
    /// Idempotent; what is left out is done by [`Runtime::remove_release`].
    async fn remove_apart(&self, app: &AppName, release: ReleaseNumber, name: &str) -> Result<(), EngineError>;

    /// Removes everything of an app, its volumes included: instances, networks, volumes, users. Artifacts are the builder's.
    async fn remove_app(&self, app: &AppName) -> Result<(), EngineError>;

    /// Lets a running instance that lives with its app ([`Surroundings::lives_with_app`]) be reached by the instances of a
    /// release, under its process's name and its aliases. Idempotent. [`Runtime::remove_release`] takes it out again.
    async fn join(&self, id: &InstanceId, release: ReleaseNumber, aliases: &[String]) -> Result<(), EngineError>;

    /// Unpacks a tar stream at the root of a running instance, over what is there.
    async fn put(&self, id: &InstanceId, archive: Vec<u8>) -> Result<(), EngineError>;

    /// Ends an instance's program as [`Runtime::stop`] does, if it runs, and starts it again in the same instance: what it or
    /// [`Runtime::put`] wrote there stays.
    async fn restart(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError>;

    /// What of this part's description its instances cannot have here, by name.
    fn cannot_honour(&self, part: &ProcessSpec) -> Vec<&'static str>;

    /// What this part names that belongs to somebody else, such as networks and volumes, and that is not there.
    async fn missing(&self, part: &ProcessSpec) -> Result<Vec<Missing>, EngineError>;

    /// What keeps instances apart from each other and from the machine here, and what does not.
    fn isolation(&self) -> Isolation;
}

/// Something of somebody else's that a part counts on and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What it is: `the network web`.
    pub what: String,
    /// How a person makes it.
    pub next: String,
}

/// Everything needed to start an instance.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its id; also the key of idempotence.
    pub id: InstanceId,
    /// What it runs.
    pub artifact: ArtifactId,
    /// The program. `None`: the image's own command.
    pub command: Option<CommandLine>,
    /// Its environment, without `PORT`.
    pub env: Vec<(EnvName, Secret)>,
    /// Whether it listens for HTTP requests and gets a `PORT`.
    pub port: PortRequest,
    /// What it may use.
    pub limits: Limits,
    /// Directories that outlive it.
    pub volumes: Vec<VolumeMount>,
    /// What it asks for beyond that.
    pub surroundings: Surroundings,
}

/// What an instance asks for beyond a program, limits and volumes. The default asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The settings of its container. Its `binds` and `files` have been resolved into those below; its `env` lies over the
    /// instance's.
    pub container: Box<ContainerSettings>,
    /// Files and directories of the machine that it sees.
    pub binds: Vec<Bind>,
    /// Files that are there when it starts.
    pub files: Vec<File>,
    /// Whether it lives as long as its app and not as long as its release: then it is in none of the releases' networks but
    /// those it joined.
    pub lives_with_app: bool,
    /// The releases it joins from its start on.
    pub joins: Vec<ReleaseNumber>,
    /// The name, within its release, of a network that it shares with others of this name and with nobody else: it is not in
    /// the release's own then. A word of letters, digits, hyphens, underscores and dots.
    pub apart: Option<String>,
    /// Whether everybody inside may write to its volumes, whoever their directories belong to. Only for [`Runtime::run`].
    pub open_volumes: bool,
    /// What is put into its working directory, and what is taken out of it. Only for [`Runtime::run`].
    pub handed: Option<Handed>,
    /// Set when its program has been started. Only by [`Runtime::run`].
    pub started: StartMark,
}

/// What is put into the working directory of an instance before its program starts, and what is taken out of there when that
/// has ended with code 0.
///
/// An engine whose instances work on the machine's own files makes a copy of the working directory, which the instance may
/// write to, and leaves it as [`Handed::WORK`] in `scratch`. Others write what is taken as tar archives, `0.tar` for the first
/// path and so on; there is none for a path at which there is nothing. The entries of `a/b` begin with `b`. Nobody has looked
/// at what stands in either: it is as hostile as the program that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// A directory of the machine for this instance alone. The caller makes and removes it.
    pub scratch: PathBuf,
    /// Gzipped tar archives of plain files and folders, laid over the working directory.
    pub brought: Vec<PathBuf>,
    /// Paths below the working directory, `.` for all of it.
    pub taken: Vec<String>,
    /// The most bytes that one archive of what is taken may have. [`EngineError::Failed`] if there are more.
    pub limit: u64,
}

impl Handed {
    /// The name of the working directory in `scratch`.
    pub const WORK: &str = "work";

    /// Where what stands at the path of this number is written to.
    pub fn archive(&self, number: usize) -> PathBuf {
        self.scratch.join(format!("{number}.tar"))
    }
}

/// The moment at which a program was started. Clones are told together.
#[derive(Debug, Clone, Default)]
pub struct StartMark(Arc<OnceLock<Instant>>);

impl StartMark {
    /// It has been started now, if it had not been before.
    pub fn now(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// When it was started; `None` if it was not.
    pub fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// A file or directory of the machine inside an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the machine.
    pub source: PathBuf,
    /// Where the instance sees it.
    pub path: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// How mounts below it are passed on.
    pub propagation: Option<String>,
}

/// A file made for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where, absolute.
    pub path: String,
    /// What stands in it.
    pub content: Secret,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
}

/// The port an instance listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRequest {
    /// It does not listen.
    None,
    /// It listens; where several instances share one network stack, the engine picks a free port, and where each has
    /// its own, it is this one.
    Listen(u16),
    /// It listens on this one for its neighbours, and is not told so. Where several instances share one network stack, nobody
    /// is promised anything.
    Neighbours(u16),
}

/// An instance as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// How it stands.
    pub state: InstanceState,
}

/// How an instance stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Its program runs.
    Running {
        /// Where it can be reached from this machine, if it listens.
        address: Option<SocketAddr>,
        /// What the image's own HEALTHCHECK says.
        health: Health,
        /// Since when.
        since: Timestamp,
    },
    /// Its program has ended; its logs are still there.
    Exited(Exit),
}

impl Instance {
    /// Whether its program runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, InstanceState::Running { .. })
    }

    /// Where it can be reached, if it runs and listens.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.state {
            InstanceState::Running { address, .. } => address,
            InstanceState::Exited(_) => None,
        }
    }
}

/// What the image's own HEALTHCHECK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is none.
    Unchecked,
    /// Not decided yet.
    Starting,
    /// It passed.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

/// How a program ended. At most one of the fields but `out_of_memory` is set; none, if nobody saw it end (the machine
/// was restarted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exit {
    /// It exited by itself with this code.
    pub code: Option<i32>,
    /// It was killed by this signal.
    pub signal: Option<i32>,
    /// The kernel killed it because it used more memory than it may.
    pub out_of_memory: bool,
}

impl Exit {
    /// Exited with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// The code a shell would show: the exit code, or 128 and the signal's number.
    pub fn shell_code(self) -> i32 {
        self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(255)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.out_of_memory, self.code, self.signal) {
            (true, ..) => f.write_str("killed: out of memory"),
            (_, Some(code), _) => write!(f, "exit code {code}"),
            (_, None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (_, None, None) => f.write_str("ended unseen"),
        }
    }
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only the last so many; `None`: all that are kept.
    pub tail: Option<usize>,
    /// Only lines at or after this moment.
    pub since: Option<Timestamp>,
    /// Go on with new lines.
    pub follow: bool,
}

/// A line in the log of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// Where to.
    pub stream: Stream,
    /// The text, without its line end, invalid UTF-8 replaced.
    pub text: String,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Processor time so far, in microseconds.
    pub cpu_us: u64,
    /// Processes.
    pub pids: u32,
}

/// Something happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// Its program started.
    Started(InstanceId),
    /// Its program ended.
    Exited(InstanceId),
    /// Somebody has told its program to end, which it has not done yet.
    Ending(InstanceId),
    /// Its HEALTHCHECK changed its mind.
    Health(InstanceId, Health),
}

/// What keeps instances apart, for `coracle doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Isolation {
    /// What is enforced: `memory limit (cgroup v1)`.
    pub enforced: Vec<String>,
    /// What is not, each with the reason: `own user: needs root`.
    pub missing: Vec<String>,
}

//! The daemon: owns the slots, runs executions in them, and answers clients on a Unix socket.
//!
//! It has one thread for everything but the bringing back of files. What a client sends is read no further than its lengths.

mod capture;
mod connection;
mod maker;
mod pool;
mod process;
mod run;
mod seat;
mod serve;
mod slot;
mod watched;
mod zygote;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_jail::{Hierarchy, JailError};
use rustix::fs::FlockOperation;

use crate::execution::Limits;
use crate::image::Image;
use crate::maker::Plan;
use crate::seccomp::{self, SeccompError};

/// Everything a daemon is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens. A lock file `<socket>.lock` beside it keeps a second daemon out.
    pub socket: PathBuf,
    /// Who may talk to it, beside its own user.
    pub client_uid: Option<u32>,
    /// What programs can run in.
    pub images: Vec<Image>,
    /// The highest limits that are granted; slots are made with these.
    pub limits: Limits,
    /// Bytes that each of `/work`, `/tmp` and `/dev/shm` can hold, within the memory limit.
    pub disk_bytes: u64,
    /// Files that each of them can hold.
    pub disk_inodes: u64,
    /// Open files of each process.
    pub nofile: u64,
    /// Bytes of files that are brought back.
    pub collect_bytes: u64,
    /// Executions at the same time; more wait.
    pub most_running: u32,
    /// How long an execution waits for a slot before it is refused.
    pub patience: Duration,
    /// The user of the first seat on the machine; each seat has one of its own, counted from here.
    pub first_uid: u32,
    /// Copies that a zygote makes before it is replaced by a new one with another address layout and hash seed.
    pub zygote_copies: u32,
    /// How many slots of an image are being made at the same time.
    pub makers: u32,
}

impl Options {
    /// The usual ones.
    pub fn new(socket: impl Into<PathBuf>, images: Vec<Image>) -> Self {
        Self {
            socket: socket.into(),
            client_uid: None,
            images,
            limits: Limits::default(),
            disk_bytes: 64 << 20,
            disk_inodes: 4096,
            nofile: 256,
            collect_bytes: 16 << 20,
            most_running: 64,
            patience: Duration::from_secs(10),
            first_uid: 2_000_000_000,
            zygote_copies: 2000,
            makers: 2,
        }
    }
}

/// The daemon's niceness.
const PRECEDENCE: i32 = -10;

/// Why a daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The machine or the user does not allow what a sandbox needs.
    #[error("sandboxes need {what}: {why}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Another daemon has the socket.
    #[error("another daemon serves {0}; stop it or choose another socket")]
    Taken(PathBuf),
    /// A step failed.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A step of the confinement failed.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The filter of system calls could not be made.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The maker ended, without which no slot is made; whoever started the daemon starts it again.
    #[error("the maker of slots has ended")]
    MakerGone,
}

pub(crate) fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Io { step: step.into(), source }
}

/// Runs the daemon until it gets SIGTERM or SIGINT. Must be called as root, before the process has a second thread.
pub fn run(options: Options) -> Result<(), DaemonError> {
    if !rustix::process::geteuid().is_root() {
        let why = "this process is not root, and running with user namespaces alone is not built yet".to_owned();
        return Err(DaemonError::Missing { what: "root", why });
    }
    let hierarchy = Hierarchy::detect();
    for controller in ["memory", "cpu", "pids"] {
        if !hierarchy.controllers().contains(&controller) {
            let why = match &hierarchy {
                Hierarchy::None { why } => why.clone(),
                found => format!("{} has {}", found.version(), found.controllers().join(", ")),
            };
            return Err(DaemonError::Missing { what: "the cgroup controllers memory, cpu and pids", why });
        }
    }
    let _lock = lock(&options)?;
    let parent = seat::parent(&options.socket);
    seat::clear(&hierarchy, &parent);
    let filters = filters(&seccomp::programs()?);
    let plan = Plan {
        images: options.images.clone(),
        first_uid: options.first_uid,
        disk_bytes: options.disk_bytes,
        disk_inodes: options.disk_inodes,
        nofile: options.nofile,
    };
    // Whoever ends programs at their limits must get to it, however busy they keep the machine. Without it, it may be late.
    if let Err(error) = rustix::process::setpriority_process(None, PRECEDENCE) {
        tracing::warn!(%error, "the daemon gets no precedence over the programs it watches");
    }
    let (maker, socket) = crate::maker::start(&plan).map_err(failed("start the maker"))?;
    // One thread: children are this thread's, and die with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("start the runtime"))?;
    let served = runtime.block_on(serve::serve(options, hierarchy.clone(), parent.clone(), maker, socket, filters));
    drop(runtime);
    seat::clear(&hierarchy, &parent);
    served
}

/// The cgroup that all cgroups of a daemon at this socket are in, the same after a restart.
pub fn group_of(socket: &Path) -> String {
    seat::parent(socket)
}

/// Holds the socket's place for this process.
fn lock(options: &Options) -> Result<File, DaemonError> {
    let mut path = options.socket.clone().into_os_string();
    path.push(".lock");
    let step = || failed(format!("lock {}", path.display()));
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(step())?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Taken(options.socket.clone())),
        Err(error) => Err(step()(error.into())),
    }
}

/// The filters as a zygote reads them: each with its length in front.
fn filters(programs: &seccomp::Programs) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length(&programs.list)[..], &programs.list, &length(&programs.last), &programs.last].concat()
}

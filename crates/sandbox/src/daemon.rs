//! The daemon: owns the slots, runs executions in them, and answers clients on a Unix socket.
//!
//! It has one thread for everything but the bringing back of files. What a client sends is read no further than its lengths.

mod capture;
mod connection;
mod container;
mod decision;
mod elsewhere;
mod farewell;
mod maker;
mod pool;
mod process;
mod run;
mod seat;
mod serve;
mod session;
mod slot;
mod streams;
mod watched;
mod zygote;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_jail::{Hierarchy, JailError, Standing};
use rustix::fs::FlockOperation;

use container::Containers;
use decision::Decision;
use seat::Seating;
use serve::{Ground, Setting};

use crate::docker::Engine;
use crate::execution::Limits;
use crate::image::Image;
use crate::isolation::{Isolation, Permitted, Wanted};
use crate::maker::{Plan, Users};
use crate::probe::Choice;
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
    /// Images that should be there and cannot be served: their names, and why.
    pub broken: Vec<(String, String)>,
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
    /// How programs are to be isolated.
    pub isolation: Wanted,
    /// What is put up with where that cannot be had.
    pub permitted: Permitted,
    /// The socket of the Docker engine; `None` is the usual one.
    pub docker: Option<PathBuf>,
}

impl Options {
    /// The usual ones.
    pub fn new(socket: impl Into<PathBuf>, images: Vec<Image>) -> Self {
        Self {
            socket: socket.into(),
            client_uid: None,
            images,
            broken: Vec::new(),
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
            isolation: Wanted::Auto,
            permitted: Permitted::default(),
            docker: None,
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

/// Runs the daemon until it gets SIGTERM or SIGINT. Must be called before the process has a second thread. Root or not, it does
/// what the machine allows, and refuses to start where that is not safe and not permitted.
pub fn run(options: Options) -> Result<(), DaemonError> {
    let decision = Decision::find(&options)?;
    if decision.is_slots() && Standing::now() == Standing::Ordinary {
        return Err(become_root_of_own(&decision));
    }
    decision.log();
    let hierarchy = Hierarchy::detect();
    let groups = !hierarchy.controllers().is_empty();
    let _lock = lock(&options)?;
    let parent = seat::parent(&options.socket);
    if decision.choice.isolation == Isolation::Docker {
        // Containers have groups of their own below those that are about to be removed.
        clear_containers(&engine_of(&options), &parent)?;
    }
    seat::clear(&hierarchy, &parent);
    // Whoever ends programs at their limits must get to it, however busy they keep the machine. Without it, it may be late.
    if let Err(error) = rustix::process::setpriority_process(None, PRECEDENCE) {
        tracing::debug!(%error, "the daemon gets no precedence over the programs it watches");
    }
    let cleared = (hierarchy.clone(), parent.clone());
    let seating = Seating { hierarchy, parent, users: Users { first: options.first_uid, count: u32::MAX }, own: 0, groups };
    let served = match decision.choice.isolation {
        Isolation::Zygote | Isolation::Exec => in_slots(options, decision.choice, seating),
        Isolation::Docker => in_containers(options, decision, seating),
        Isolation::Nothing => without_walls(options, decision.choice, seating),
    };
    seat::clear(&cleared.0, &cleared.1);
    served
}

/// Slots of our own.
fn in_slots(mut options: Options, choice: Choice, mut seating: Seating) -> Result<(), DaemonError> {
    let mapping = if let Standing::RootOfOwn(mapping) = Standing::now() { Some(mapping) } else { None };
    if let Some(mapping) = mapping {
        // An ordinary user's daemon serves that user alone: it has nobody to lend its rights to.
        options.client_uid = None;
        // Nobody but root exists in there without subordinates.
        let (first, count) = if mapping.subordinates > 0 { (1, mapping.subordinates) } else { (0, 1) };
        seating.users = Users { first, count };
    }
    let (rootless, drops_groups) = (mapping.is_some(), mapping.is_none_or(|mapping| mapping.drops_groups));
    let plan = Plan {
        images: options.images.clone(),
        users: seating.users,
        rootless,
        drops_groups,
        disk_bytes: options.disk_bytes,
        disk_inodes: options.disk_inodes,
        nofile: options.nofile,
    };
    let filter = filters(&seccomp::programs()?);
    let (pid, socket) = crate::maker::start(&plan).map_err(failed("start the maker"))?;
    serve_with(Setting { options, choice, seating, way: Ground::Maker { pid, socket, filter } })
}

/// Enters a user namespace and starts this program again in there, with the same arguments. Only so its memory, of which PID
/// 1 of each slot has a copy, belongs to that namespace too, and can be kept from programs that are the same user.
fn become_root_of_own(decision: &Decision) -> DaemonError {
    if let Err(error) = coracle_jail::user_namespace::become_root() {
        return error.into();
    }
    let mut again = std::process::Command::new("/proc/self/exe");
    let again = std::os::unix::process::CommandExt::exec(decision.take_along(again.args(std::env::args_os().skip(1))));
    failed("start again as root of a user namespace")(again)
}

/// Containers of an engine.
fn in_containers(options: Options, decision: Decision, mut seating: Seating) -> Result<(), DaemonError> {
    let Decision { choice, root, docker } = decision;
    let info = docker.map_err(|why| DaemonError::Missing { what: "a Docker engine", why })?;
    let engine = engine_of(&options);
    let owner = seating.parent.clone();
    // The engine makes its groups from the hierarchy's root; ours is the same only for root, and for the driver that takes
    // paths. Elsewhere limits are the engine's alone.
    let own = root && info.cgroup_driver == "cgroupfs" && !info.rootless;
    let same = own && seating.hierarchy.version().ends_with(&info.cgroup_version);
    seating.groups &= same;
    seating.own = 1;
    let containers = Containers {
        engine: engine.clone(),
        runtime: info.sandboxed_runtime().map(str::to_owned),
        below_groups: seating.groups,
        own_users: own,
        limits: options.limits,
        disk_bytes: options.disk_bytes,
        disk_inodes: options.disk_inodes,
        nofile: options.nofile,
        filter: filters(&seccomp::programs()?),
        owner: owner.clone(),
    };
    let served = serve_with(Setting { options, choice, seating, way: Ground::Containers(containers) });
    clear_containers(&engine, &owner)?;
    served
}

fn engine_of(options: &Options) -> Engine {
    Engine::at(options.docker.clone().unwrap_or_else(Engine::usual_socket))
}

fn clear_containers(engine: &Engine, owner: &str) -> Result<(), DaemonError> {
    container::clear(engine, owner).map_err(|why| DaemonError::Missing { what: "old containers removed", why })
}

/// No walls at all.
fn without_walls(options: Options, choice: Choice, mut seating: Seating) -> Result<(), DaemonError> {
    seating.groups = false;
    let mut place = options.socket.clone().into_os_string();
    place.push(".work");
    let place = PathBuf::from(place);
    let served = serve_with(Setting { options, choice, seating, way: Ground::Sessions(place.clone()) });
    std::fs::remove_dir_all(place).ok();
    served
}

/// Serves in one thread: children are this thread's, and die with it.
fn serve_with(setting: Setting) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("start the runtime"))?;
    runtime.block_on(serve::serve(setting))
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

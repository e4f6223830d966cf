//! What the engine tells a shim to do, and what the shim answers. Written as JSON; it holds environment values, so it goes
//! through sockets and memory only and has no `Debug`.

use std::path::PathBuf;

use coracle_engine::Exit;
use coracle_jail::{Confinement, FileSystem, GroupLimits, Namespaces};
use coracle_model::CommandLine;
use serde::{Deserialize, Serialize};

/// A program to run and everything around it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// What to run; its variables are filled in from `env` when `PORT` is known.
    pub(crate) command: CommandLine,
    /// Its whole environment but `PORT`. Later ones win.
    pub(crate) env: Vec<(String, String)>,
    /// Its working directory.
    pub(crate) cwd: PathBuf,
    /// Whether it gets a port.
    pub(crate) port: PortChoice,
    /// Its cgroup.
    pub(crate) group: Option<TaskGroup>,
    /// Namespaces of its own, or to be joined.
    pub(crate) namespaces: Namespaces,
    /// The shim whose namespaces are joined instead of making new ones, as the machine numbers it.
    pub(crate) join: Option<i32>,
    /// Its view of the file system.
    pub(crate) file_system: Option<FileSystem>,
    /// What it gives up.
    pub(crate) confinement: Confinement,
}

/// Which port a task gets.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PortChoice {
    /// None.
    None,
    /// One that nobody uses.
    Free,
    /// The one that the joined instance has.
    Same(u16),
}

/// A cgroup of a task.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TaskGroup {
    /// The group of the program.
    pub(crate) name: String,
    /// Its limits; `None`: it exists and is only joined.
    pub(crate) limits: Option<GroupLimits>,
    /// Whether the program may arrange it.
    #[serde(default)]
    pub(crate) delegated: bool,
    /// The group that the shim itself moves to, so that it neither counts against the limits nor dies with a service.
    pub(crate) supervisors: Option<String>,
}

/// What a shim answers, one line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The program has been started.
    Started {
        /// The port it was given.
        port: Option<u16>,
    },
    /// It could not be.
    Failed {
        /// Why.
        cause: String,
    },
    /// It has ended (only told while somebody holds the other end).
    Exited {
        /// How.
        exit: Exit,
    },
}

/// Who a shim is, as its instance directory tells (`pid.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    /// Its pid, as the machine numbers it.
    pub(crate) pid: i32,
    /// When it was started, in ticks: with the pid, its name for good.
    pub(crate) start: u64,
    /// During which run of the machine.
    pub(crate) boot: String,
    /// The port its program was given.
    pub(crate) port: Option<u16>,
    /// The descriptor under which it keeps its task.
    pub(crate) task_fd: i32,
    /// When, in milliseconds since 1970.
    pub(crate) since_ms: i64,
}

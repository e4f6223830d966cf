//! How far programs can be confined on this machine, and the confinement each of them gets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle_engine::Isolation;
use coracle_jail::{Confinement, FileSystem, GroupLimits, Hierarchy, Namespaces, Rlimits, Show, Support, User};

use crate::files::Home;
use crate::task::TaskGroup;

/// Open descriptors that a program may have.
const OPEN_FILES: u64 = 65_536;

/// Why nothing is confined when nobody wants it to be.
pub(crate) const SWITCHED_OFF: &str = "switched off";

/// Directories that every program has of its own, empty at first.
pub(crate) const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Sockets that would hand over the machine.
const DANGEROUS: [&str; 8] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/snapd.socket",
];

/// What can be used here.
pub(crate) struct Means {
    /// What the kernel lets this user do.
    support: Support,
    /// Where limits are set.
    pub(crate) hierarchy: Hierarchy,
    /// Whether programs get a user of their own.
    pub(crate) own_users: bool,
    /// The highest directory on the way to the engine's that others may not enter: it is hidden as a whole.
    hidden: PathBuf,
}

/// The confinement of one program.
pub(crate) struct Confines {
    pub(crate) namespaces: Namespaces,
    pub(crate) file_system: Option<FileSystem>,
    pub(crate) confinement: Confinement,
}

impl Means {
    /// Decides by what the shim found possible.
    pub(crate) fn new(support: Support, hierarchy: Hierarchy, home: &Home) -> Self {
        let closed = home.root().ancestors().filter(|path| !is_open(path)).last();
        let own_users = support.users.is_ok() && (support.mounts.is_ok() || closed.is_none());
        let hidden = closed.unwrap_or(home.root()).to_owned();
        Self { support, hierarchy, own_users, hidden }
    }

    /// Whether all that a program starts dies with its shim.
    pub(crate) fn has_pid_namespaces(&self) -> bool {
        self.support.processes.is_ok()
    }

    /// Whether programs see a file system of their own.
    pub(crate) fn has_mount_namespaces(&self) -> bool {
        self.support.mounts.is_ok()
    }

    /// The confinement of a program of that user which sees, of the engine's directory, only `shows`.
    pub(crate) fn confine(&self, user: Option<User>, home: &Home, program: &Path, shows: Vec<Show>) -> Confines {
        let (pid, mount, ipc) = (self.has_pid_namespaces(), self.has_mount_namespaces(), self.support.ipc.is_ok());
        let namespaces = Namespaces { pid, mount: mount || pid, ipc, uts: ipc };
        let mut show = vec![Show { source: program.to_owned(), target: home.program(), writable: false }];
        show.extend(shows);
        let file_system = FileSystem {
            private: PRIVATE.map(PathBuf::from).to_vec(),
            hide: std::iter::once(self.hidden.clone()).chain(DANGEROUS.map(PathBuf::from)).collect(),
            show,
            read_only: true,
            proc: pid,
        };
        let confinement = Confinement {
            user,
            drop_capabilities: user.is_some(),
            no_new_privileges: true,
            rlimits: Rlimits { nofile: Some(OPEN_FILES), core: Some(0) },
            dies_with_parent: true,
        };
        Confines { namespaces, file_system: mount.then_some(file_system), confinement }
    }

    /// The cgroup of a program, where there can be one.
    pub(crate) fn group(&self, owner: &str, name: &str, limits: GroupLimits, with_supervisor: bool) -> Option<TaskGroup> {
        if matches!(self.hierarchy, Hierarchy::None { .. }) {
            return None;
        }
        let supervisors = with_supervisor.then(|| format!("{}/supervisors", groups_of(owner)));
        Some(TaskGroup { name: format!("{}/{name}", groups_of(owner)), limits: Some(limits), delegated: false, supervisors })
    }

    /// What is enforced and what is not.
    pub(crate) fn report(&self) -> Isolation {
        let mut report = Isolation::default();
        let mut tell = |what: &str, works: Result<String, String>| match works {
            Ok(how) if how.is_empty() => report.enforced.push(what.to_owned()),
            Ok(how) => report.enforced.push(format!("{what} ({how})")),
            Err(why) => report.missing.push(format!("{what}: {why}")),
        };
        let controllers = self.hierarchy.controllers();
        for (what, controller) in [("memory limit", "memory"), ("processor limit", "cpu"), ("process limit", "pids")] {
            tell(
                what,
                match &self.hierarchy {
                    Hierarchy::None { why } => Err(why.clone()),
                    some if controllers.contains(&controller) => Ok(some.version().to_owned()),
                    some => Err(format!("{} has no {controller} controller here", some.version())),
                },
            );
        }
        let how =
            |support: &Result<(), String>, how: &str| support.clone().map(|()| how.to_owned()).map_err(|why| self.explain(why));
        tell(
            "own user",
            match (&self.support.users, self.own_users) {
                (Ok(()), true) => Ok(String::new()),
                (Ok(()), false) => Err(format!("others may not enter {} and it cannot be shown to them", self.hidden.display())),
                (Err(why), _) => Err(self.explain(why.clone())),
            },
        );
        tell("own processes only", how(&self.support.processes, "pid namespace"));
        tell("read-only file system, private /tmp", how(&self.support.mounts, "mount namespace"));
        tell("own shared memory", how(&self.support.ipc, "ipc namespace"));
        tell("no privileges by set-user-id programs", Ok("no_new_privs".to_owned()));
        tell("own network", Err("instances share the machine's and listen on its loopback address".to_owned()));
        report
    }

    /// Nearly always the reason is one that a person can do something about.
    fn explain(&self, why: String) -> String {
        if rustix::process::geteuid().is_root() || why == SWITCHED_OFF { why } else { "needs root".to_owned() }
    }
}

/// The group that holds all groups of a server.
pub(crate) fn groups_of(owner: &str) -> String {
    format!("coracle/{owner}")
}

/// Whether users other than its owner may enter a directory.
pub(crate) fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
}

/// Whether users other than its owner can get to a directory and enter it.
pub(crate) fn is_reachable(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path.ancestors().all(is_open))
}

//! What this machine offers for sandboxes, found out by trying, and which way is chosen for it.

use std::path::{Path, PathBuf};

use coracle_jail::{Hierarchy, Standing, Support};

use crate::docker::{Engine, EngineInfo};
use crate::isolation::{Isolation, Permitted, Wanted};
use crate::seccomp;

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whether this is the machine's root.
    pub root: bool,
    /// The cgroups that may be used, or why there are none.
    pub cgroups: Result<Cgroups, String>,
    /// Namespaces for processes, mounts, shared memory: as root, or in a user namespace of one's own. An error says what the
    /// kernel refuses.
    pub namespaces: Result<(), String>,
    /// Whether filters of system calls can be installed.
    pub seccomp: Result<(), String>,
    /// The Docker engine that answers, or why none does.
    pub docker: Result<EngineInfo, String>,
}

/// Cgroups that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// `cgroup v1`, `cgroup v2`.
    pub version: String,
    /// Of `memory`, `cpu`, `pids`, those that are there.
    pub controllers: Vec<String>,
}

/// The way that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub isolation: Isolation,
    /// Why this one.
    pub why: String,
    /// What is weaker here than it could be, a sentence each.
    pub weaker: Vec<String>,
}

/// The controllers that hold a program as a whole.
const CONTROLLERS: [(&str, &str); 3] = [
    ("memory", "memory is bounded for each process, not for all of a program together"),
    ("pids", "processes are counted per user, not per program"),
    ("cpu", "programs get what the machine has of the processor, and its time is bounded for each process"),
];

impl Report {
    /// Looks and tries. Only for a process with a single thread, in which nothing changes; in another one the namespaces
    /// count as refused.
    pub fn look(docker: Option<&Path>) -> Self {
        let root = Standing::now() == Standing::Root;
        let support = if root { Support::try_out() } else { Support::try_out_as_root_of_own() };
        let cgroups = match Hierarchy::detect() {
            Hierarchy::None { why } => Err(why),
            found => Ok(Cgroups {
                version: found.version().to_owned(),
                controllers: found.controllers().into_iter().map(str::to_owned).collect(),
            }),
        };
        let socket = docker.map_or_else(Engine::usual_socket, PathBuf::from);
        Self {
            root,
            cgroups,
            namespaces: support.trouble().map_or(Ok(()), |why| Err(why.to_owned())),
            seccomp: seccomp::programs().map_err(|error| error.to_string()).and_then(|_| seccomp_is_there()),
            docker: Engine::at(socket).info(),
        }
    }

    /// What to do here, or why nothing of what is wanted is safe.
    pub fn choose(&self, wanted: Wanted, permitted: Permitted) -> Result<Choice, String> {
        let nothing = |why: String| {
            if permitted.no_sandbox {
                let weaker = vec!["PROGRAMS ARE NOT ISOLATED: they can do whatever the daemon's user can".to_owned()];
                let why = format!("no sandbox can be made ({why}), and that was permitted");
                Ok(Choice { isolation: Isolation::Nothing, why, weaker })
            } else {
                Err(why)
            }
        };
        match wanted {
            Wanted::Only(isolation @ (Isolation::Zygote | Isolation::Exec)) => match self.jail(permitted) {
                Ok((why, weaker)) => Ok(Choice { isolation, why: format!("it was asked for; {why}"), weaker }),
                Err(why) => nothing(why),
            },
            Wanted::Only(Isolation::Docker) => match self.container() {
                Ok((why, weaker)) => Ok(Choice { isolation: Isolation::Docker, why: format!("it was asked for; {why}"), weaker }),
                Err(why) => nothing(why),
            },
            Wanted::Only(Isolation::Nothing) => nothing("it was asked for".to_owned()),
            Wanted::Auto => match (self.jail(permitted), self.container()) {
                (Ok((why, weaker)), _) => Ok(Choice { isolation: Isolation::Zygote, why, weaker }),
                (Err(jail), Ok((why, weaker))) => {
                    let why = format!("{why}; sandboxes of our own cannot be made: {jail}");
                    Ok(Choice { isolation: Isolation::Docker, why, weaker })
                }
                (Err(jail), Err(docker)) => nothing(format!("{jail}; {docker}")),
            },
        }
    }

    /// Whether slots of our own can be made: why it is a good idea, and what is weaker.
    fn jail(&self, permitted: Permitted) -> Result<(String, Vec<String>), String> {
        self.namespaces.as_ref().map_err(|why| format!("namespaces are refused: {why}"))?;
        self.seccomp.as_ref().map_err(|why| format!("there is no filter of system calls: {why}"))?;
        let there = self.cgroups.as_ref().map(|found| found.controllers.as_slice()).unwrap_or_default();
        let missing: Vec<_> = CONTROLLERS.iter().filter(|(name, _)| !there.iter().any(|one| one == name)).collect();
        let memory = missing.iter().any(|(name, _)| *name == "memory");
        if memory && !permitted.weak_limits {
            let why = self.cgroups.as_ref().err().map_or_else(|| "no memory controller is delegated".to_owned(), Clone::clone);
            return Err(format!(
                "a program's memory cannot be bounded ({why}); have a cgroup delegated, or permit weak limits, which bound \
                 each process by itself"
            ));
        }
        let mut weaker: Vec<String> = missing.iter().map(|(name, what)| format!("no {name} controller: {what}")).collect();
        if !self.root {
            weaker.push(
                "not root: without subordinate users (subuid, newuidmap) all programs run as one user of the machine, kept \
                 apart by their namespaces alone"
                    .to_owned(),
            );
        }
        let who = if self.root { "root" } else { "user namespaces" };
        let groups = self.cgroups.as_ref().map_or_else(|_| "no cgroups".to_owned(), |found| found.version.clone());
        Ok((format!("{who} and {groups} are there"), weaker))
    }

    fn container(&self) -> Result<(String, Vec<String>), String> {
        let engine = self.docker.as_ref().map_err(|why| format!("no Docker engine: {why}"))?;
        let mut weaker = vec!["containers are started by Docker: slower, and their isolation is the engine's".to_owned()];
        let runtime = engine.sandboxed_runtime();
        if runtime.is_none() {
            weaker.push("the engine has no runsc: programs share the machine's kernel".to_owned());
        }
        let runtime = runtime.unwrap_or("its usual runtime");
        Ok((format!("Docker {} answers, with {runtime}", engine.version), weaker))
    }

    /// Each thing that was looked at, and what was found: `Err` is what is missing.
    pub fn lines(&self) -> Vec<(&'static str, Result<String, String>)> {
        let user = if self.root { "root".to_owned() } else { "an ordinary user, in user namespaces".to_owned() };
        vec![
            ("user", Ok(user)),
            (
                "cgroups",
                self.cgroups
                    .as_ref()
                    .map(|found| format!("{}: {}", found.version, found.controllers.join(", ")))
                    .map_err(Clone::clone),
            ),
            ("namespaces", self.namespaces.clone().map(|()| "processes, mounts, shared memory, host name".to_owned())),
            ("seccomp", self.seccomp.clone().map(|()| "filters of system calls".to_owned())),
            (
                "docker",
                self.docker.as_ref().map_err(Clone::clone).map(|engine| {
                    format!("{} with runtimes {}, {}", engine.version, engine.runtimes.join(", "), engine.cgroup_driver)
                }),
            ),
        ]
    }
}

/// prctl(2): asking for the mode fails where the kernel has none.
fn seccomp_is_there() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    if status.contains("\nSeccomp:") { Ok(()) } else { Err("the kernel was built without seccomp".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn machine(root: bool, controllers: Option<&[&str]>, namespaces: bool, docker: bool) -> Report {
        let cgroups = controllers.map(|names| Cgroups {
            version: "cgroup v2".to_owned(),
            controllers: names.iter().map(|name| (*name).to_owned()).collect(),
        });
        let engine = EngineInfo {
            version: "24.0".to_owned(),
            runtimes: vec!["runc".to_owned()],
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: "2".to_owned(),
            rootless: false,
        };
        Report {
            root,
            cgroups: cgroups.ok_or_else(|| "nothing is delegated".to_owned()),
            namespaces: if namespaces { Ok(()) } else { Err("unshare: EPERM".to_owned()) },
            seccomp: Ok(()),
            docker: if docker { Ok(engine) } else { Err("no socket".to_owned()) },
        }
    }

    const ALL: Option<&[&str]> = Some(&["memory", "cpu", "pids"]);

    #[test]
    fn the_best_that_is_safe_is_chosen_and_what_is_weaker_is_told() {
        let choose = |report: Report| report.choose(Wanted::Auto, Permitted::default());
        let best = choose(machine(true, ALL, true, true)).unwrap();
        assert_eq!((best.isolation, best.weaker.len()), (Isolation::Zygote, 0));
        let rootless = choose(machine(false, ALL, true, false)).unwrap();
        assert_eq!((rootless.isolation, rootless.weaker.len()), (Isolation::Zygote, 1));
        let no_share = choose(machine(false, Some(&["memory", "pids"]), true, false)).unwrap();
        assert!(no_share.weaker[0].contains("cpu"), "{no_share:?}");
        // Where memory has no bounds, Docker is better than processes bounded one by one.
        assert_eq!(choose(machine(false, None, true, true)).unwrap().isolation, Isolation::Docker);
        assert_eq!(choose(machine(false, ALL, false, true)).unwrap().isolation, Isolation::Docker);
    }

    #[test]
    fn where_nothing_is_safe_it_is_refused_with_every_reason_unless_permitted() {
        let bare = machine(false, None, false, false);
        let why = bare.choose(Wanted::Auto, Permitted::default()).unwrap_err();
        assert!(why.contains("unshare: EPERM") && why.contains("no socket"), "{why}");
        let permitted = Permitted { no_sandbox: true, ..Permitted::default() };
        let choice = bare.choose(Wanted::Auto, permitted).unwrap();
        assert_eq!(choice.isolation, Isolation::Nothing);
        assert!(choice.weaker[0].contains("NOT ISOLATED"));
        // The permission is not a wish: where there is a sandbox, it is used.
        assert_eq!(machine(true, ALL, true, true).choose(Wanted::Auto, permitted).unwrap().isolation, Isolation::Zygote);
    }

    #[test]
    fn memory_without_bounds_must_be_permitted() {
        let unbounded = machine(false, Some(&["pids", "cpu"]), true, false);
        let why = unbounded.choose(Wanted::Auto, Permitted::default()).unwrap_err();
        assert!(why.contains("memory cannot be bounded"), "{why}");
        let choice = unbounded.choose(Wanted::Auto, Permitted { weak_limits: true, no_sandbox: false }).unwrap();
        assert_eq!(choice.isolation, Isolation::Zygote);
        assert!(choice.weaker[0].contains("each process"), "{choice:?}");
    }

    #[test]
    fn a_way_that_is_asked_for_is_taken_or_refused() {
        let no_docker = machine(true, ALL, true, false);
        assert!(no_docker.choose(Wanted::Only(Isolation::Docker), Permitted::default()).unwrap_err().contains("no socket"));
        let choice = no_docker.choose("exec".parse().unwrap(), Permitted::default()).unwrap();
        assert_eq!(choice.isolation, Isolation::Exec);
        assert!("nothing".parse::<Wanted>().unwrap_err().contains("zygote"));
    }
}

//! What belongs to one server on this machine, found from outside: by its state directory and its owner id, wherever the
//! kernel and Docker show them. It does not ask the server, which might be mistaken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::docker_answers;

/// Everything that belongs to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belongings {
    /// Containers, by name.
    pub containers: BTreeSet<String>,
    /// Networks, by name.
    pub networks: BTreeSet<String>,
    /// Volumes, by name.
    pub volumes: BTreeSet<String>,
    /// Images, by tag.
    pub images: BTreeSet<String>,
    /// Processes: server, proxy, supervisors, instances of the process engine.
    pub processes: BTreeSet<Process>,
    /// Control groups; without the one that all groups of a server lie in.
    pub cgroups: BTreeSet<PathBuf>,
    /// Mount points inside the state directory.
    pub mounts: BTreeSet<PathBuf>,
    /// What the process engine keeps of apps: slugs, dependencies, instances, volumes.
    pub directories: BTreeSet<PathBuf>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

impl Belongings {
    /// Looks around.
    pub fn of(state: &Path) -> Self {
        let owner = owner_of(state);
        let mut found = Self {
            processes: processes(state, owner.as_deref()),
            mounts: mounts(state),
            directories: directories(state),
            ..Self::default()
        };
        let Some(owner) = owner else { return found };
        found.cgroups = cgroups(&owner);
        if docker_answers() {
            let label = format!("label=dev.coracle.owner={owner}");
            found.containers = docker_list(&["ps", "-a", "--format", "{{.Names}}", "--filter", &label]);
            found.networks = docker_list(&["network", "ls", "--format", "{{.Name}}", "--filter", &label]);
            found.volumes = docker_list(&["volume", "ls", "--format", "{{.Name}}", "--filter", &label]);
            let ours = format!("reference=coracle-{owner}/*");
            found.images = docker_list(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &ours]);
        }
        found
    }

    /// Without the server, whose id this is, and its proxy.
    #[must_use]
    pub fn of_apps(mut self, servers: &[Pid]) -> Self {
        self.processes.retain(|process| {
            let is_server = servers.iter().any(|pid| pid.as_raw_nonzero().get() == process.pid);
            !is_server && !process.is_proxy()
        });
        self
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The proxy's process.
    pub fn proxy(&self) -> Option<Pid> {
        self.proxies().first().copied()
    }

    /// The proxy's processes: more than one while one takes over from another.
    pub fn proxies(&self) -> Vec<Pid> {
        self.processes.iter().filter(|process| process.is_proxy()).filter_map(|process| Pid::from_raw(process.pid)).collect()
    }

    /// Ends and removes all of it.
    pub fn remove(&self) {
        for _ in 0..3 {
            for process in &self.processes {
                if let Some(pid) = Pid::from_raw(process.pid) {
                    signal(pid, Signal::KILL);
                }
            }
        }
        for names in [("rm", "-fv", &self.containers), ("rmi", "-f", &self.images)] {
            docker_remove(&[names.0, names.1], names.2);
        }
        docker_remove(&["network", "rm"], &self.networks);
        docker_remove(&["volume", "rm", "-f"], &self.volumes);
        // The deepest first.
        for mount in self.mounts.iter().rev() {
            if let Err(error) = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH) {
                eprintln!("{} stays mounted: {error}", mount.display());
            }
        }
        let give_up = Instant::now() + Duration::from_secs(2);
        for group in self.cgroups.iter().rev() {
            // The kernel needs a moment to take the killed processes out of their groups.
            while std::fs::remove_dir(group).is_err() && group.exists() && Instant::now() < give_up {
                std::thread::yield_now();
            }
        }
    }
}

impl Process {
    /// Whether it is one of Coracle's own programs that watches over a single instance.
    pub fn is_supervisor(&self) -> bool {
        let program = self.command.split(' ').next().and_then(|path| path.rsplit('/').next());
        program.is_some_and(|name| name.starts_with("coracle")) && !self.is_proxy()
    }

    fn is_proxy(&self) -> bool {
        self.command.split(' ').nth(1).is_some_and(|word| word == "proxy") || self.command.contains(" proxy run")
    }
}

/// Files below a directory whose content has this text in it.
pub fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap_or_default();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

/// Sends a signal to a process that may have ended by itself.
pub fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        assert_eq!(error, rustix::io::Errno::SRCH, "process {} cannot be sent {signal:?}", pid.as_raw_nonzero());
    }
}

/// The server's owner id, out of its database. Python reads it: it is there wherever these stories are told, and a
/// second reader proves that the file is an ordinary database.
fn owner_of(state: &Path) -> Option<String> {
    let database = state.join("coracle.db");
    if !database.is_file() {
        return None;
    }
    let script = "import sqlite3, sys\n\
                  database = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=5)\n\
                  print(database.execute('SELECT owner FROM server').fetchone()[0])";
    let output = Command::new("/usr/bin/python3").args(["-c", script]).arg(database).stderr(Stdio::null()).output().ok()?;
    let owner = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!owner.is_empty()).then_some(owner)
}

/// Processes that have the state directory in their command line, environment, directory or root, or that are in a
/// control group of the owner.
fn processes(state: &Path, owner: Option<&str>) -> BTreeSet<Process> {
    let state = state.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let this = std::process::id().cast_signed();
    pids.filter(|pid| *pid != this)
        .filter_map(|pid| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let text =
                |name: &str| std::fs::read(proc.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
            let link = |name: &str| std::fs::read_link(proc.join(name)).map(|path| path.to_string_lossy().into_owned());
            let command = text("cmdline").ok()?.trim().to_owned();
            // A kernel thread or a zombie: nothing that could be left behind.
            if command.is_empty() {
                return None;
            }
            let places = [text("environ"), link("cwd"), link("root"), link("exe")];
            let named = command.contains(&state) || places.into_iter().flatten().any(|place| place.contains(&state));
            let grouped = owner.is_some_and(|owner| text("cgroup").is_ok_and(|groups| groups.contains(owner)));
            (named || grouped).then_some(Process { pid, command })
        })
        .collect()
}

fn mounts(state: &Path) -> BTreeSet<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(state) && point != state).collect()
}

/// Control groups of the owner, but not the one in which all of them lie.
fn cgroups(owner: &str) -> BTreeSet<PathBuf> {
    fn descend(directory: &Path, owner: &str, within: bool, depth: usize, found: &mut BTreeSet<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let named = entry.file_name().to_string_lossy().contains(owner);
            if within {
                found.insert(entry.path());
            }
            if depth > 0 {
                descend(&entry.path(), owner, within || named, depth - 1, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    descend(Path::new("/sys/fs/cgroup"), owner, false, 8, &mut found);
    found
}

/// What the process engine keeps of apps.
fn directories(state: &Path) -> BTreeSet<PathBuf> {
    fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
    }
    let process = state.join("process");
    let mut found: BTreeSet<_> = entries(&process.join("instances")).collect();
    for kind in ["slugs", "deps", "volumes"] {
        found.extend(entries(&process.join(kind)).flat_map(|app| entries(&app).collect::<Vec<_>>()));
    }
    found
}

fn docker_list(words: &[&str]) -> BTreeSet<String> {
    let output = Command::new("docker").args(words).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn docker_remove(words: &[&str], names: &BTreeSet<String>) {
    if !names.is_empty() {
        // What is gone already is a complaint and nothing more.
        drop(Command::new("docker").args(words).args(names).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

//! A cgroup around BuildKit's steps. BuildKit takes no limits of its own, but it puts its steps below a cgroup of the
//! caller's choice, and that one has limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_engine::BuildRequest;

use crate::client::Client;
use crate::socket::Socket;

/// Where the kernel shows cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The first version of the interface whose BuildKit heeds the parent.
const HEEDED_SINCE: usize = 42;

/// How long the last process of a step may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup of ours with limits. Removed by [`Cage::remove`], or as far as possible when it is dropped.
pub(super) struct Cage {
    name: String,
    directories: Vec<PathBuf>,
}

impl Cage {
    /// Makes one for a build; the reason, as a person should read it, where that is not possible.
    pub(super) fn new(client: &Client, request: &BuildRequest) -> Result<Self, String> {
        let facts = &client.facts;
        if !facts.api_at_least(HEEDED_SINCE) {
            return Err(format!("BuildKit in Docker {} takes no limits", facts.version));
        }
        if facts.cgroup_driver != "cgroupfs" {
            return Err(format!("the engine's cgroups belong to {}", facts.cgroup_driver));
        }
        if !matches!(client.socket, Socket::Unix(_)) || facts.rootless || !rustix::process::geteuid().is_root() {
            return Err("making a cgroup for it needs root on the engine's machine".to_owned());
        }
        let name = format!("coracle-{}-build-{}", client.owner, request.app);
        let cage = Self { directories: directories(Path::new(ROOT), facts.cgroup_version, &name), name };
        cage.make(facts.cgroup_version, request).map_err(|error| format!("no cgroup can be made for it: {error}"))?;
        Ok(cage)
    }

    /// What the engine calls it.
    pub(super) fn parent(&self) -> String {
        format!("/{}", self.name)
    }

    /// Whether the kernel killed something in it for want of memory. `killed` is whether the step was killed.
    pub(super) fn ran_out_of_memory(&self, killed: bool) -> bool {
        self.directories.iter().any(|directory| {
            ["memory.events", "memory.oom_control"].iter().any(|file| kills(&directory.join(file)))
                // The first version counts kills only where they happen, in the steps' own cgroups, which are gone by now;
                // but a limit that was hit from below leaves its mark above.
                || (killed && read_number(&directory.join("memory.failcnt")).is_some_and(|count| count > 0))
        })
    }

    /// Removes it once nothing runs in it any more.
    pub(super) async fn remove(self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.try_remove() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn make(&self, version: u8, request: &BuildRequest) -> io::Result<()> {
        let limits = &request.limits;
        let (memory, quota) = (limits.memory.get().to_string(), u64::from(limits.cpus.as_milli()) * 100);
        for directory in &self.directories {
            match fs::create_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        if version == 2 {
            let directory = &self.directories[0];
            fs::write(directory.join("memory.max"), &memory)?;
            write_if_there(&directory.join("memory.swap.max"), "0")?;
            fs::write(directory.join("cpu.max"), format!("{quota} 100000"))?;
        } else {
            let [memory_directory, cpu_directory] = &self.directories[..] else { return Ok(()) };
            fs::write(memory_directory.join("memory.limit_in_bytes"), &memory)?;
            write_if_there(&memory_directory.join("memory.memsw.limit_in_bytes"), &memory)?;
            fs::write(cpu_directory.join("cpu.cfs_period_us"), "100000")?;
            fs::write(cpu_directory.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(())
    }

    fn try_remove(&self) -> bool {
        self.directories.iter().all(|directory| remove_tree(directory))
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if !self.try_remove() {
            tracing::debug!(cgroup = self.name, "left for the next build of the app");
        }
    }
}

fn directories(root: &Path, version: u8, name: &str) -> Vec<PathBuf> {
    match version {
        2 => vec![root.join(name)],
        _ => vec![root.join("memory").join(name), root.join("cpu").join(name)],
    }
}

fn remove_tree(directory: &Path) -> bool {
    for child in fs::read_dir(directory).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        result => result,
    }
}

/// The `oom_kill 3` of a cgroup's event file.
fn kills(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

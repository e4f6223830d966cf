//! Limits for BuildKit's steps. Docker's BuildKit takes none (`builder/builder-next/builder.go` passes on neither memory
//! nor a cgroup parent), but each of its steps runs in a cgroup of its own, and root may limit that from outside. So a
//! thread looks for the steps of our build, limits each as soon as it appears, and watches it for kills.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use coracle_engine::BuildLimits;

use crate::client::Client;
use crate::socket::Socket;

/// Where the kernel shows cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// How often steps are looked for, and looked at. A step gets this far without its limits.
const PERIOD: Duration = Duration::from_millis(25);

/// What has been seen, the worst last.
const NOTHING: u8 = 0;
const LIMITED: u8 = 1;
const KILL: u8 = 2;

/// Limits the steps of one build until it is dropped.
pub(super) struct Warden {
    stop: Arc<AtomicBool>,
    worst: Arc<AtomicU8>,
    kills_before: u64,
}

impl Warden {
    /// Begins. The reason, as a person should read it, where steps cannot be limited.
    pub(super) fn begin(client: &Client, dockerfile: &str, limits: BuildLimits) -> Result<Self, String> {
        if !matches!(client.socket, Socket::Unix(_)) || client.facts.rootless || !rustix::process::geteuid().is_root() {
            return Err("BuildKit's steps can only be limited by root on the engine's machine".to_owned());
        }
        if !matches!(client.facts.cgroup_version, 1 | 2) {
            return Err("the engine does not say where its cgroups are".to_owned());
        }
        let (stop, worst) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU8::new(NOTHING)));
        let mut watch = Watch {
            script: squeeze(dockerfile),
            limits,
            began: SystemTime::now(),
            own_pids: fs::read_link("/proc/self/ns/pid").map_err(|error| error.to_string())?,
            steps: Vec::new(),
        };
        let (stopped, seen) = (stop.clone(), worst.clone());
        // A thread, since reading /proc blocks; it ends with the warden.
        let thread = std::thread::Builder::new().name("build-warden".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(watch.look(), Ordering::Relaxed);
                std::thread::sleep(PERIOD);
            }
        });
        thread.map_err(|error| error.to_string())?;
        Ok(Self { stop, worst, kills_before: kills_on_this_machine() })
    }

    /// Whether the kernel killed something in a step for want of memory. A step may be gone with its cgroup before the
    /// next look; but if it was `killed`, had a limit of ours, and the kernel has killed for want of memory meanwhile, that
    /// was it.
    pub(super) fn ran_out_of_memory(&self, killed: bool) -> bool {
        let worst = self.worst.load(Ordering::Relaxed);
        worst == KILL || (killed && worst == LIMITED && kills_on_this_machine() > self.kills_before)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // The thread sees it within a period.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Watch {
    script: String,
    limits: BuildLimits,
    began: SystemTime,
    own_pids: PathBuf,
    steps: Vec<Step>,
}

/// A step's cgroup, once for each controller that matters.
struct Step {
    memory: PathBuf,
    cpu: PathBuf,
}

impl Watch {
    fn look(&mut self) -> u8 {
        self.steps.retain(|step| step.memory.exists());
        for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(step) = self.step_of(&pid.path()) else { continue };
            if self.steps.iter().all(|known| known.memory != step.memory) {
                if let Err(error) = step.limit(&self.limits) {
                    tracing::warn!(cgroup = %step.memory.display(), %error, "cannot limit a build step");
                }
                self.steps.push(step);
            }
        }
        self.steps.iter().map(Step::worst).max().unwrap_or(NOTHING)
    }

    /// The step whose first process this is: it is the first in its namespace, began after the build, and does what the
    /// Dockerfile says. A container of the engine's is no step: its cgroup is named by 64 hexadecimal digits.
    fn step_of(&self, process: &Path) -> Option<Step> {
        process.file_name()?.to_str()?.parse::<u32>().ok()?;
        if process.metadata().ok()?.modified().ok()? < self.began || fs::read_link(process.join("ns/pid")).ok()? == self.own_pids
        {
            return None;
        }
        let status = fs::read_to_string(process.join("status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        if ids.split_whitespace().last() != Some("1") {
            return None;
        }
        let command = fs::read(process.join("cmdline")).ok()?;
        let last = command.split(|byte| *byte == 0).rfind(|argument| !argument.is_empty())?;
        let last = squeeze(&String::from_utf8_lossy(last));
        if last.is_empty() || !self.script.contains(&last) {
            return None;
        }
        Step::of(&fs::read_to_string(process.join("cgroup")).ok()?)
    }
}

impl Step {
    /// From `/proc/<pid>/cgroup` (cgroups(7)): `4:memory:/docker/buildkit/x`, or `0::/…` where there is one hierarchy.
    fn of(cgroups: &str) -> Option<Self> {
        let path = |controller: &str| {
            cgroups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                let mounted = if controllers.is_empty() { String::new() } else { controllers.to_owned() };
                controllers.split(',').any(|name| name == controller).then(|| (mounted, path.trim_start_matches('/').to_owned()))
            })
        };
        let find = |controller: &str| path(controller).or_else(|| path(""));
        let ((memory_mount, memory), (cpu_mount, cpu)) = (find("memory")?, find("cpu")?);
        let name = memory.rsplit('/').next()?.trim_end_matches(".scope").rsplit('-').next()?;
        let is_container = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if memory.is_empty() || cpu.is_empty() || is_container {
            return None;
        }
        let root = Path::new(ROOT);
        Some(Self { memory: root.join(memory_mount).join(memory), cpu: root.join(cpu_mount).join(cpu) })
    }

    fn limit(&self, limits: &BuildLimits) -> io::Result<()> {
        let (memory, quota) = (limits.memory.get().to_string(), u64::from(limits.cpus.as_milli()) * 100);
        if self.memory.join("memory.max").exists() {
            fs::write(self.memory.join("memory.max"), &memory)?;
            write_if_there(&self.memory.join("memory.swap.max"), "0")?;
            return write_if_there(&self.cpu.join("cpu.max"), &format!("{quota} 100000"));
        }
        fs::write(self.memory.join("memory.limit_in_bytes"), &memory)?;
        write_if_there(&self.memory.join("memory.memsw.limit_in_bytes"), &memory)?;
        fs::write(self.cpu.join("cpu.cfs_period_us"), "100000")?;
        fs::write(self.cpu.join("cpu.cfs_quota_us"), quota.to_string())
    }

    fn worst(&self) -> u8 {
        let killed = ["memory.events", "memory.oom_control"].iter().any(|file| count(&self.memory.join(file), "oom_kill") > 0);
        if killed { KILL } else { LIMITED }
    }
}

/// The figure behind a name in a file of names and figures.
fn count(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let figure = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    figure.and_then(|figure| figure.trim().parse().ok()).unwrap_or(0)
}

/// How often this machine's kernel has killed for want of memory.
pub(super) fn kills_on_this_machine() -> u64 {
    count(Path::new("/proc/vmstat"), "oom_kill")
}

fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        result => result,
    }
}

/// A script without what a Dockerfile may add between its words: continued lines, comments, runs of spaces.
fn squeeze(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let lines = lines.map(|line| line.trim_end().trim_end_matches(['\\', '`']));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scripts_are_recognised_across_continued_lines() {
        let dockerfile = "FROM a\nRUN --mount=type=cache,target=/c one && \\\n    # why\n    two  three\n";
        assert!(squeeze(dockerfile).contains(&squeeze("one &&     two  three")));
    }

    #[test]
    fn steps_are_found_in_both_kinds_of_hierarchy() {
        let old = Step::of(
            "9:name=systemd:/docker/buildkit/x1\n4:memory:/docker/buildkit/x1\n1:cpu,cpuacct:/docker/buildkit/x1\n0::/\n",
        );
        let old = old.unwrap();
        assert_eq!(old.memory, Path::new("/sys/fs/cgroup/memory/docker/buildkit/x1"));
        assert_eq!(old.cpu, Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/buildkit/x1"));
        let new = Step::of("0::/system.slice/docker-x1.scope\n").unwrap();
        assert_eq!(new.memory, Path::new("/sys/fs/cgroup/system.slice/docker-x1.scope"));
    }

    #[test]
    fn containers_and_the_root_are_no_steps() {
        let id = "0123456789abcdef".repeat(4);
        for line in [format!("0::/docker/{id}"), format!("0::/system.slice/docker-{id}.scope"), "0::/".to_owned()] {
            assert!(Step::of(&line).is_none(), "{line}");
        }
    }
}

//! An instance as its directory and the kernel tell of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use coracle_engine::{Exit, Health, Instance, InstanceState, Stats};
use coracle_jail::process::{Stat, boot_id};
use coracle_model::InstanceId;
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

use crate::files::read_json;
use crate::task::ShimRecord;

/// How an instance stands.
pub(crate) enum Standing {
    /// There is none.
    Absent,
    /// Its directory is there, and a shim may be at work in it.
    Starting,
    /// Its directory is there, and nobody is at work in it: a start that was cut off.
    Abandoned,
    /// Its shim runs.
    Running(ShimRecord, Shim),
    /// Its program has ended.
    Exited(Exit),
}

/// A running shim.
pub(crate) struct Shim(OwnedFd);

impl Standing {
    /// Looks at an instance directory.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        if !directory.is_dir() {
            return Ok(Self::Absent);
        }
        // Files are written whole, so a damaged one was damaged by the disk: nobody knows how the instance ended.
        let exit = match read_json(&directory.join("exit.json")) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(Exit::default()),
            exit => exit?,
        };
        if let Some(exit) = exit {
            return Ok(Self::Exited(exit));
        }
        let record = match read_json::<ShimRecord>(&directory.join("pid.json")) {
            // One damaged record must not hide every other instance: whatever runs on is found by its marks when it is replaced.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Self::Exited(Exit::default())),
            record => record?,
        };
        let Some(record) = record else {
            return Ok(if is_locked(directory) { Self::Starting } else { Self::Abandoned });
        };
        if let Some(shim) = Shim::find(&record) {
            return Ok(Self::Running(record, shim));
        }
        // It may have ended between the first look and now.
        Ok(Self::Exited(read_json(&directory.join("exit.json"))?.unwrap_or_default()))
    }

    /// As the seam shows it.
    pub(crate) fn into_instance(self, id: InstanceId) -> Option<Instance> {
        let state = match self {
            Self::Absent | Self::Starting | Self::Abandoned => return None,
            Self::Exited(exit) => InstanceState::Exited(exit),
            Self::Running(record, _) => InstanceState::Running {
                address: record.port.map(|port| (std::net::Ipv4Addr::LOCALHOST, port).into()),
                health: Health::Unchecked,
                since: Timestamp::from_millisecond(record.since_ms).unwrap_or_default(),
            },
        };
        Some(Instance { id, state })
    }
}

/// Whether a shim has claimed the instance.
fn is_locked(directory: &Path) -> bool {
    let Ok(lock) = std::fs::File::open(directory.join("lock")) else { return false };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

impl Shim {
    /// The shim of that record, if it still runs. Its pid may meanwhile be somebody else's, so its start is compared too,
    /// after a handle is held that cannot come to mean another process.
    pub(crate) fn find(record: &ShimRecord) -> Option<Self> {
        if record.boot != boot_id() {
            return None;
        }
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::empty()).ok()?;
        let stat = Stat::of(record.pid)?;
        (stat.start == record.start && !matches!(stat.state, 'Z' | 'X')).then_some(Self(pidfd))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // One that has ended is what any signal is for.
        rustix::process::pidfd_send_signal(&self.0, signal).ok();
    }

    /// Becomes readable when it ends.
    pub(crate) fn watched(self) -> io::Result<AsyncFd<OwnedFd>> {
        watched(self.0)
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> io::Result<()> {
        self.watched()?.readable().await.map(|_| ())
    }

    /// Waits for its end, but not longer than that. Answers whether it has ended.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        let Ok(same) = self.0.try_clone() else { return false };
        tokio::time::timeout(limit, Self(same).ended()).await.is_ok_and(|ended| ended.is_ok())
    }
}

/// Becomes readable when the descriptor is.
#[expect(deprecated, reason = "its replacement is unsafe for types that lie about their descriptor, which OwnedFd does not")]
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

/// The unit of times in `/proc/<pid>/stat`: USER_HZ is 100 on every architecture that this runs on.
const TICK_US: u64 = 10_000;

/// What the descendants of a process use: where there is no cgroup to ask.
pub(crate) fn stats_of_descendants(shim: i32) -> Stats {
    let mut stats = Stats { memory_bytes: 0, cpu_us: 0, pids: 0 };
    for pid in descendants(shim) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let stat = read("stat");
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        stats.memory_bytes += resident.unwrap_or(0_u64) * 1024;
        stats.cpu_us += ticks * TICK_US;
        stats.pids += 1;
    }
    stats
}

/// All that have come from a process, those that are nearest first.
pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = all_pids().filter_map(|pid| Stat::of(pid).map(|stat| (pid, stat.parent))).collect();
    let mut family = vec![of];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, up)| *up == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Kills processes that bear one of `markers` in the environment they were started with: what is left of an instance whose shim
/// was killed, where no namespace and no cgroup holds it together. Answers whether any was found.
pub(crate) fn kill_marked(markers: &[String]) -> bool {
    let own = std::process::id();
    let is_marked = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ.split(|byte| *byte == 0).any(|entry| markers.iter().any(|marker| entry == marker.as_bytes()))
        })
    };
    let marked: Vec<Pid> =
        all_pids().filter(|pid| u32::try_from(*pid) != Ok(own)).filter(is_marked).filter_map(Pid::from_raw).collect();
    for pid in &marked {
        rustix::process::kill_process(*pid, Signal::KILL).ok();
    }
    !marked.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_instance_whose_files_are_damaged_has_ended_unseen() {
        for (file, text) in [("pid.json", ""), ("pid.json", "{\"pid\":"), ("exit.json", ""), ("exit.json", "[]x")] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(file), text).unwrap();
            let standing = Standing::of(directory.path()).unwrap();
            assert!(matches!(standing, Standing::Exited(exit) if exit == Exit::default()), "{file}: {text:?}");
        }
    }
}

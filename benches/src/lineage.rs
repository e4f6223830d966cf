//! A process and all that descend from it: what they have used together, those included that have ended.
//!
//! A parent that waits for a child takes over what the child has used (`cutime` and `cstime` of proc(5)), so the sum over all
//! that live is the sum over all that ever were. What is lost is what a process used whose parent ignores the ends of its
//! children; and what the kernel does later on threads of its own is on nobody's account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::Pid;

/// A process and its descendants, as they are whenever they are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Lineage(Pid);

/// What `/proc/PID/stat` says.
struct Stat {
    parent: i32,
    /// utime, stime, cutime and cstime in hundredths of a second, which is what user space sees on every Linux we run on.
    ticks: u64,
}

impl Lineage {
    /// Of this process.
    pub fn of(ancestor: Pid) -> Self {
        Self(ancestor)
    }

    /// All of them, the ancestor first.
    pub fn members(self) -> Vec<Pid> {
        self.walk().into_iter().map(|(pid, _)| pid).collect()
    }

    /// Processor time that all of them and those they have buried have used so far.
    pub fn processor(self) -> Duration {
        Duration::from_millis(self.walk().iter().map(|(_, stat)| stat.ticks * 10).sum())
    }

    fn walk(self) -> Vec<(Pid, Stat)> {
        let mut all: BTreeMap<i32, Stat> = numbers().filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let mut children: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
        for (pid, stat) in &all {
            children.entry(stat.parent).or_default().insert(*pid);
        }
        let (mut found, mut next) = (Vec::new(), vec![self.0.as_raw_nonzero().get()]);
        while let Some(number) = next.pop() {
            next.extend(children.remove(&number).unwrap_or_default());
            found.extend(Pid::from_raw(number).zip(all.remove(&number)));
        }
        found
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything. Behind it: the state, the parent, and as 12th to 15th the times.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>()).sum::<Result<_, _>>().ok()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Memory that a process shares with nobody, in bytes; nothing if it has ended.
pub fn private(pid: Pid) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())).unwrap_or_default();
    let kibibytes = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kibibytes = kibibytes.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.sum::<u64>() * 1024
}

#[test]
fn a_child_that_has_ended_is_still_counted() {
    let own = Lineage::of(rustix::process::getpid());
    let before = own.processor();
    let burning = "import time\nwhile time.process_time() < 0.2: pass";
    let ended = std::process::Command::new("/usr/bin/python3").args(["-c", burning]).status().unwrap();
    assert!(ended.success());
    assert!(own.processor() - before >= Duration::from_millis(150));
    assert!(own.members().contains(&rustix::process::getpid()));
    assert!(private(rustix::process::getpid()) > 4096);
}

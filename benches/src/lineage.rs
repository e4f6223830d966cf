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

/// A process in it and what it has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The process.
    pub pid: Pid,
    /// Its parent; the ancestor's may be anybody.
    pub parent: i32,
    /// Its own processor time.
    pub own: Duration,
    /// That of the children it has waited for, and of theirs.
    pub buried: Duration,
}

impl Lineage {
    /// Of this process.
    pub fn of(ancestor: Pid) -> Self {
        Self(ancestor)
    }

    /// Processor time that all of them and those they have buried have used so far.
    pub fn processor(self) -> Duration {
        self.members().iter().map(|member| member.own + member.buried).sum()
    }

    /// All of them, the ancestor first.
    pub fn members(self) -> Vec<Member> {
        let mut all: BTreeMap<i32, Member> = numbers().filter_map(|pid| Some((pid, member(pid)?))).collect();
        let mut children: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
        for (pid, member) in &all {
            children.entry(member.parent).or_default().insert(*pid);
        }
        let (mut found, mut next) = (Vec::new(), vec![self.0.as_raw_nonzero().get()]);
        while let Some(number) = next.pop() {
            next.extend(children.remove(&number).unwrap_or_default());
            found.extend(all.remove(&number));
        }
        found
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn member(pid: i32) -> Option<Member> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything. Behind it: the state, the parent, and as 12th to 15th the times.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // In hundredths of a second, which is what user space sees on every Linux we run on.
    let sum = |ticks: &[&str]| {
        Some(Duration::from_millis(10 * ticks.iter().map(|field| field.parse::<u64>()).sum::<Result<u64, _>>().ok()?))
    };
    let (own, buried) = (sum(fields.get(11..13)?)?, sum(fields.get(13..15)?)?);
    Some(Member { pid: Pid::from_raw(pid)?, parent: fields.get(1)?.parse().ok()?, own, buried })
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
    assert_eq!(own.members()[0].pid, rustix::process::getpid());
    assert!(private(rustix::process::getpid()) > 4096);
}

//! Version 1: one hierarchy per controller, so a group is one directory in each.

use std::path::{Path, PathBuf};

use super::meter::{Counter, Meter, Peak};
use super::mounts::{Mount, OwnGroup};
use super::{GroupLimits, GroupStats, keyed, kill_each, may_create_in, number, with_those_below, write, write_if_there};
use crate::{JailError, Step};

/// The length of the period that processor time is given out in, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The base directories in the hierarchies that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// A group: its directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl V1 {
    pub(super) fn find(mounts: &[Mount], own: &[OwnGroup]) -> Result<Self, String> {
        let base = |controller: &str| {
            let has = |names: &[String]| names.iter().any(|name| name == controller);
            let mount = mounts.iter().find(|mount| mount.v1_controllers.as_deref().is_some_and(has))?;
            let own = own.iter().find(|group| has(&group.controllers)).map(|group| mount.place_of(&group.path));
            [Some(mount.point.clone()), own].into_iter().flatten().find(|place| may_create_in(place))
        };
        let found = Self { memory: base("memory"), cpu: base("cpu"), cpuacct: base("cpuacct"), pids: base("pids") };
        if found.controllers().is_empty() {
            let mounted = mounts.iter().any(|mount| mount.v1_controllers.is_some());
            Err(if mounted { "cgroup v1 may not be written to" } else { "cgroup v1 is not mounted" }.to_owned())
        } else {
            Ok(found)
        }
    }

    pub(super) fn controllers(&self) -> Vec<&'static str> {
        [("memory", &self.memory), ("cpu", &self.cpu), ("pids", &self.pids)]
            .into_iter()
            .filter_map(|(name, base)| base.as_ref().map(|_| name))
            .collect()
    }

    fn at(&self, name: &str) -> Group {
        let join = |base: &Option<PathBuf>| base.as_ref().map(|base| base.join(name));
        Group { memory: join(&self.memory), cpu: join(&self.cpu), cpuacct: join(&self.cpuacct), pids: join(&self.pids) }
    }

    pub(super) fn group(&self, name: &str) -> Option<Group> {
        Some(self.at(name)).filter(|group| group.places().iter().any(|place| place.is_dir()))
    }

    pub(super) fn create(&self, name: &str, limits: &GroupLimits) -> Result<Group, JailError> {
        let group = self.at(name);
        for place in group.places() {
            std::fs::create_dir_all(&place).step(|| format!("create {}", place.display()))?;
        }
        group.limit(limits)?;
        Ok(group)
    }
}

impl Group {
    /// Its directories, each once: controllers may share a hierarchy.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> =
            [&self.memory, &self.cpu, &self.cpuacct, &self.pids].into_iter().flatten().cloned().collect();
        places.sort();
        places.dedup();
        places
    }

    pub(super) fn limit(&self, limits: &GroupLimits) -> Result<(), JailError> {
        if let (Some(place), Some(bytes)) = (&self.memory, limits.memory) {
            limit_memory(place, bytes)?;
        }
        if let (Some(place), Some(milli)) = (&self.cpu, limits.cpu_milli) {
            write(&place.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            write(&place.join("cpu.cfs_quota_us"), &(u64::from(milli) * PERIOD_US / 1000).max(1000).to_string())?;
        }
        if let (Some(place), Some(pids)) = (&self.pids, limits.pids) {
            write(&place.join("pids.max"), &pids.to_string())?;
        }
        Ok(())
    }

    pub(super) fn meter(&self) -> Meter {
        let memory = |file: &str| self.memory.as_ref().map(|place| place.join(file));
        Meter::new(
            Counter::open(self.cpuacct.as_ref().map(|place| place.join("cpuacct.usage")), None, 1000),
            Peak::open(memory("memory.max_usage_in_bytes"), None),
            Counter::open(memory("memory.oom_control"), Some("oom_kill"), 1),
        )
    }

    pub(super) fn stats(&self) -> GroupStats {
        let memory = self.memory.as_deref();
        let used = memory.and_then(|place| number(&place.join("memory.usage_in_bytes"))).unwrap_or(0);
        let droppable = memory.and_then(|place| keyed(&place.join("memory.stat"), "total_inactive_file")).unwrap_or(0);
        let nanoseconds = self.cpuacct.as_deref().and_then(|place| number(&place.join("cpuacct.usage"))).unwrap_or(0);
        let pids = self.pids.as_deref().and_then(|place| number(&place.join("pids.current"))).unwrap_or(0);
        GroupStats {
            memory_bytes: used.saturating_sub(droppable),
            cpu_us: nanoseconds / 1000,
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
            oom_kills: memory.and_then(|place| keyed(&place.join("memory.oom_control"), "oom_kill")).unwrap_or(0),
        }
    }

    /// One round of killing. New processes are forbidden first, so that killing overtakes a fork bomb.
    pub(super) fn kill(&self) {
        if let Some(place) = &self.pids {
            drop(std::fs::write(place.join("pids.max"), "0"));
        }
        for place in self.places().iter().flat_map(|place| with_those_below(place)) {
            let text = std::fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
            let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            kill_each(&pids);
        }
    }
}

/// Memory alone first, then memory and swap together: the second may never be below the first.
fn limit_memory(place: &Path, bytes: u64) -> Result<(), JailError> {
    let (alone, with_swap) = (place.join("memory.limit_in_bytes"), place.join("memory.memsw.limit_in_bytes"));
    let raised = number(&with_swap).is_some_and(|current| current < bytes);
    if raised {
        write(&with_swap, &bytes.to_string())?;
    }
    write(&alone, &bytes.to_string())?;
    write_if_there(&with_swap, &bytes.to_string())
}

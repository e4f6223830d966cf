//! Version 2: one hierarchy. Controllers must be enabled for the children of each group on the way down, and a group other
//! than the root whose children have controllers may not hold processes itself (cgroups(7), "no internal processes").

use std::path::{Path, PathBuf};

use super::meter::{Counter, Meter, Peak};
use super::mounts::{Mount, OwnGroup};
use super::{GroupLimits, GroupStats, keyed, kill_each, may_create_in, number, with_those_below, write, write_if_there};
use crate::{JailError, Step};

/// The length of the period that processor time is given out in, in microseconds.
const PERIOD_US: u64 = 100_000;

/// Where the processes of the base go when its children get controllers.
const LEAF: &str = "coracle-self";

/// The base group and the controllers it can pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V2 {
    base: PathBuf,
    controllers: Vec<&'static str>,
}

/// A group: its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    place: PathBuf,
}

impl V2 {
    pub(super) fn find(mounts: &[Mount], own: &[OwnGroup]) -> Result<Self, String> {
        let mount = mounts.iter().find(|mount| mount.v1_controllers.is_none()).ok_or("cgroup v2 is not mounted")?;
        let own = own.iter().find(|group| group.controllers.is_empty()).map(|group| mount.place_of(&group.path));
        let bases: Vec<PathBuf> =
            [Some(mount.point.clone()), own].into_iter().flatten().filter(|place| may_create_in(place)).collect();
        if bases.is_empty() {
            return Err("no cgroup v2 group is delegated to this user".to_owned());
        }
        bases
            .into_iter()
            .map(Self::at)
            .find(|v2| v2.controllers.contains(&"memory") && v2.controllers.contains(&"pids"))
            .ok_or_else(|| "cgroup v2 has no memory and pids controllers here".to_owned())
    }

    /// With the controllers that the group at `base` has.
    fn at(base: PathBuf) -> Self {
        let text = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let controllers = ["memory", "cpu", "pids"].into_iter().filter(|name| text.split_whitespace().any(|word| word == *name));
        Self { controllers: controllers.collect(), base }
    }

    pub(super) fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }

    pub(super) fn group(&self, name: &str) -> Option<Group> {
        Some(Group { place: self.base.join(name) }).filter(|group| group.place.is_dir())
    }

    pub(super) fn create(&self, name: &str, limits: &GroupLimits) -> Result<Group, JailError> {
        let mut place = self.base.clone();
        for piece in name.split('/') {
            self.pass_on(&place)?;
            place.push(piece);
            match std::fs::create_dir(&place) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).step(|| format!("create {}", place.display()));
                }
                _ => {}
            }
        }
        let group = Group { place };
        group.limit(limits)?;
        Ok(group)
    }

    /// Enables the controllers for the children of the group at `place`. If processes are in the way in the base itself,
    /// they move into a leaf of it first; a base is ours to arrange, other groups are not.
    fn pass_on(&self, place: &Path) -> Result<(), JailError> {
        let control = place.join("cgroup.subtree_control");
        let enabled = std::fs::read_to_string(&control).unwrap_or_default();
        let is_missing = |name: &&&str| !enabled.split_whitespace().any(|word| word == **name);
        let missing: Vec<String> = self.controllers.iter().filter(is_missing).map(|name| format!("+{name}")).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let busy = rustix::io::Errno::BUSY.raw_os_error();
        match write(&control, &missing.join(" ")) {
            Err(error) if error.source.raw_os_error() == Some(busy) && place == self.base => {
                self.make_room()?;
                write(&control, &missing.join(" "))
            }
            outcome => outcome,
        }
    }

    /// Moves the processes of the base into a leaf.
    fn make_room(&self) -> Result<(), JailError> {
        let leaf = self.base.join(LEAF);
        std::fs::create_dir_all(&leaf).step(|| format!("create {}", leaf.display()))?;
        let pids = std::fs::read_to_string(self.base.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            // A process that ended meanwhile is not in the way; one that stays makes the next step fail, which is reported.
            drop(std::fs::write(leaf.join("cgroup.procs"), pid));
        }
        Ok(())
    }
}

impl Group {
    pub(super) fn places(&self) -> Vec<PathBuf> {
        vec![self.place.clone()]
    }

    pub(super) fn limit(&self, limits: &GroupLimits) -> Result<(), JailError> {
        if let Some(bytes) = limits.memory {
            write(&self.place.join("memory.max"), &bytes.to_string())?;
            write_if_there(&self.place.join("memory.swap.max"), "0")?;
            // Half an instance is worse than none: the kernel kills the group as a whole.
            write_if_there(&self.place.join("memory.oom.group"), "1")?;
        }
        if let Some(milli) = limits.cpu_milli {
            let quota = (u64::from(milli) * PERIOD_US / 1000).max(1000);
            write_if_there(&self.place.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        }
        if let Some(pids) = limits.pids {
            write(&self.place.join("pids.max"), &pids.to_string())?;
        }
        Ok(())
    }

    pub(super) fn meter(&self) -> Meter {
        let file = |name: &str| Some(self.place.join(name));
        Meter::new(
            Counter::open(file("cpu.stat"), Some("usage_usec"), 1),
            Peak::open(file("memory.peak"), file("memory.current")),
            Counter::open(file("memory.events"), Some("oom_kill"), 1),
        )
    }

    pub(super) fn stats(&self) -> GroupStats {
        let file = |name: &str| self.place.join(name);
        let used = number(&file("memory.current")).unwrap_or(0);
        let droppable = keyed(&file("memory.stat"), "inactive_file").unwrap_or(0);
        GroupStats {
            memory_bytes: used.saturating_sub(droppable),
            cpu_us: keyed(&file("cpu.stat"), "usage_usec").unwrap_or(0),
            pids: number(&file("pids.current")).and_then(|pids| u32::try_from(pids).ok()).unwrap_or(0),
            oom_kills: keyed(&file("memory.events"), "oom_kill").unwrap_or(0),
        }
    }

    /// One round of killing: at once where the kernel can (5.14 and later), else one by one.
    pub(super) fn kill(&self) {
        let at_once = self.place.join("cgroup.kill");
        if !at_once.exists() || std::fs::write(&at_once, "1").is_err() {
            for place in with_those_below(&self.place) {
                let pids = std::fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
                kill_each(&pids.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::super::{Group as AnyGroup, Hierarchy};
    use super::*;

    /// A directory that looks like a cgroup2 mount, with this process in `/service`.
    fn hierarchy(controllers: &str) -> (tempfile::TempDir, Hierarchy) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        let mountinfo = format!("30 23 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw\n", root.path().display());
        let found = Hierarchy::detect_in(&mountinfo, "0::/service\n");
        (root, found)
    }

    fn read(root: &tempfile::TempDir, path: &str) -> String {
        std::fs::read_to_string(root.path().join(path)).unwrap()
    }

    #[test]
    fn controllers_are_passed_on_at_every_level_above_the_group() {
        let (root, hierarchy) = hierarchy("cpuset cpu io memory pids");
        hierarchy.create("coracle/aa/shop.v1.web.1", &GroupLimits::default()).unwrap();
        for above in ["", "coracle", "coracle/aa"] {
            assert_eq!(read(&root, format!("{above}/cgroup.subtree_control").trim_start_matches('/')), "+memory +cpu +pids");
        }
        assert!(!root.path().join("coracle/aa/shop.v1.web.1/cgroup.subtree_control").exists());
    }

    #[test]
    fn what_is_passed_on_already_is_not_written_again() {
        let (root, hierarchy) = hierarchy("cpu memory pids");
        std::fs::write(root.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        hierarchy.create("a", &GroupLimits::default()).unwrap();
        assert_eq!(read(&root, "cgroup.subtree_control"), "cpu memory pids\n");
    }

    #[test]
    fn limits_are_written_in_the_units_of_the_kernel() {
        let (root, hierarchy) = hierarchy("cpu memory pids");
        std::fs::create_dir_all(root.path().join("g")).unwrap();
        for file in ["cpu.max", "memory.swap.max", "memory.oom.group"] {
            std::fs::write(root.path().join("g").join(file), "").unwrap();
        }
        hierarchy.create("g", &GroupLimits { memory: Some(1 << 20), cpu_milli: Some(1500), pids: Some(64) }).unwrap();
        assert_eq!(read(&root, "g/memory.max"), "1048576");
        assert_eq!(read(&root, "g/memory.swap.max"), "0");
        assert_eq!(read(&root, "g/memory.oom.group"), "1");
        assert_eq!(read(&root, "g/cpu.max"), "150000 100000");
        assert_eq!(read(&root, "g/pids.max"), "64");
    }

    #[test]
    fn use_is_read_without_pages_that_can_be_dropped() {
        let (root, hierarchy) = hierarchy("cpu memory pids");
        let group = hierarchy.create("g", &GroupLimits::default()).unwrap();
        for (file, text) in [
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 3000\ninactive_file 1500\nfile 2000\n"),
            ("cpu.stat", "usage_usec 77\nuser_usec 70\n"),
            ("pids.current", "3\n"),
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n"),
        ] {
            std::fs::write(root.path().join("g").join(file), text).unwrap();
        }
        assert_eq!(group.stats(), GroupStats { memory_bytes: 3500, cpu_us: 77, pids: 3, oom_kills: 1 });
    }

    #[test]
    fn a_meter_reads_what_the_kernel_keeps_and_the_most_it_saw_where_the_kernel_keeps_none() {
        let (root, hierarchy) = hierarchy("cpu memory pids");
        let put = |file: &str, text: &str| {
            std::fs::create_dir_all(root.path().join("g")).unwrap();
            std::fs::write(root.path().join("g").join(file), text).unwrap();
        };
        put("cpu.stat", "usage_usec 100\nuser_usec 70\n");
        put("memory.events", "low 0\noom 1\noom_kill 1\n");
        put("memory.current", "3000\n");
        let group = hierarchy.create("g", &GroupLimits::default()).unwrap();
        // Before 5.19 there is no memory.peak.
        let mut meter = group.meter();
        assert!(meter.start());
        assert_eq!((meter.memory_peak(), meter.cpu_us(), meter.oom_kills()), (3000, 0, 0));
        put("memory.current", "9000\n");
        assert_eq!(meter.memory_peak(), 9000);
        put("memory.current", "10\n");
        put("cpu.stat", "usage_usec 350\nuser_usec 70\n");
        put("memory.events", "low 0\noom 2\noom_kill 3\n");
        assert_eq!((meter.memory_peak(), meter.cpu_us(), meter.oom_kills()), (9000, 250, 2));
        assert!(meter.start());
        assert_eq!((meter.memory_peak(), meter.cpu_us(), meter.oom_kills()), (10, 0, 0));
        put("memory.peak", "77777\n");
        assert_eq!(group.meter().memory_peak(), 77_777);
    }

    #[test]
    fn a_mount_without_controllers_is_no_use() {
        let (_root, hierarchy) = hierarchy("");
        let Hierarchy::None { why } = hierarchy else { panic!("taken") };
        assert!(why.contains("no memory and pids"), "{why}");
    }

    #[test]
    fn a_delegated_group_is_the_base_where_the_root_has_no_controllers_for_us() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("service");
        std::fs::create_dir(&service).unwrap();
        std::fs::write(service.join("cgroup.controllers"), "memory pids").unwrap();
        let mountinfo = format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
        let hierarchy = Hierarchy::detect_in(&mountinfo, "0::/service\n");
        let AnyGroup::V2(group) = hierarchy.create("g", &GroupLimits::default()).unwrap() else { panic!("not v2") };
        assert_eq!(group.place, service.join("g"));
        assert_eq!(hierarchy.controllers(), ["memory", "pids"]);
    }

    #[test]
    fn processes_make_room_in_the_base() {
        let (root, hierarchy) = hierarchy("memory pids");
        std::fs::write(root.path().join("cgroup.procs"), "17\n").unwrap();
        let Hierarchy::V2(v2) = hierarchy else { panic!("not v2") };
        v2.make_room().unwrap();
        assert_eq!(read(&root, "coracle-self/cgroup.procs"), "17");
    }

    #[test]
    fn killing_uses_the_switch_that_kills_the_whole_group() {
        let (root, hierarchy) = hierarchy("memory pids");
        let group = hierarchy.create("g", &GroupLimits::default()).unwrap();
        std::fs::write(root.path().join("g/cgroup.kill"), "").unwrap();
        assert!(group.kill(std::time::Duration::from_secs(1)));
        assert_eq!(read(&root, "g/cgroup.kill"), "1");
    }

    #[test]
    fn names_cannot_leave_the_base() {
        let (_root, hierarchy) = hierarchy("memory pids");
        for bad in ["", "/", "../x", "a/../../x", "a//b", "."] {
            assert!(hierarchy.create(bad, &GroupLimits::default()).is_err(), "{bad}");
        }
    }
}

//! Control groups, version 2 or version 1, behind one type.
//!
//! A machine may have both mounted and only one of them usable, so what counts is which one has the controllers. Groups are
//! named by a path relative to a base that this process may write to; the base is the root of the hierarchy where it can
//! be (then groups outlive the service that made them), else the group this process was put in by whoever delegated it.
//!
//! Nothing here is remembered outside the kernel: a [`Group`] is found again by its name.

mod meter;
mod mounts;
mod v1;
mod v2;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

pub use meter::Meter;
pub use v1::V1;
pub use v2::V2;

use crate::{JailError, Step};

/// The cgroup hierarchy of this machine that limits can be set in.
#[derive(Debug, Clone)]
pub enum Hierarchy {
    /// The unified hierarchy.
    V2(V2),
    /// One hierarchy per controller.
    V1(V1),
    /// None that this process may use.
    None {
        /// Why: `cgroups are not mounted`.
        why: String,
    },
}

/// What the processes of a group may use together; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct GroupLimits {
    /// Bytes of memory; swap is not given in addition.
    pub memory: Option<u64>,
    /// Processor time, in thousandths of one core.
    pub cpu_milli: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What the processes of a group use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// Bytes of memory in use, without file pages that the kernel can drop at once.
    pub memory_bytes: u64,
    /// Processor time so far, in microseconds.
    pub cpu_us: u64,
    /// Processes and threads.
    pub pids: u32,
    /// How often the kernel killed a process because the group reached its memory limit.
    pub oom_kills: u64,
}

impl Hierarchy {
    /// Looks at this machine. Version 2 is taken where it has the controllers, else version 1.
    pub fn detect() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::detect_in(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// The same, from the text of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub fn detect_in(mountinfo: &str, own_groups: &str) -> Self {
        let mounts = mounts::parse(mountinfo);
        let own = mounts::own_groups(own_groups);
        match (V2::find(&mounts, &own), V1::find(&mounts, &own)) {
            (Ok(v2), _) => Self::V2(v2),
            (Err(_), Ok(v1)) => Self::V1(v1),
            (Err(why2), Err(why1)) => Self::None { why: format!("{why2}; {why1}") },
        }
    }

    /// The controllers that can be used, by the names that both versions share: `memory`, `cpu`, `pids`.
    pub fn controllers(&self) -> Vec<&'static str> {
        match self {
            Self::V2(v2) => v2.controllers().to_vec(),
            Self::V1(v1) => v1.controllers(),
            Self::None { .. } => Vec::new(),
        }
    }

    /// `cgroup v2`, `cgroup v1`.
    pub fn version(&self) -> &'static str {
        match self {
            Self::V2(_) => "cgroup v2",
            Self::V1(_) => "cgroup v1",
            Self::None { .. } => "no cgroup",
        }
    }

    /// Creates the group `name` (a relative path such as `coracle/1a2b3c4d/shop.v1.web.1`) and the groups above it, and
    /// sets its limits. A group that exists gets the limits. Limits of controllers that are not there are skipped: ask
    /// [`Hierarchy::controllers`] first.
    pub fn create(&self, name: &str, limits: &GroupLimits) -> Result<Group, JailError> {
        check_name(name)?;
        let create = || match self {
            Self::V2(v2) => v2.create(name, limits).map(Group::V2),
            Self::V1(v1) => v1.create(name, limits).map(Group::V1),
            Self::None { why } => Err(io::Error::other(why.clone())).step(|| format!("create cgroup {name}")),
        };
        let mut tries = 10;
        loop {
            match create() {
                // Whoever found the group above empty has removed it meanwhile.
                Err(error) if tries > 0 && is_gone(&error.source) => tries -= 1,
                created => return created,
            }
        }
    }

    /// The group `name`, if it exists.
    pub fn find(&self, name: &str) -> Option<Group> {
        check_name(name).ok()?;
        match self {
            Self::V2(v2) => v2.group(name).map(Group::V2),
            Self::V1(v1) => v1.group(name).map(Group::V1),
            Self::None { .. } => None,
        }
    }

    /// The names of the groups directly below `name`, as full names.
    pub fn children(&self, name: &str) -> Vec<String> {
        let places = match self {
            Self::V2(v2) => v2.group(name).map(|group| group.places()).unwrap_or_default(),
            Self::V1(v1) => v1.group(name).map(|group| group.places()).unwrap_or_default(),
            Self::None { .. } => Vec::new(),
        };
        let mut names: Vec<String> = places
            .iter()
            .filter_map(|place| std::fs::read_dir(place).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| format!("{name}/{}", entry.file_name().to_string_lossy()))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A group of processes with limits. Dropping the value leaves the group as it is.
#[derive(Debug, Clone)]
pub enum Group {
    /// A directory of the unified hierarchy.
    V2(v2::Group),
    /// One directory in each hierarchy.
    V1(v1::Group),
}

impl Group {
    fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::V2(group) => group.places(),
            Self::V1(group) => group.places(),
        }
    }

    /// Moves a process (all its threads) into the group.
    pub fn add(&self, pid: u32) -> Result<(), JailError> {
        for place in self.places() {
            write(&place.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Moves this process into the group, whatever its pid namespace calls it.
    pub fn join(&self) -> Result<(), JailError> {
        self.places().iter().try_for_each(|place| write(&place.join("cgroup.procs"), "0"))
    }

    /// Opens the way into the group: a process that writes `0` to each of these joins it, wherever it is by then.
    pub fn doors(&self) -> Result<Vec<OwnedFd>, JailError> {
        self.places().iter().map(|place| open_door(&place.join("cgroup.procs"))).collect()
    }

    /// The same for a process with a single thread, which in version 1 is far quicker: the kernel has nothing to hold still.
    pub fn thread_doors(&self) -> Result<Vec<OwnedFd>, JailError> {
        match self {
            Self::V2(_) => self.doors(),
            Self::V1(group) => group.places().iter().map(|place| open_door(&place.join("tasks"))).collect(),
        }
    }

    /// Sets limits; those that are `None` stay as they are.
    pub fn limit(&self, limits: &GroupLimits) -> Result<(), JailError> {
        match self {
            Self::V2(group) => group.limit(limits),
            Self::V1(group) => group.limit(limits),
        }
    }

    /// Opens what tells how much the group uses, for reading it often.
    pub fn meter(&self) -> Meter {
        match self {
            Self::V2(group) => group.meter(),
            Self::V1(group) => group.meter(),
        }
    }

    /// Lets a user arrange the group: make groups below it and spread its processes over them. Its own limits stay as they
    /// are set: whoever is delegated a group divides it and cannot make it larger (cgroups(7), "Cgroup delegation").
    pub fn delegate(&self, to: crate::User) -> Result<(), JailError> {
        const ARRANGING: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"];
        for place in self.places() {
            open_the_way(&place)?;
            let files = ARRANGING.iter().map(|name| place.join(name)).filter(|file| file.exists());
            for path in files.chain([place.clone()]) {
                std::os::unix::fs::chown(&path, Some(to.uid), Some(to.gid)).step(|| format!("delegate {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Its directories in the file system.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.places()
    }

    /// The processes in the group and those below it, as this process's pid namespace numbers them.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .places()
            .iter()
            .flat_map(|place| with_those_below(place))
            .filter_map(|place| std::fs::read_to_string(place.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// What the group uses. What cannot be read counts as nothing.
    pub fn stats(&self) -> GroupStats {
        match self {
            Self::V2(group) => group.stats(),
            Self::V1(group) => group.stats(),
        }
    }

    /// Kills every process in the group, again and again until none is left or `within` has passed. Answers whether none is.
    pub fn kill(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            match self {
                Self::V2(group) => group.kill(),
                Self::V1(group) => group.kill(),
            }
            if self.pids().is_empty() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the group if there is neither a process nor a group in it, however empty that one is: somebody may be about to
    /// join it. Else it stays.
    pub fn remove_if_unused(&self) {
        for place in self.places() {
            // Busy means that somebody needs it.
            std::fs::remove_dir(place).ok();
        }
    }

    /// Removes the group and those below it. One that is gone is no error. A group whose last process has just ended is busy for a moment, so
    /// this tries until `within` has passed.
    pub fn remove(&self, within: Duration) -> Result<(), JailError> {
        let deadline = Instant::now() + within;
        // The lowest come first.
        let mut places = self.places().into_iter().flat_map(|place| with_those_below(&place).into_iter().rev());
        places.try_for_each(|place| remove_by(&place, deadline).step(|| format!("remove {}", place.display())))
    }
}

/// Where hierarchies of either version are mounted, whether or not limits are set in them here.
pub fn mount_points() -> Vec<PathBuf> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts::parse(&mountinfo).into_iter().map(|mount| mount.point).collect()
}

/// Removes the directory of a group, in whichever hierarchy, and those of the groups below it, as far as they can be before the
/// deadline. Answers whether it is gone. Nobody is killed for it: a group with a process in it stays.
pub fn remove_directory(place: &Path, deadline: Instant) -> bool {
    with_those_below(place).iter().rev().fold(true, |_, place| remove_by(place, deadline).is_ok())
}

/// Removes one directory; one that is gone is no error. It is busy for a moment after its last process.
fn remove_by(place: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match std::fs::remove_dir(place) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Whether a directory of a hierarchy, or a file in it, is not there any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Lets others through the directories above a group: they may have been made by somebody who lets nobody in.
fn open_the_way(place: &Path) -> Result<(), JailError> {
    for above in place.ancestors().skip(1) {
        let tell = || format!("open the way to {}", place.display());
        let mode = std::fs::metadata(above).step(tell)?.permissions().mode();
        if mode & 0o001 != 0 {
            break;
        }
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o011)).step(tell)?;
    }
    Ok(())
}

/// A group's directory and those of the groups below it, each after the one that it is in.
fn with_those_below(place: &Path) -> Vec<PathBuf> {
    let mut places = vec![place.to_owned()];
    let mut next = 0;
    while let Some(place) = places.get(next) {
        let entries = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        let groups: Vec<_> =
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
        places.extend(groups);
        next += 1;
    }
    places
}

/// A name becomes a path: it must stay below the base.
fn check_name(name: &str) -> Result<(), JailError> {
    let clean = !name.is_empty()
        && name.split('/').all(|piece| !piece.is_empty() && piece != "." && piece != ".." && !piece.contains('\0'));
    if clean { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)).step(|| format!("cgroup name {name:?}")) }
}

fn open_door(path: &Path) -> Result<OwnedFd, JailError> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(|| format!("open {}", path.display()))
}

/// Writes a control file. The kernel wants a value in one write.
fn write(path: &Path, value: &str) -> Result<(), JailError> {
    std::fs::write(path, value).step(|| format!("write {value:?} to {}", path.display()))
}

/// Writes a control file that not every kernel has.
fn write_if_there(path: &Path, value: &str) -> Result<(), JailError> {
    if path.exists() { write(path, value) } else { Ok(()) }
}

/// The number in a control file that holds one.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `key` in a control file of `key number` lines.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Whether this process may create groups in `directory`.
fn may_create_in(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Kills processes one by one.
fn kill_each(pids: &[u32]) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
            // One that is gone by now is what was wanted.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

//! Groups in hierarchies that the daemon does not use: an engine which is told to put a container below a seat's group makes
//! that group in every hierarchy of the machine (`cpuset`, `blkio`, …), and removes only the container's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel gets to let go of a group.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes the empty groups of a daemon from wherever control groups are mounted, and the one they are in with its last.
/// Nobody is killed for it: a group with a process in it stays.
pub(super) fn clear(parent: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in mount_points(&mounts) {
        let place = point.join(parent);
        if !remove(&place, deadline) {
            tracing::warn!(group = %place.display(), "a cgroup stays behind");
        }
        if let Some(family) = place.parent() {
            // Another daemon may have its own in there.
            std::fs::remove_dir(family).ok();
        }
    }
}

/// Where hierarchies of either version are mounted (proc_pid_mountinfo(5)).
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let is_group = matches!(source.split(' ').next()?, "cgroup" | "cgroup2");
        mount.split(' ').nth(4).filter(|_| is_group).map(PathBuf::from)
    };
    mountinfo.lines().filter_map(point).collect()
}

/// Removes a group after those below it. Answers whether it is gone.
fn remove(place: &Path, deadline: Instant) -> bool {
    let entries = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for entry in below {
        remove(&entry.path(), deadline);
    }
    loop {
        match std::fs::remove_dir(place) {
            Ok(()) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(_) if Instant::now() >= deadline => return false,
            // A group is busy for a moment after its last process.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_and_nothing_else() {
        let mountinfo = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs cgroup rw\n\
                         31 30 0:27 / /sys/fs/cgroup/blkio rw,relatime shared:9 - cgroup cgroup rw,blkio\n\
                         32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nnonsense\n";
        let expected = ["/sys/fs/cgroup/blkio", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mount_points(mountinfo), expected);
    }
}

//! Groups in hierarchies that the daemon does not use: an engine which is told to put a container below a seat's group makes
//! that group in every hierarchy of the machine (`cpuset`, `blkio`, …), and removes only the container's own.

use std::time::{Duration, Instant};

use coracle_jail::cgroup::{mount_points, remove_directory};

/// How long the kernel gets to let go of a group.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes the empty groups of a daemon from wherever control groups are mounted, and the one they are in with its last.
/// Nobody is killed for it: a group with a process in it stays.
pub(super) fn clear(parent: &str) {
    let deadline = Instant::now() + PATIENCE;
    for point in mount_points() {
        let place = point.join(parent);
        if !remove_directory(&place, deadline) {
            tracing::warn!(group = %place.display(), "a cgroup stays behind");
        }
        if let Some(family) = place.parent() {
            // Another daemon may have its own in there.
            std::fs::remove_dir(family).ok();
        }
    }
}

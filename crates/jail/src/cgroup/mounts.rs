//! Where the hierarchies are mounted and which groups this process is in: proc_pid_mountinfo(5), cgroups(7).

use std::path::PathBuf;

/// A cgroup mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// The group of the hierarchy that is seen there; `/` outside containers.
    pub(super) root: String,
    /// `None`: the unified hierarchy; else the controllers of this one.
    pub(super) v1_controllers: Option<Vec<String>>,
}

/// A line of `/proc/self/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnGroup {
    /// Empty for the unified hierarchy.
    pub(super) controllers: Vec<String>,
    /// The path of the group.
    pub(super) path: String,
}

impl Mount {
    /// Where the group of that path is seen in this mount.
    pub(super) fn place_of(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        self.point.join(below.trim_start_matches('/'))
    }
}

/// The cgroup mounts in the text of a mountinfo file.
pub(super) fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(3);
            let (root, point) = (front.next()?, front.next()?);
            let mut back = back.split(' ');
            let (kind, options) = (back.next()?, back.nth(1)?);
            let v1_controllers = match kind {
                "cgroup2" => None,
                "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
                _ => return None,
            };
            Some(Mount { point: PathBuf::from(unescape(point)), root: root.to_owned(), v1_controllers })
        })
        .collect()
}

/// The groups in the text of `/proc/self/cgroup`.
pub(super) fn own_groups(text: &str) -> Vec<OwnGroup> {
    text.lines()
        .filter_map(|line| {
            let mut pieces = line.splitn(3, ':').skip(1);
            let controllers = pieces.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(OwnGroup { controllers, path: pieces.next()?.to_owned() })
        })
        .collect()
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_and_nothing_else() {
        let mountinfo = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs cgroup rw\n\
                         31 30 0:27 / /sys/fs/cgroup/blkio rw,relatime shared:9 - cgroup cgroup rw,blkio\n\
                         32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nnonsense\n";
        let points: Vec<PathBuf> = parse(mountinfo).into_iter().map(|mount| mount.point).collect();
        let expected = ["/sys/fs/cgroup/blkio", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(points, expected);
    }
}

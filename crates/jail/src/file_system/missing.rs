//! Places that do not exist on the machine and must exist in the view. Nothing may be made on the machine's own disk for
//! that, so the nearest directory that does exist is rebuilt in memory, with everything in it shown as before.

use std::io;
use std::path::{Path, PathBuf};

use super::{Source, mount_tmpfs};
use crate::root::take_as_root;
use crate::{JailError, Step};

/// What tmpfs calls itself (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Makes sure that `target` exists as a directory, or as a file, to be mounted upon.
pub(super) fn make_place(target: &Path, is_directory: bool) -> Result<(), JailError> {
    if target.symlink_metadata().is_ok() {
        return Ok(());
    }
    let Some(nearest) = target.ancestors().skip(1).find(|path| path.is_dir()) else {
        return Err(io::Error::from(io::ErrorKind::NotFound)).step(|| format!("find the place of {}", target.display()));
    };
    let ours = rustix::fs::statfs(nearest).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC);
    if !ours {
        rebuild_in_memory(nearest)?;
    }
    let made = if is_directory {
        std::fs::create_dir_all(target)
    } else {
        target.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(target, ""))
    };
    made.step(|| format!("make the place {}", target.display()))
}

/// Replaces a directory by one in memory with the same entries, each shown from where it was.
fn rebuild_in_memory(directory: &Path) -> Result<(), JailError> {
    let is_root = directory == Path::new("/");
    let entries = std::fs::read_dir(directory).step(|| format!("read {}", directory.display()))?;
    let mut kept = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_symlink() => {
                kept.push((path.clone(), Entry::Link(std::fs::read_link(&path).unwrap_or_default())))
            }
            Ok(_) => kept.push((path.clone(), Entry::Mount(Source::take(&path)?))),
            Err(_) => {}
        }
    }
    // A new root cannot be mounted over the old one; it is made aside and then takes its place.
    let place = if is_root { PathBuf::from("/tmp") } else { directory.to_owned() };
    mount_tmpfs(&place, c"mode=0755")?;
    for (path, entry) in kept {
        let Ok(below) = path.strip_prefix(directory) else { continue };
        let target = place.join(below);
        match entry {
            Entry::Link(to) => std::os::unix::fs::symlink(to, &target).step(|| format!("link {}", target.display()))?,
            Entry::Mount(source) => {
                let made = if source.is_directory { std::fs::create_dir(&target) } else { std::fs::write(&target, "") };
                made.step(|| format!("make {}", target.display()))?;
                source.put(&target)?;
            }
        }
    }
    if is_root { take_as_root(&place) } else { Ok(()) }
}

enum Entry {
    Link(PathBuf),
    Mount(Source),
}

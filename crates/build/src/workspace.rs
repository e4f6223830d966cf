//! Copies of trees for programs to work in.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies a tree to a new place where any user may write. Links are copied as links, and nothing but files, folders and links.
/// The folders around the place are made for their owner alone. Blocking.
///
/// # Errors
/// Something cannot be read or written, or there is something at the place.
pub fn copy_for_all(from: &Path, to: &Path) -> io::Result<()> {
    copy_for_all_until(from, to, &AtomicBool::new(false))
}

/// The same, given up as soon as `stop` is set.
///
/// # Errors
/// Those, and [`io::ErrorKind::Interrupted`] when it was given up; what was copied lies there.
pub fn copy_for_all_until(from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    copy(from, to, stop)
}

fn copy(from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    let facts = from.symlink_metadata().map_err(named)?;
    if facts.is_dir() {
        fs::create_dir(to)?;
        fs::set_permissions(to, Permissions::from_mode(facts.permissions().mode() & 0o777 | 0o777))?;
        for entry in fs::read_dir(from).map_err(named)? {
            let entry = entry.map_err(named)?;
            copy(&entry.path(), &to.join(entry.file_name()), stop)?;
        }
    } else if facts.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).map_err(named)?, to)?;
    } else if facts.is_file() {
        let mut source = File::open(from).map_err(named)?;
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut source, &mut copy).map_err(named)?;
        // What may be run stays so, and is for everybody to run who may read it.
        copy.set_permissions(Permissions::from_mode(facts.permissions().mode() & 0o777 | 0o666))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_is_open_to_all_and_follows_no_link_out_of_it() {
        let (tree, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = place.path().join("secret");
        fs::write(&secret, "mine").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(tree.path().join("bin")).unwrap();
        fs::write(tree.path().join("bin/run"), "x").unwrap();
        fs::set_permissions(tree.path().join("bin/run"), Permissions::from_mode(0o4700)).unwrap();
        std::os::unix::fs::symlink(&secret, tree.path().join("out")).unwrap();
        let to = place.path().join("deep/copy");
        copy_for_all(tree.path(), &to).unwrap();
        let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&to), mode(&to.join("bin")), mode(&to.join("bin/run"))), (0o777, 0o777, 0o766));
        assert_eq!(mode(&place.path().join("deep")), 0o700);
        assert!(to.join("out").symlink_metadata().unwrap().is_symlink());
        assert_eq!(mode(&secret), 0o600);
        assert!(copy_for_all(tree.path(), &to).is_err(), "a place that is taken");
    }
}

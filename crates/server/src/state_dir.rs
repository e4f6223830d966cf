//! The directory that holds everything a server keeps: private to its user. (That one server uses it at a time is the
//! store's to see to.)

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {source}", path.display())]
pub struct StateDirError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Makes a directory that only its user can enter; one that exists is left with the permissions it has.
pub(crate) fn create(path: &Path) -> Result<(), StateDirError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StateDirError { path: path.to_owned(), source })
}

/// Makes a directory, without what an earlier server left in it.
pub(crate) fn create_emptied(path: &Path) -> Result<(), StateDirError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StateDirError { path: path.to_owned(), source }),
        _ => create(path),
    }
}

/// Whether others than the user may enter it.
pub(crate) fn is_open_to_others(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn directories_are_private_and_swept_of_what_a_predecessor_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/incoming");
        create_emptied(&path).unwrap();
        assert!(!is_open_to_others(&path).unwrap());
        std::fs::write(path.join("half"), "x").unwrap();
        create_emptied(&path).unwrap();
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    }
}

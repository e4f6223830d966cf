//! Files that survive a crash: written beside their place, synced, renamed into it; private ones with mode 0600.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::CertError;

/// Largest file that is read: a chain with its key has a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// Whether others may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 0600.
    Private,
    /// 0644.
    Public,
}

/// Makes a directory with its parents, and closes it to others.
pub(crate) fn private_directory(path: &Path) -> Result<(), CertError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| at(path, source))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|source| at(path, source))
}

/// Replaces a file as a whole: readers see the old content or the new, also after a power cut.
pub(crate) fn write(path: &Path, content: &[u8], mode: Mode) -> Result<(), CertError> {
    replace(path, content, mode).map_err(|source| at(path, source))
}

fn replace(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("not in a directory"))?;
    // `tempfile` makes files with mode 0600, so that a key is never open to others, not even for a moment.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(content)?;
    if mode == Mode::Public {
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// The whole text of a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, CertError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(at(path, source)),
    };
    if length > LARGEST {
        return Err(CertError::Content { path: path.to_owned(), reason: format!("{length} bytes are too many") });
    }
    fs::read_to_string(path).map(Some).map_err(|source| at(path, source))
}

/// Renames a file that is of no use out of the way, so that somebody may look at it. Returns its new path.
pub(crate) fn put_aside(path: &Path) -> Result<PathBuf, CertError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let second = Timestamp::now().as_second();
    let aside = (0_u32..)
        .map(|attempt| path.with_file_name(format!("{name}.aside-{second}-{attempt}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.with_extension("aside"));
    fs::rename(path, &aside).map_err(|source| at(path, source))?;
    Ok(aside)
}

pub(crate) fn at(path: &Path, source: io::Error) -> CertError {
    CertError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn private_files_are_private_from_the_first_byte_and_replaced_as_a_whole() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a/b");
        private_directory(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

        let path = directory.join("key.pem");
        write(&path, b"one", Mode::Private).unwrap();
        write(&path, b"two", Mode::Private).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing is left lying about");

        write(&path, b"three", Mode::Public).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_is_put_aside_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("account.json");
        let mut asides = Vec::new();
        for content in ["one", "two"] {
            fs::write(&path, content).unwrap();
            asides.push((put_aside(&path).unwrap(), content));
        }
        assert_eq!(read(&path).unwrap(), None);
        for (aside, content) in asides {
            assert_eq!(read(&aside).unwrap().as_deref(), Some(content));
        }
    }
}

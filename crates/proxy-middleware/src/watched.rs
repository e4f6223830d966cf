//! Files that are read again when they change: when a table is taken, and from then on by [`State::look_again`](crate::State),
//! never in a request.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

/// A file that is read again when it changes. Reading blocks.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    limit: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// Why it could not be read the last time.
    failure: Option<String>,
}

/// What tells one version of a file from another: when it was changed, its length in bytes, its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    /// The version of a file that is there now. Blocks.
    pub fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { modified: metadata.modified().ok(), len: metadata.len(), inode: metadata.ino() }
    }
}

impl Watched {
    /// A file that nobody has read yet, of at most `limit` bytes.
    pub(crate) fn new(path: impl AsRef<Path>, limit: u64) -> Self {
        Self { path: path.as_ref().to_owned(), limit, seen: Mutex::default() }
    }

    /// Which file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file has, if it changed since the last call (or this is the first).
    ///
    /// # Errors
    /// Why it cannot be read, with its path; once for as long as the reason is the same.
    pub(crate) fn read_if_changed(&self) -> Result<Option<Vec<u8>>, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read_unless(seen.stamp.as_ref()) {
            Ok(None) => Ok(None),
            Ok(Some((stamp, content))) => {
                *seen = Seen { stamp: Some(stamp), failure: None };
                Ok(Some(content))
            }
            Err(error) => {
                let failure = format!("{}: {error}", self.path.display());
                let is_known = seen.failure.as_ref() == Some(&failure);
                *seen = Seen { stamp: None, failure: Some(failure.clone()) };
                if is_known { Ok(None) } else { Err(failure) }
            }
        }
    }

    /// Nothing if it is the version that is known.
    fn read_unless(&self, known: Option<&Stamp>) -> io::Result<Option<(Stamp, Vec<u8>)>> {
        let stamp = Stamp::at(&self.path)?;
        if known == Some(&stamp) {
            return Ok(None);
        }
        read(&self.path, self.limit).map(Some)
    }
}

/// What a file has, if it is one, and not too large; and which version of it that is.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<(Stamp, Vec<u8>)> {
    // A pipe would be waited for.
    let flags = OFlags::NONBLOCK | OFlags::RDONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    // That of what was opened: what is written meanwhile is seen the next time.
    Ok((Stamp::of(&metadata), content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Watched::new(&path, 4);
        assert!(file.read_if_changed().unwrap_err().contains("/file: "));
        assert_eq!(file.read_if_changed(), Ok(None));
        std::fs::write(&path, "four").unwrap();
        assert_eq!(file.read_if_changed(), Ok(Some(b"four".to_vec())));
        assert_eq!(file.read_if_changed(), Ok(None));
        std::fs::write(&path, "fives").unwrap();
        assert!(file.read_if_changed().unwrap_err().contains("larger than 4 bytes"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(file.read_if_changed().unwrap_err().contains("not a file"));
        assert_eq!(file.read_if_changed(), Ok(None));
    }
}

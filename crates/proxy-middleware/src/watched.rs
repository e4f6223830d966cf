//! Files that are read again when they change.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at a file.
const BETWEEN: Duration = Duration::from_secs(1);

/// A file that is read again when it changes. Reading blocks.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    limit: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    stamp: Option<Stamp>,
}

/// What tells one version of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
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

    /// Whether it is time to look at it.
    pub(crate) fn is_due(&self) -> bool {
        self.lock().at.is_none_or(|at| at.elapsed() >= BETWEEN)
    }

    /// What the file has, if it changed since the last call (or this is the first).
    pub(crate) fn read_if_changed(&self) -> std::io::Result<Option<Vec<u8>>> {
        let mut seen = self.lock();
        seen.at = Some(Instant::now());
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        let stamp = Stamp::of(&metadata);
        if seen.stamp.as_ref() == Some(&stamp) {
            return Ok(None);
        }
        if !metadata.is_file() {
            return Err(std::io::Error::other("not a file"));
        }
        let mut content = Vec::new();
        file.take(self.limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > self.limit {
            return Err(std::io::Error::other("too large"));
        }
        seen.stamp = Some(stamp);
        Ok(Some(content))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

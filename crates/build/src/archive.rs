//! Source archives.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::ignore::{DockerIgnore, IgnoreError};

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackFacts {
    /// Entries.
    pub files: u64,
    /// Bytes of file content, before compression.
    pub bytes: u64,
}

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes in one path.
    pub path: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 1 << 30, entries: 100_000, path: 1024 }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnpackFacts {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry is not allowed in an archive.
    #[error("archive entry {entry:?} is refused: {cause}")]
    Refused {
        /// The entry's name, cut to a printable length.
        entry: String,
        /// Why.
        cause: &'static str,
    },
    /// The archive holds more than it may.
    #[error("the archive holds more than {limit}")]
    TooLarge {
        /// The limit, in words: `100000 entries`.
        limit: String,
    },
    /// The archive ends too early or is not a gzipped tar.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// No space is left on the disk.
    #[error("no space is left on the disk while unpacking {}", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A failure while packing.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The ignore file is wrong.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// Something could not be read, or the writer gave up.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The rules for what `coracle deploy` leaves behind: those of `.coracleignore`, else of `.dockerignore`, else built-in ones
/// (`.git`, `node_modules`, `.venv` …).
pub fn source_ignore(_root: &Path) -> Result<DockerIgnore, IgnoreError> {
    unimplemented!()
}

/// Packs the tree as a gzipped tar.
pub fn pack<W: Write>(_root: &Path, _ignore: &DockerIgnore, _writer: W) -> Result<PackFacts, PackError> {
    unimplemented!()
}

/// Unpacks an archive from a stranger into the empty directory `into`. Blocking.
pub fn unpack<R: Read>(_reader: R, _into: &Path, _limits: UnpackLimits) -> Result<UnpackFacts, UnpackError> {
    unimplemented!()
}

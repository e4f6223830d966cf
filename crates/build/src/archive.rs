//! Source archives: a tree packed by the client as a gzipped tar, and unpacked by the server, which trusts nothing in it.

mod pack;
mod prune;
#[cfg(test)]
mod tests;
mod unpack;

use std::path::PathBuf;

pub use pack::{compose_ignore, pack, source_ignore};
pub use prune::prune;
pub use unpack::{unpack, unpack_tar};

use crate::ignore::IgnoreError;

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackFacts {
    /// Entries: files, folders and links.
    pub files: u64,
    /// Bytes of file content, before compression.
    pub bytes: u64,
}

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Bytes of file content.
    pub bytes: u64,
    /// Files, folders (those that are only implied by a path too) and links.
    pub entries: u64,
    /// Bytes in one path or link target.
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
    /// Files, folders and links.
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
    /// The archive ends too early, or is no gzipped tar.
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
    /// Something could not be read or cannot be sent, or the writer gave up.
    #[error("{} cannot be packed: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Whether a symlink's target stays below the root, wherever other links lead.
///
/// `..` may stand at its beginning only. The link itself lies in a real folder, so going up from there is what it seems to be;
/// and going down into another link leads to a place that was checked by the same rule. A `..` behind a name could climb
/// out of where such a link leads.
fn check_link_target(link: &str, target: &str) -> Result<(), &'static str> {
    if target.is_empty() || target.contains('\0') {
        return Err("it links to nothing");
    }
    if target.starts_with('/') {
        return Err("it links to an absolute path; leave it out with .coracleignore");
    }
    let mut left = link.split('/').count() - 1;
    let mut below = false;
    for piece in target.split('/') {
        match piece {
            "" | "." => {}
            ".." if below => return Err("its target goes up again after going down"),
            ".." if left == 0 => return Err("it links to a place outside of the tree; leave it out with .coracleignore"),
            ".." => left -= 1,
            _ => below = true,
        }
    }
    Ok(())
}

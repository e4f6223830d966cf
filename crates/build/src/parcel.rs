//! Parcels: files that one program hands to another, or to a person. They are packed from a folder in which a stranger may have
//! put anything, and laid over a folder in which a stranger may have put anything.
//!
//! Nothing but plain files and folders goes into a parcel, and nothing else comes out of one. No link is ever followed, on neither
//! side: each folder on the way is opened by itself, from the one before (`openat(2)` with `O_NOFOLLOW`). The same files give the
//! same bytes.

mod lay;
mod pack;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use lay::{Standing, lay, lay_in, sift};
pub use pack::pack;

/// What a parcel may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParcelLimits {
    /// Bytes of file content.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

impl Default for ParcelLimits {
    fn default() -> Self {
        Self { bytes: 256 << 20, entries: 20_000 }
    }
}

/// What a parcel holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParcelFacts {
    /// How many files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// A digest over all of it, in hexadecimal digits: the same for the same files.
    pub digest: String,
    /// What was left out, and why: the first few, made harmless to show.
    pub left_out: Vec<String>,
}

/// How many of the things that were left out are named.
const MOST_NAMED: usize = 5;

impl ParcelFacts {
    fn leave_out(&mut self, path: &str, why: &str) {
        match self.left_out.len().cmp(&MOST_NAMED) {
            std::cmp::Ordering::Less => {
                let shown: String = path.chars().take(100).collect();
                self.left_out.push(format!("{} ({why})", shown.escape_debug()));
            }
            std::cmp::Ordering::Equal => self.left_out.push("and more".to_owned()),
            std::cmp::Ordering::Greater => {}
        }
    }
}

/// Why something could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    /// There is too much of it.
    #[error("there is more than {0}")]
    TooMuch(String),
    /// An archive is not what it says.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Something stands where it was to go.
    #[error("{0} is there already")]
    Taken(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ParcelError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// The same, of a call of the kernel's.
    fn os(path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self + '_ {
        move |errno| Self::Io { path: path.to_owned(), source: errno.into() }
    }
}

/// Bytes of the longest path, and folders of the deepest.
const LONGEST_PATH: usize = 1024;
const DEEPEST: usize = 64;

/// What is wrong with a path; `None`: nothing is.
fn objection(path: &str) -> Option<&'static str> {
    if path.len() > LONGEST_PATH || path.split('/').count() > DEEPEST {
        Some("its path is too long")
    } else if path.chars().any(char::is_control) {
        Some("its name has control characters in it")
    } else if path.split('/').any(|piece| matches!(piece, "" | "." | "..")) {
        Some("its path leads elsewhere")
    } else {
        None
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

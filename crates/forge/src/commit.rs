//! Names of commits.

use std::fmt;
use std::str::FromStr;

/// The name of a commit: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits that are not all zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit(String);

/// It is not the name of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a commit: 40 or 64 hexadecimal digits")]
pub struct CommitError;

impl Commit {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text stands for "there is none" where a ref is created or deleted.
pub(crate) fn is_none(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'0')
}

impl FromStr for Commit {
    type Err = CommitError;

    fn from_str(text: &str) -> Result<Self, CommitError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let well_formed = matches!(text.len(), 40 | 64) && text.bytes().all(digit) && !is_none(text);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(CommitError) }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

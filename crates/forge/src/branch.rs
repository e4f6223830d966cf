//! Names of branches.

use std::fmt;
use std::str::FromStr;

use crate::forge::shown;

/// Bytes of a name.
const LONGEST: usize = 250;

/// The name of a branch, without `refs/heads/`, as git allows it (git-check-ref-format(1)). It is safe in a refspec: it holds no
/// colon, no asterisk and no blank, and does not begin with a hyphen. It may hold what shells and terminals act on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch(String);

/// Git allows no such branch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a branch")]
pub struct BranchError(String);

impl Branch {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(name: &str) -> bool {
    let forbidden = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
    let piece = |piece: &str| !piece.is_empty() && !piece.starts_with('.') && !piece.ends_with(".lock");
    (1..=LONGEST).contains(&name.len())
        && name != "@"
        && name != "HEAD"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(forbidden)
        && name.split('/').all(piece)
}

impl FromStr for Branch {
    type Err = BranchError;

    fn from_str(text: &str) -> Result<Self, BranchError> {
        if is_allowed(text) { Ok(Self(text.to_owned())) } else { Err(BranchError(shown(text))) }
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_git_allows() {
        for good in ["main", "feature/x-1", "a$(touch${IFS}x)", "`x`", "a;b|c&d", "ünï", "v1.2", "a@b"] {
            assert!(good.parse::<Branch>().is_ok(), "{good}");
        }
        let long = "x".repeat(251);
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a b",
            "a:b",
            "a*",
            "a..b",
            "a\u{1b}[2J",
            "a\nb",
            "a~1",
            "a^",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "@",
            "HEAD",
            "a@{1}",
            "a\\b",
            "a[b",
            "a?",
            "\u{85}",
            &long,
        ] {
            assert!(bad.parse::<Branch>().is_err(), "{bad:?}");
        }
    }
}

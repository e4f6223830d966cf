//! What a webhook tells, in words that are the same for all forges.

use http::HeaderMap;

use crate::branch::{Branch, BranchError};
use crate::commit::{Commit, CommitError};
use crate::forge::{Forge, shown};
use crate::payload::{bitbucket, github, gitlab};

/// Something that happened at a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The hook was made, or somebody tries it.
    Ping,
    /// A branch of the repository itself is there, or names another commit.
    BranchMoved {
        /// Which.
        branch: Branch,
        /// What it named when the forge wrote this.
        commit: Commit,
        /// Whether a commit is named that does not stand upon the one before.
        forced: bool,
    },
    /// A branch of the repository itself is gone.
    BranchGone {
        /// Which.
        branch: Branch,
    },
    /// A tag came, moved or went.
    Tag,
    /// A pull request, or merge request, into this repository.
    PullRequest {
        /// Its number.
        number: u64,
        /// What happened to it.
        action: PullRequestAction,
        /// The branch it comes from; in a fork, if it is from one.
        branch: Branch,
        /// What that branch names: a commit's name, or as much of it as the forge tells.
        commit: String,
        /// The branch it is for.
        into: Branch,
        /// Whether it comes from another repository: its files are anybody's. What cannot be told counts as one.
        from_fork: bool,
    },
    /// Something else; its name as the forge has it, short and harmless.
    Other(String),
}

/// What happened to a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullRequestAction {
    /// It is open: for the first time, or again.
    Opened,
    /// Other commits are proposed.
    Updated,
    /// It is closed: merged or not.
    Closed,
}

/// Why a payload cannot be read. Nothing of it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is not JSON, or lacks what such an event holds.
    #[error("the payload is not what such an event holds: line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1; 0: the line's end.
        column: usize,
    },
    /// It names a branch that git does not allow.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// It names a commit as no commit is named.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<serde_json::Error> for PayloadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json { line: error.line(), column: error.column() }
    }
}

/// Reads a payload whose signature has been verified. Several events come of one where a forge tells several branches at once.
pub fn read(forge: Forge, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, PayloadError> {
    let named = |names: &[&str]| {
        let value = names.iter().find_map(|name| headers.get(*name)).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    match forge {
        Forge::GitHub => github::read(&named(&["x-github-event"]), body),
        Forge::Forgejo => github::read(&named(&["x-forgejo-event", "x-gitea-event"]), body),
        Forge::GitLab => gitlab::read(&named(&["x-gitlab-event"]), body),
        Forge::Bitbucket => bitbucket::read(&named(&["x-event-key"]), body),
    }
}

/// An event that nothing is done about.
pub(crate) fn other(name: &str) -> Vec<Event> {
    vec![Event::Other(shown(name))]
}

/// What became of a ref that was pushed.
pub(crate) fn pushed(reference: &str, after: &str, forced: bool) -> Result<Event, PayloadError> {
    let Some(branch) = reference.strip_prefix("refs/heads/") else {
        let is_tag = reference.starts_with("refs/tags/");
        return Ok(if is_tag { Event::Tag } else { Event::Other(shown(reference)) });
    };
    let branch: Branch = branch.parse()?;
    match crate::commit::is_none(after) {
        true => Ok(Event::BranchGone { branch }),
        false => Ok(Event::BranchMoved { branch, commit: after.parse()?, forced }),
    }
}

/// The name of a commit, or the beginning of one, as pull requests tell it.
pub(crate) fn commit_of_request(text: &str) -> Result<String, PayloadError> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match (7..=64).contains(&text.len()) && text.bytes().all(digit) {
        true => Ok(text.to_owned()),
        false => Err(CommitError.into()),
    }
}

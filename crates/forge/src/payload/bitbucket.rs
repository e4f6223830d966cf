//! Bitbucket Cloud's payloads. Source: <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/> (`repo:push`,
//! `pullrequest:*`). One push tells all its branches at once, and a pull request's commit by its first twelve digits.

use serde::Deserialize;

use crate::event::{Event, PayloadError, PullRequestAction, commit_of_request, other};

/// The most branches of one push that are looked at.
const MOST: usize = 100;

#[derive(Deserialize)]
struct Pushed {
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    new: Option<Reference>,
    old: Option<Reference>,
    #[serde(default)]
    forced: bool,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    hash: String,
}

#[derive(Deserialize)]
struct Proposed {
    pullrequest: Request,
}

#[derive(Deserialize)]
struct Request {
    id: u64,
    source: Side,
    destination: Side,
}

#[derive(Deserialize)]
struct Side {
    branch: BranchName,
    commit: Option<Named>,
    /// `null` if the fork has been deleted.
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct BranchName {
    name: String,
}

#[derive(Deserialize, PartialEq)]
struct Repository {
    uuid: String,
}

pub(crate) fn read(event: &str, body: &[u8]) -> Result<Vec<Event>, PayloadError> {
    let action = match event {
        "diagnostics:ping" => return Ok(vec![Event::Ping]),
        "repo:push" => {
            let Pushed { push } = serde_json::from_slice(body)?;
            return push.changes.into_iter().take(MOST).map(change).collect();
        }
        "pullrequest:created" => PullRequestAction::Opened,
        "pullrequest:updated" => PullRequestAction::Updated,
        "pullrequest:fulfilled" | "pullrequest:rejected" => PullRequestAction::Closed,
        name => return Ok(other(name)),
    };
    let Proposed { pullrequest: Request { id, source, destination } } = serde_json::from_slice(body)?;
    let Some(commit) = source.commit else { return Ok(other("pull request without a commit")) };
    let event = Event::PullRequest {
        number: id,
        action,
        branch: source.branch.name.parse()?,
        commit: commit_of_request(&commit.hash)?,
        into: destination.branch.name.parse()?,
        from_fork: source.repository.is_none() || source.repository != destination.repository,
    };
    Ok(vec![event])
}

fn change(change: Change) -> Result<Event, PayloadError> {
    let is_branch = |reference: &Reference| matches!(reference.kind.as_str(), "branch" | "named_branch");
    match (change.new, change.old) {
        (Some(new), _) if is_branch(&new) => {
            let commit = new.target.map(|target| target.hash).unwrap_or_default().parse()?;
            Ok(Event::BranchMoved { branch: new.name.parse()?, commit, forced: change.forced })
        }
        (None, Some(old)) if is_branch(&old) => Ok(Event::BranchGone { branch: old.name.parse()? }),
        _ => Ok(Event::Tag),
    }
}

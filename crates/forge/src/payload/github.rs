//! GitHub's payloads, and Forgejo's and Gitea's, which are made in their likeness.
//!
//! Sources: <https://docs.github.com/en/webhooks/webhook-events-and-payloads> (`push`, `delete`, `pull_request`, `ping`),
//! <https://forgejo.org/docs/latest/user/webhooks/>; Gitea's `modules/structs/hook.go`. Where they differ: Gitea tells of a
//! deleted branch by `delete` alone, calls a pull request's new commits `synchronized`, and has no `ping` but a `push` for trying.

use serde::Deserialize;

use crate::event::{Event, PayloadError, PullRequestAction, commit_of_request, other, pushed};

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    #[serde(default)]
    forced: bool,
}

#[derive(Deserialize)]
struct Delete {
    #[serde(rename = "ref")]
    reference: String,
    ref_type: String,
}

#[derive(Deserialize)]
struct Request {
    action: String,
    number: u64,
    pull_request: PullRequest,
}

#[derive(Deserialize)]
struct PullRequest {
    head: Side,
    base: Side,
}

#[derive(Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
    /// `null` if the fork has been deleted.
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

pub(crate) fn read(event: &str, body: &[u8]) -> Result<Vec<Event>, PayloadError> {
    let event = match event {
        "ping" => Event::Ping,
        "push" => {
            let push: Push = serde_json::from_slice(body)?;
            pushed(&push.reference, &push.after, push.forced)?
        }
        "delete" => {
            let Delete { reference, ref_type } = serde_json::from_slice(body)?;
            match ref_type.as_str() {
                "branch" => Event::BranchGone { branch: reference.strip_prefix("refs/heads/").unwrap_or(&reference).parse()? },
                _ => Event::Tag,
            }
        }
        "pull_request" | "pull_request_sync" => return request(&serde_json::from_slice(body)?),
        name => return Ok(other(name)),
    };
    Ok(vec![event])
}

fn request(request: &Request) -> Result<Vec<Event>, PayloadError> {
    let action = match request.action.as_str() {
        "opened" | "reopened" => PullRequestAction::Opened,
        "synchronize" | "synchronized" => PullRequestAction::Updated,
        "closed" => PullRequestAction::Closed,
        action => return Ok(other(&format!("pull_request {action}"))),
    };
    let PullRequest { head, base } = &request.pull_request;
    let id = |side: &Side| side.repo.as_ref().map(|repository| repository.id);
    let from_fork = id(head).is_none() || id(head) != id(base);
    // Gitea names `refs/pull/N/head` where the fork's branch is gone; that is no branch of this repository's.
    let event = Event::PullRequest {
        number: request.number,
        action,
        branch: head.branch.parse()?,
        commit: commit_of_request(&head.sha)?,
        into: base.branch.parse()?,
        from_fork,
    };
    Ok(vec![event])
}

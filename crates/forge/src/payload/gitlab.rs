//! GitLab's payloads. Source: <https://docs.gitlab.com/user/project/integrations/webhook_events/> (push, tag and merge request
//! events). A deleted branch is a push whose `after` is zeros; whether a push was forced is not told.

use serde::Deserialize;

use crate::event::{Event, PayloadError, PullRequestAction, commit_of_request, other, pushed};

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
}

#[derive(Deserialize)]
struct Hook {
    object_attributes: Request,
}

#[derive(Deserialize)]
struct Request {
    iid: u64,
    action: Option<String>,
    source_branch: String,
    target_branch: String,
    /// `null` if the fork has been deleted.
    source_project_id: Option<u64>,
    target_project_id: u64,
    last_commit: Option<LastCommit>,
    /// The commit before, where an update brought others.
    oldrev: Option<String>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

pub(crate) fn read(event: &str, body: &[u8]) -> Result<Vec<Event>, PayloadError> {
    match event {
        "Push Hook" | "Tag Push Hook" => {
            let push: Push = serde_json::from_slice(body)?;
            Ok(vec![pushed(&push.reference, &push.after, false)?])
        }
        "Merge Request Hook" => request(serde_json::from_slice::<Hook>(body)?.object_attributes),
        name => Ok(other(name)),
    }
}

fn request(request: Request) -> Result<Vec<Event>, PayloadError> {
    let action = match request.action.as_deref().unwrap_or_default() {
        "open" | "reopen" => PullRequestAction::Opened,
        "update" if request.oldrev.is_some() => PullRequestAction::Updated,
        "close" | "merge" => PullRequestAction::Closed,
        action => return Ok(other(&format!("merge request {action}"))),
    };
    let Some(last) = request.last_commit else { return Ok(other("merge request without commits")) };
    let event = Event::PullRequest {
        number: request.iid,
        action,
        branch: request.source_branch.parse()?,
        commit: commit_of_request(&last.id)?,
        into: request.target_branch.parse()?,
        from_fork: request.source_project_id != Some(request.target_project_id),
    };
    Ok(vec![event])
}

//! What is reported to a forge about a commit: how its deployment goes, beside the commit, where people look for it.
//!
//! Sources: GitHub <https://docs.github.com/en/rest/commits/statuses> and `…/rest/deployments`; GitLab
//! <https://docs.gitlab.com/api/commits/#commit-status>; Forgejo and Gitea `POST /repos/{owner}/{repo}/statuses/{sha}`; Bitbucket
//! <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/>.

use coracle_model::Secret;
use coracle_model::text::one_line;
use serde_json::{Value, json};

use crate::api::ApiUrl;
use crate::commit::Commit;
use crate::forge::Forge;

/// Characters of a description: GitHub's limit is the narrowest.
const LONGEST: usize = 140;

/// Where is reported to, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is spoken there.
    pub forge: Forge,
    /// Where its API is.
    pub api: ApiUrl,
    /// The repository's name there.
    pub repository: String,
    /// What allows it.
    pub token: Secret,
}

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is under way.
    Pending,
    /// It is live.
    Success,
    /// It failed.
    Failure,
    /// It was called off; nothing is wrong with the commit.
    Cancelled,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// About what.
    pub commit: Commit,
    /// The app, by which reports of several are told apart.
    pub app: String,
    /// How it stands.
    pub state: State,
    /// Why, in a short sentence.
    pub description: String,
    /// Where more is told, or the app itself is.
    pub link: Option<String>,
}

/// A request to a forge's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Behind the API's address.
    pub(crate) path: String,
    pub(crate) body: Value,
}

fn status_word(forge: Forge, state: State) -> &'static str {
    match (forge, state) {
        (Forge::GitHub | Forge::Forgejo, State::Pending) => "pending",
        (Forge::GitHub | Forge::Forgejo | Forge::GitLab, State::Success) => "success",
        (Forge::GitHub | Forge::Forgejo, State::Failure) => "failure",
        (Forge::GitHub | Forge::Forgejo, State::Cancelled) => "error",
        (Forge::GitLab, State::Pending) => "running",
        (Forge::GitLab, State::Failure) => "failed",
        (Forge::GitLab, State::Cancelled) => "canceled",
        (Forge::Bitbucket, State::Pending) => "INPROGRESS",
        (Forge::Bitbucket, State::Success) => "SUCCESSFUL",
        (Forge::Bitbucket, State::Failure) => "FAILED",
        (Forge::Bitbucket, State::Cancelled) => "STOPPED",
    }
}

/// A part of a path, with everything encoded that is not plain (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The call that sets a commit's status.
pub(crate) fn status(target: &Target, report: &Report) -> Call {
    let (repository, commit) = (&target.repository, &report.commit);
    let (state, context) = (status_word(target.forge, report.state), format!("coracle/{}", report.app));
    let description = one_line(&report.description, LONGEST);
    let (path, mut body) = match target.forge {
        Forge::GitHub | Forge::Forgejo => {
            let body = json!({ "state": state, "context": context, "description": description });
            (format!("/repos/{repository}/statuses/{commit}"), body)
        }
        Forge::GitLab => {
            let body = json!({ "state": state, "name": context, "description": description });
            (format!("/projects/{}/statuses/{commit}", encoded(repository)), body)
        }
        Forge::Bitbucket => {
            // A link has to be there, and a key may have 40 characters.
            let key: String = context.chars().take(40).collect();
            let commit_page = format!("https://bitbucket.org/{repository}/commits/{commit}");
            let body = json!({ "state": state, "key": key, "name": context, "description": description, "url": commit_page });
            (format!("/repositories/{repository}/commit/{commit}/statuses/build"), body)
        }
    };
    if let Some(link) = &report.link {
        body[if target.forge == Forge::Bitbucket { "url" } else { "target_url" }] = json!(link);
    }
    Call { path, body }
}

/// The call that makes a deployment, where the forge knows such: GitHub alone.
pub(crate) fn deployment(target: &Target, report: &Report) -> Option<Call> {
    let body = json!({
        "ref": report.commit.as_str(),
        "environment": report.app,
        "auto_merge": false,
        // It is a person's word, or the branch's rules, that let the commit come: nothing else is waited for.
        "required_contexts": [],
        "description": "deployed by Coracle",
    });
    (target.forge == Forge::GitHub).then(|| Call { path: format!("/repos/{}/deployments", target.repository), body })
}

/// The call that says how a deployment stands.
pub(crate) fn deployment_status(target: &Target, deployment: u64, report: &Report) -> Call {
    let state = match report.state {
        State::Pending => "in_progress",
        State::Success => "success",
        State::Failure => "failure",
        State::Cancelled => "error",
    };
    let mut body = json!({ "state": state, "description": one_line(&report.description, LONGEST) });
    if let Some(link) = &report.link {
        body["environment_url"] = json!(link);
    }
    Call { path: format!("/repos/{}/deployments/{deployment}/statuses", target.repository), body }
}

/// What a report comes to at each forge, for people: the name of what appears beside the commit.
pub fn reports(app: &str) -> String {
    format!("coracle/{app}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(forge: Forge) -> Target {
        Target { forge, api: "https://api.example.com".parse().unwrap(), repository: "ana/shop".to_owned(), token: "t".into() }
    }

    fn report(state: State) -> Report {
        let commit = "a".repeat(40).parse().unwrap();
        Report { commit, app: "shop".to_owned(), state, description: "build failed: x\n\u{1b}[2J".to_owned(), link: None }
    }

    #[test]
    fn each_forge_is_told_in_its_own_words() {
        let sha = "a".repeat(40);
        for (forge, path, key, state) in [
            (Forge::GitHub, format!("/repos/ana/shop/statuses/{sha}"), "context", "failure"),
            (Forge::Forgejo, format!("/repos/ana/shop/statuses/{sha}"), "context", "failure"),
            (Forge::GitLab, format!("/projects/ana%2Fshop/statuses/{sha}"), "name", "failed"),
            (Forge::Bitbucket, format!("/repositories/ana/shop/commit/{sha}/statuses/build"), "key", "FAILED"),
        ] {
            let call = status(&target(forge), &report(State::Failure));
            assert_eq!((call.path, &call.body[key], &call.body["state"]), (path, &json!("coracle/shop"), &json!(state)));
            assert_eq!(call.body["description"], "build failed: x \u{fffd}[2J");
        }
        assert!(deployment(&target(Forge::GitLab), &report(State::Pending)).is_none());
        let made = deployment(&target(Forge::GitHub), &report(State::Pending)).unwrap();
        assert_eq!((made.body["ref"].as_str(), &made.body["auto_merge"]), (Some(sha.as_str()), &json!(false)));
    }

    #[test]
    fn a_description_is_short() {
        assert_eq!(one_line(&"ü".repeat(500), LONGEST).chars().count(), 140);
    }
}

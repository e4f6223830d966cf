//! Payloads in the shapes that forges document, with what is not wanted around what is.
#![allow(clippy::unwrap_used, clippy::panic)]

use coracle_forge::{Event, Forge, PullRequestAction, read};
use http::HeaderMap;
use serde_json::{Value, json};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NONE: &str = "0000000000000000000000000000000000000000";

fn reads(forge: Forge, event: &str, body: &Value) -> Result<Vec<Event>, String> {
    let name = match forge {
        Forge::GitHub => "x-github-event",
        Forge::Forgejo => "x-gitea-event",
        Forge::GitLab => "x-gitlab-event",
        Forge::Bitbucket => "x-event-key",
    };
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), event.parse().unwrap())]);
    read(forge, &headers, body.to_string().as_bytes()).map_err(|error| error.to_string())
}

fn moved(branch: &str, forced: bool) -> Event {
    Event::BranchMoved { branch: branch.parse().unwrap(), commit: A.parse().unwrap(), forced }
}

fn gone(branch: &str) -> Event {
    Event::BranchGone { branch: branch.parse().unwrap() }
}

fn request(action: PullRequestAction, commit: &str, from_fork: bool) -> Event {
    let (branch, into) = ("feature/x".parse().unwrap(), "main".parse().unwrap());
    Event::PullRequest { number: 7, action, branch, commit: commit.to_owned(), into, from_fork }
}

fn github_push(reference: &str, after: &str, forced: bool) -> Value {
    json!({
        "ref": reference, "before": A, "after": after, "created": false, "deleted": after == NONE, "forced": forced, "base_ref": null,
        "compare": "https://github.com/ana/shop/compare/a...b", "head_commit": { "id": after, "message": "one", "tree_id": A },
        "commits": [{ "id": after, "author": { "name": "Ana", "email": "ana@example.com" }, "modified": ["a.py"] }],
        "repository": { "id": 1, "full_name": "ana/shop", "private": true, "pushed_at": 1_700_000_000 },
        "pusher": { "name": "ana" }, "sender": { "login": "ana", "id": 2 },
    })
}

#[test]
fn branches_and_tags_of_github() {
    let push =
        |reference: &str, after: &str, forced| reads(Forge::GitHub, "push", &github_push(reference, after, forced)).unwrap();
    assert_eq!(push("refs/heads/main", A, false), [moved("main", false)]);
    assert_eq!(push("refs/heads/feature/x", A, true), [moved("feature/x", true)]);
    assert_eq!(push("refs/heads/main", NONE, false), [gone("main")]);
    assert_eq!(push("refs/tags/v1", A, false), [Event::Tag]);
    assert_eq!(push("refs/notes/commits", A, false), [Event::Other("refs/notes/commits".to_owned())]);
    let delete = json!({ "ref": "feature/x", "ref_type": "branch", "pusher_type": "user", "repository": { "id": 1 } });
    assert_eq!(reads(Forge::GitHub, "delete", &delete).unwrap(), [gone("feature/x")]);
    assert_eq!(reads(Forge::GitHub, "ping", &json!({ "zen": "x", "hook_id": 1 })).unwrap(), [Event::Ping]);
    assert_eq!(reads(Forge::GitHub, "star\u{20}x", &json!({})).unwrap(), [Event::Other("star x".to_owned())]);
}

fn github_request(action: &str, head: &Value) -> Value {
    let side = |branch: &str, sha: &str, repo: &Value| json!({ "label": "ana:x", "ref": branch, "sha": sha, "repo": repo });
    json!({
        "action": action, "number": 7,
        "pull_request": {
            "id": 99, "number": 7, "state": "open", "title": "x", "merged": false, "draft": false,
            "head": side("feature/x", A, head), "base": side("main", NONE, &json!({ "id": 1, "full_name": "ana/shop" })),
        },
        "repository": { "id": 1, "full_name": "ana/shop" },
    })
}

#[test]
fn pull_requests_of_github_and_forgejo() {
    let (own, fork) = (json!({ "id": 1, "full_name": "ana/shop" }), json!({ "id": 2, "full_name": "eve/shop", "fork": true }));
    for (forge, updated) in [(Forge::GitHub, "synchronize"), (Forge::Forgejo, "synchronized")] {
        for (action, expected) in [
            ("opened", PullRequestAction::Opened),
            ("reopened", PullRequestAction::Opened),
            (updated, PullRequestAction::Updated),
            ("closed", PullRequestAction::Closed),
        ] {
            // A fork that is deleted is a fork.
            for (head, from_fork) in [(&own, false), (&fork, true), (&Value::Null, true)] {
                let event = reads(forge, "pull_request", &github_request(action, head)).unwrap();
                assert_eq!(event, [request(expected, A, from_fork)], "{forge} {action}");
            }
        }
        let labeled = reads(forge, "pull_request", &github_request("labeled", &own)).unwrap();
        assert_eq!(labeled, [Event::Other("pull_request labeled".to_owned())]);
    }
}

#[test]
fn branches_of_forgejo() {
    let push = json!({
        "ref": "refs/heads/main", "before": NONE, "after": A, "compare_url": "", "total_commits": 1,
        "commits": [{ "id": A, "message": "one\n", "verification": null, "added": null }],
        "repository": { "id": 140, "full_name": "ana/shop", "updated_at": "2026-01-01T00:00:00Z" }, "pusher": { "id": 1, "login": "ana" },
    });
    assert_eq!(reads(Forge::Forgejo, "push", &push).unwrap(), [moved("main", false)]);
    let delete = json!({ "ref": "main", "ref_type": "branch", "pusher_type": "user", "repository": { "id": 140 } });
    assert_eq!(reads(Forge::Forgejo, "delete", &delete).unwrap(), [gone("main")]);
}

fn gitlab_request(attributes: Value) -> Value {
    let mut all = json!({
        "id": 90, "iid": 7, "source_branch": "feature/x", "target_branch": "main", "source_project_id": 1, "target_project_id": 1,
        "last_commit": { "id": A, "message": "one", "timestamp": "2026-01-01T00:00:00Z" }, "state": "opened", "title": "x",
    });
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    json!({ "object_kind": "merge_request", "event_type": "merge_request", "project": { "id": 1 }, "object_attributes": all })
}

#[test]
fn events_of_gitlab() {
    let push = |reference: &str, after: &str| {
        json!({
            "object_kind": "push", "event_name": "push", "before": A, "after": after, "ref": reference, "ref_protected": true,
            "checkout_sha": if after == NONE { Value::Null } else { json!(after) }, "project_id": 1, "total_commits_count": 1,
            "project": { "id": 1, "path_with_namespace": "group/sub/shop", "default_branch": "main" }, "commits": [],
        })
    };
    assert_eq!(reads(Forge::GitLab, "Push Hook", &push("refs/heads/main", A)).unwrap(), [moved("main", false)]);
    assert_eq!(reads(Forge::GitLab, "Push Hook", &push("refs/heads/main", NONE)).unwrap(), [gone("main")]);
    assert_eq!(reads(Forge::GitLab, "Tag Push Hook", &push("refs/tags/v1", A)).unwrap(), [Event::Tag]);
    assert_eq!(reads(Forge::GitLab, "Note Hook", &json!({})).unwrap(), [Event::Other("Note Hook".to_owned())]);
    for (attributes, expected) in [
        (json!({ "action": "open" }), request(PullRequestAction::Opened, A, false)),
        (json!({ "action": "update", "oldrev": NONE }), request(PullRequestAction::Updated, A, false)),
        (json!({ "action": "merge" }), request(PullRequestAction::Closed, A, false)),
        (json!({ "action": "close" }), request(PullRequestAction::Closed, A, false)),
        (json!({ "action": "open", "source_project_id": 2 }), request(PullRequestAction::Opened, A, true)),
        (json!({ "action": "open", "source_project_id": null }), request(PullRequestAction::Opened, A, true)),
        (json!({ "action": "update" }), Event::Other("merge request update".to_owned())),
        (json!({ "action": "approved" }), Event::Other("merge request approved".to_owned())),
    ] {
        let event = reads(Forge::GitLab, "Merge Request Hook", &gitlab_request(attributes.clone())).unwrap();
        assert_eq!(event, [expected], "{attributes}");
    }
}

#[test]
fn events_of_bitbucket() {
    let named =
        |kind: &str, name: &str| json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": A, "date": "x" } });
    let push = |changes: Value| json!({ "actor": { "nickname": "ana" }, "repository": { "uuid": "{1}" }, "push": { "changes": changes } });
    let all = push(json!([
        { "new": named("branch", "main"), "old": named("branch", "main"), "created": false, "closed": false, "forced": true },
        { "new": named("branch", "feature/x"), "old": null, "created": true, "forced": false, "commits": [] },
        { "new": null, "old": named("branch", "old"), "closed": true, "forced": false },
        { "new": named("tag", "v1"), "old": null, "forced": false },
    ]));
    let expected = [moved("main", true), moved("feature/x", false), gone("old"), Event::Tag];
    assert_eq!(reads(Forge::Bitbucket, "repo:push", &all).unwrap(), expected);
    assert_eq!(reads(Forge::Bitbucket, "repo:push", &push(json!([]))).unwrap(), []);
    let proposed = |repository: Value| {
        let side = |branch: &str, repository: &Value| json!({ "branch": { "name": branch }, "commit": { "hash": &A[..12] }, "repository": repository });
        let base = json!({ "type": "repository", "uuid": "{1}", "full_name": "ana/shop" });
        json!({ "pullrequest": { "id": 7, "state": "OPEN", "source": side("feature/x", &repository), "destination": side("main", &base) } })
    };
    let (own, fork) = (json!({ "uuid": "{1}", "name": "shop" }), json!({ "uuid": "{2}" }));
    for (event, action) in [
        ("pullrequest:created", PullRequestAction::Opened),
        ("pullrequest:updated", PullRequestAction::Updated),
        ("pullrequest:fulfilled", PullRequestAction::Closed),
        ("pullrequest:rejected", PullRequestAction::Closed),
    ] {
        for (repository, from_fork) in [(&own, false), (&fork, true), (&Value::Null, true)] {
            let event = reads(Forge::Bitbucket, event, &proposed(repository.clone())).unwrap();
            assert_eq!(event, [request(action, &A[..12], from_fork)]);
        }
    }
    assert_eq!(reads(Forge::Bitbucket, "repo:fork", &json!({})).unwrap(), [Event::Other("repo:fork".to_owned())]);
    assert_eq!(reads(Forge::Bitbucket, "diagnostics:ping", &json!({ "test": true })).unwrap(), [Event::Ping]);
}

#[test]
fn what_is_no_such_payload_is_refused_and_not_repeated() {
    for body in [json!({}), json!([]), json!({ "ref": "refs/heads/main" }), json!({ "ref": 1, "after": "hunter2" })] {
        let error = reads(Forge::GitHub, "push", &body).unwrap_err();
        assert!(error.starts_with("the payload is not") && !error.contains("hunter2"), "{error}");
    }
    for (branch, commit) in [("a b", A), ("-x", A), ("a\u{1b}[2J", A), ("main", "hunter2"), ("main", &A[..39]), ("main", "")] {
        let refused = reads(Forge::GitHub, "push", &github_push(&format!("refs/heads/{branch}"), commit, false));
        assert!(refused.is_err(), "{branch} {commit}: {refused:?}");
    }
    // However deep it is, and however much stands in it that nobody wants.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-github-event"), "push".parse().unwrap())]);
    let around = format!(r#"{{"ref":"refs/heads/main","x":{deep},"after":"{A}"}}"#);
    assert_eq!(read(Forge::GitHub, &headers, around.as_bytes()).unwrap(), [moved("main", false)]);
    assert!(read(Forge::GitHub, &headers, format!(r#"{{"ref":{deep},"after":"{A}"}}"#).as_bytes()).is_err());
    assert!(read(Forge::GitHub, &headers, b"\xff\xfe").is_err());
}

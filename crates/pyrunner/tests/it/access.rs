//! Who may call, how often, and what they see of each other.

use serde_json::json;

use crate::host::{Host, possible, until};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn keys_open_what_is_closed_until_they_are_revoked() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--anonymous", "false"]);
    let program = json!({ "code": "print(1)" });
    let answer = server.post("/execute", &program);
    answer.is_problem(401, "Authorization");
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    let token = server.key(&["somebody"]);
    let with = |token: &str| server.post_with("/execute", &[("Authorization", &bearer(token))], &program);
    assert_eq!(with(&token).status, 200);
    assert_eq!(server.post_with("/execute", &[("X-Api-Key", &token)], &program).status, 200);
    with(&format!("{token}0")).is_problem(401, "the API key is unknown");
    with("nonsense").is_problem(401, "");
    server.post_with("/execute", &[("Authorization", "Basic eDp5")], &program).is_problem(401, "Bearer");
    assert_eq!(server.get("/health").status, 200);
    let listed = server.cli(&["keys", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed[0]["name"] == "somebody" && listed[0]["last_used_at"].is_string(), "{listed}");
    assert!(!listed.to_string().contains(&token));
    assert!(server.cli(&["keys", "revoke", listed[0]["id"].as_str().unwrap()]).status.success());
    let answer = until("the key is heeded no more", || Some(with(&token)).filter(|answer| answer.status != 200));
    answer.is_problem(401, "revoked");
    assert!(!server.cli(&["keys", "revoke", "000000000000"]).status.success());
}

#[test]
fn everybody_sees_their_own_and_an_admin_sees_all() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let (one, other, admin) = (server.key(&["one"]), server.key(&["other"]), server.key(&["boss", "--admin"]));
    let run = |token: &str, code: &str| {
        server.post_with("/execute", &[("Authorization", &bearer(token))], &json!({ "code": code })).json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let see = |token: &str, path: &str| server.call("GET", path, &[("Authorization", &bearer(token))], b"");
    let (mine, _) = (run(&one, "print('mine')"), run(&other, "print('other')"));
    let anonymous = server.run("print('nobody')")["id"].as_str().unwrap().to_owned();
    until("all are written down", || {
        (see(&admin, "/executions").json()["executions"].as_array().unwrap().len() == 3).then_some(())
    });
    let seen = see(&one, "/executions").json();
    assert_eq!(seen["executions"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["executions"][0]["stdout"], "mine\n");
    assert_eq!(see(&one, &format!("/executions/{mine}")).status, 200);
    see(&other, &format!("/executions/{mine}")).is_problem(404, "of yours");
    see(&one, &format!("/executions/{anonymous}")).is_problem(404, "of yours");
    server.get(&format!("/executions/{mine}")).is_problem(404, "of yours");
    assert_eq!(server.get(&format!("/executions/{anonymous}")).json()["stdout"], "nobody\n");
    assert_eq!(see(&admin, &format!("/executions/{anonymous}")).status, 200);
    let job = server.post_with("/jobs", &[("Authorization", &bearer(&one))], &json!({"code": ""})).json();
    see(&other, &format!("/jobs/{}", job["id"].as_str().unwrap())).is_problem(404, "of yours");
}

#[test]
fn a_key_has_limits_of_its_own() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "100"]);
    let token = server.key(&["small", "--rate", "2", "--limit", "wall_ms=300", "--limit", "memory_bytes=33554432"]);
    let call = |body: &serde_json::Value| server.post_with("/execute", &[("Authorization", &bearer(&token))], body);
    let limits = server.call("GET", "/limits", &[("Authorization", &bearer(&token))], b"").json();
    assert_eq!((&limits["execution"]["wall_ms"], &limits["calls_per_hour"]), (&json!(300), &json!(2)), "{limits}");
    call(&json!({"code": "", "limits": {"wall_ms": 301}})).is_problem(422, "300 is the most");
    let answer = call(&json!({"code": "while True: pass"}));
    assert_eq!((answer.json()["reason"].as_str(), answer.header("ratelimit-remaining")), (Some("timeout"), Some("0")));
    call(&json!({"code": ""})).is_problem(429, "2 calls an hour");
    assert!(!server.cli(&["keys", "add", "x", "--limit", "color=7"]).status.success());
}

#[test]
fn calls_are_counted_by_client_and_health_is_not() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "3", "--trusted-proxies", "127.0.0.1"]);
    let from = |address: &str| server.post_with("/execute", &[("X-Forwarded-For", address)], &json!({"code": ""}));
    for left in ["2", "1", "0"] {
        let answer = from("6.6.6.6, 198.51.100.1");
        assert_eq!(
            (answer.status, answer.header("ratelimit-limit"), answer.header("ratelimit-remaining")),
            (200, Some("3"), Some(left))
        );
        assert!(answer.header("ratelimit-reset").is_some() && answer.header("ratelimit-policy") == Some("3;w=3600"));
    }
    let refused = from("7.7.7.7, 198.51.100.1");
    refused.is_problem(429, "3 calls an hour");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    // What is wrong counts too, and each program of a batch.
    assert_eq!(from("198.51.100.2").status, 200);
    let batch = json!({"executions": [{"code": ""}, {"code": ""}, {"code": ""}]});
    server.post_with("/batch", &[("X-Forwarded-For", "198.51.100.2")], &batch).is_problem(429, "");
    // One customer of IPv6 is one client.
    for host in 1..=3 {
        assert_eq!(from(&format!("2001:db8:1:2::{host}")).status, 200);
    }
    assert_eq!(from("2001:db8:1:2:ffff::9").status, 429);
    assert_eq!(from("2001:db8:1:3::1").status, 200);
    for _ in 0..200 {
        assert_eq!(server.get("/health").status, 200);
    }
}

#[test]
fn keys_cannot_be_tried_faster_than_calls_are_allowed() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "3"]);
    let attempt = || server.post_with("/execute", &[("Authorization", "Bearer pyr_000000000000_0")], &json!({"code": ""})).status;
    assert_eq!([attempt(), attempt(), attempt(), attempt()], [401, 401, 401, 429]);
}

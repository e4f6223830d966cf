//! What is written down.

use serde_json::json;

use crate::host::{Host, possible, until};

#[test]
fn history_is_read_page_by_page_and_survives_a_restart() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    for number in 0..5 {
        let program = json!({"code": format!("import sys; print({number}); sys.exit({number})"), "stdin": "in", "args": ["secret?"],
                             "env": {"TOKEN": "hidden"}});
        server.execute(&program);
    }
    let state = server.state.clone();
    assert_eq!(server.stop(), 0);
    let server = Host::start_in(state, &[]);
    let mut path = "/executions?limit=2&excerpt=3".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = server.get(&path).json();
        seen.extend(page["executions"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/executions?limit=2&excerpt=3&cursor={next}");
    }
    let outputs: Vec<&str> = seen.iter().map(|past| past["stdout"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["4\n", "3\n", "2\n", "1\n", "0\n"]);
    assert_eq!(seen[0]["code"], "imp");
    let whole = server.get(&format!("/executions/{}", seen[0]["id"].as_str().unwrap())).json();
    assert!(whole["code"].as_str().unwrap().starts_with("import sys") && whole["stdin"] == "in", "{whole}");
    assert_eq!((&whole["exit_code"], &whole["reason"], &whole["origin"]), (&json!(4), &json!("exit_nonzero"), &json!("execute")));
    assert_eq!((&whole["details"]["args"], &whole["details"]["env"]), (&json!(["secret?"]), &json!(["TOKEN"])));
    assert!(!whole.to_string().contains("hidden"));
}

#[test]
fn strict_history_has_it_before_the_answer() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--history", "strict"]);
    for number in 0..3 {
        let id = server.run(&format!("print({number})"))["id"].as_str().unwrap().to_owned();
        assert_eq!(server.get(&format!("/executions/{id}")).json()["stdout"], format!("{number}\n"));
    }
}

#[test]
fn an_unreachable_database_costs_history_and_not_executions_unless_it_is_strict() {
    if !possible() {
        return;
    }
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://nobody:secret@{nowhere}/nothing");
    let start = |history: &str| Host::start_with(&["--history", history], &[("DATABASE_URL", &url)]);
    let server = start("relaxed");
    assert_eq!(server.run("print(1)")["output"], "1\n");
    server.get("/executions").is_problem(503, "database");
    let trouble = until("the trouble is told", || server.get("/ready").json()["history"]["trouble"].as_str().map(str::to_owned));
    assert!(!trouble.contains("secret") && !server.log().contains("secret"), "{trouble}");
    assert_eq!(server.get("/ready").status, 200);
    let server = start("strict");
    // The first one finds it out.
    until("executions are refused", || (server.post("/execute", &json!({"code": ""})).status == 503).then_some(()));
    server.post("/execute", &json!({"code": ""})).is_problem(503, "history is strict");
}

#[test]
fn history_can_be_off() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--history", "off"]);
    let id = server.run("print(1)")["id"].as_str().unwrap().to_owned();
    server.get(&format!("/executions/{id}")).is_problem(404, "");
    assert_eq!(server.get("/executions").json()["executions"], json!([]));
}

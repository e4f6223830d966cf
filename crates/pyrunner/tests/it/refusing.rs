//! Requests that are not carried out: each is told why, as a problem (RFC 9457).

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::host::{Answer, Host, PATIENCE, possible};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn what_is_wrong_with_a_request_is_told() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--max-body", "1MiB"]);
    let refused =
        |body: &str, status: u16, told: &str| server.call("POST", "/execute", &[JSON], body.as_bytes()).is_problem(status, told);
    refused(r#"{"stuff":"foo"}"#, 400, "unknown field `stuff`");
    refused(r#"{"code":1}"#, 400, "code: invalid type");
    refused("", 400, "not JSON");
    refused("{\"code\":\"\\ud800\"}", 400, "not JSON");
    refused(&format!("{{\"code\":\"\",\"x\":{}", "[".repeat(500_000)), 400, "");
    refused(r#"{"code":"","image":"nowhere"}"#, 422, "GET /runtimes");
    refused(r#"{"code":"","limits":{"wall_ms":10001}}"#, 422, "10000 is the most");
    refused(r#"{"code":"","limits":{"output_bytes":99999999}}"#, 422, "limits can only be lowered");
    refused(r#"{"code":"","files":[{"name":"a\u0000b","content":""}]}"#, 400, "NUL");
    refused(r#"{"code":"","collect":[""]}"#, 400, "collect[0]");
    refused(r#"{"code":"","callback_url":"https://example.org"}"#, 400, "POST /jobs");
    refused(
        &json!({"code": "", "args": ["a".repeat(1 << 19), "b".repeat(1 << 19), "c"]}).to_string(),
        413,
        "larger than 1048576",
    );
    refused(&json!({"code": "", "args": vec!["a"; 1025]}).to_string(), 400, "at most 1024 arguments");
    server.call("POST", "/execute", &[JSON], b"{\"code\":\"\xff\"}").is_problem(400, "not JSON");
    server.call("POST", "/execute", &[("Content-Type", "application/xml")], b"{}").is_problem(415, "application/xml");
    server.call("POST", "/execute", &[("Content-Type", "application/x-www-form-urlencoded")], b"{}").is_problem(415, "");
    server.call("POST", "/execute", &[JSON, ("Content-Encoding", "gzip")], b"{}").is_problem(415, "gzip");
    server.call("POST", "/execute?stream=maybe", &[JSON], b"{\"code\":\"\"}").is_problem(400, "`stream`");
    server.call("POST", "/execute?straem=1", &[JSON], b"{\"code\":\"\"}").is_problem(400, "there is `stream`");
    server.call("POST", "/jobs?x", &[JSON], b"{\"code\":\"\"}").is_problem(400, "query parameter `x`");
    server.call("POST", "/batch?stream=1", &[JSON], b"{\"executions\":[]}").is_problem(400, "query parameter `stream`");
    refused(r#"["print(1)"]"#, 400, "expected an object");
    refused(r#"{"code":"","limits":[100]}"#, 400, "limits: invalid type: sequence, expected an object");
    refused(r#"{"code":"","files":[["a","b"]]}"#, 400, "files[0]: invalid type: sequence, expected an object");
    refused(&json!({"code": "", "files": [{"name": "a/".repeat(101) + "b", "content": ""}]}).to_string(), 400, "100 directories");
    let wide: Vec<_> = (0..40).map(|one| json!({"name": format!("{one}/{}b", "a/".repeat(80)), "content": ""})).collect();
    refused(&json!({"code": "", "files": wide}).to_string(), 400, "2048 is the most");
    let deep = json!({"code": "", "files": [{"name": "a/".repeat(100) + "b", "content": ""}]});
    assert_eq!(server.execute(&deep)["reason"], "ok");
    server.get("/nowhere").is_problem(404, "/nowhere");
    let answer = server.get("/execute");
    answer.is_problem(405, "does not take GET");
    assert_eq!(answer.header("allow"), Some("POST"));
    server.get("/executions/xyz").is_problem(404, "hexadecimal");
    server.get("/executions?limit=0").is_problem(400, "1 to 1000");
    server.get("/executions?cursor=x").is_problem(400, "cursor");
    server.get("/jobs/00000000-0000-7000-8000-000000000000").is_problem(404, "no job");
    server.post("/batch", &json!({"executions": []})).is_problem(400, "1 to 20");
    server.post("/batch", &json!({"executions": vec![json!({"code": ""}); 21]})).is_problem(400, "21 programs");
    assert_eq!(server.run("print(1)")["output"], "1\n");
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--max-body", "1MiB"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n").unwrap();
    Answer::read(&mut stream).is_problem(413, "larger than 1048576");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--body-timeout", "200ms"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{\"co").unwrap();
    Answer::read(&mut stream).is_problem(408, "did not arrive");
}

#[test]
fn too_much_at_once_is_refused_with_a_time_to_come_back() {
    if !possible() {
        return;
    }
    let arguments = ["--concurrency", "1", "--client-concurrency", "1", "--queue", "1", "--client-queue", "1"];
    let server = Host::start(&arguments);
    let slow = json!({"code": "import time; time.sleep(9)"}).to_string();
    let first = server.send("POST", "/execute", &[], slow.as_bytes());
    server.until_running(1);
    let mut second = server.send("POST", "/execute", &[], json!({"code": ""}).to_string().as_bytes());
    crate::host::until("the second waits", || (server.get("/ready").json()["waiting"] == 1).then_some(()));
    let answer = server.post("/execute", &json!({"code": ""}));
    answer.is_problem(429, "waiting already");
    assert!(answer.header("retry-after").is_some());
    // Who has waited has a turn when another one leaves.
    drop(first);
    assert_eq!(Answer::read(&mut second).status, 200);
}

#[test]
fn the_import_policy_tells_before_anything_runs() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--forbid-imports", "os,urllib.request"]);
    let refused = |code: &str, told: &str| server.post("/execute", &json!({ "code": code })).is_problem(422, told);
    refused("print(1)\nimport os.path", "line 2 imports os.path");
    refused("def f():\n    from urllib import request", "urllib.request");
    refused("__import__('os')", "imports os");
    assert_eq!(server.run("import json; print('import os')")["output"], "import os\n");
    assert!(server.run("import (")["stderr"].as_str().unwrap().contains("SyntaxError"));
    // It reads texts and protects nothing, and says so.
    assert_eq!(server.run("print(bool(getattr(__builtins__, '__imp' + 'ort__')('o' + 's')))")["output"], "True\n");
}

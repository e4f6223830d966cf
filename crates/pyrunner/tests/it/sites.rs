//! Browsers of people who visit other sites: what a page elsewhere can have them send.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::host::{Answer, Host, PATIENCE, possible};

const PROGRAM: &[u8] = br#"{"code": "print(1)"}"#;

#[test]
fn a_page_of_another_site_executes_nothing() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let sent = |path: &str, headers: &[(&str, &str)], body: &[u8]| server.call("POST", path, headers, body);
    // What a form or a simple request of a script can be: these types, or none.
    for media_type in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for path in ["/execute", "/batch", "/jobs", "/execute?stream=1"] {
            sent(path, &[("Content-Type", media_type)], PROGRAM).is_problem(415, "application/json");
        }
    }
    let server = Host::start(&["--rate", "4"]);
    let sent = |path: &str, headers: &[(&str, &str)], body: &[u8]| server.call("POST", path, headers, body);
    let own = format!("http://{}", server.address);
    for headers in [
        [("Origin", "https://evil.example"), ("X-Other", "1")],
        [("Origin", "null"), ("X-Other", "1")],
        [("Origin", "http://localhost:1"), ("X-Other", "1")],
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        [("Sec-Fetch-Site", "same-site"), ("Origin", "https://other.example")],
    ] {
        for path in ["/execute", "/batch", "/jobs"] {
            sent(path, &headers, PROGRAM).is_problem(403, "--origins");
        }
        // Each in its own words.
        let piston = sent("/api/v2/execute", &headers, b"{}");
        assert!(piston.status == 403 && piston.json()["message"].is_string(), "{piston:?}");
        let snekbox = sent("/eval", &headers, br#"{"input": "1"}"#);
        assert!(snekbox.status == 403 && snekbox.json()["description"].is_string(), "{snekbox:?}");
        let cancel = server.call("DELETE", "/jobs/00000000-0000-7000-8000-000000000000", &headers, b"");
        cancel.is_problem(403, "--origins");
    }
    // Our own pages, and whoever is no browser.
    assert_eq!(sent("/execute", &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")], PROGRAM).status, 200);
    assert_eq!(sent("/execute", &[("Origin", &own)], PROGRAM).status, 200);
    assert_eq!(sent("/execute", &[("Content-Type", "application/vnd.x+json; charset=utf-8")], PROGRAM).status, 200);
    let last = sent("/execute", &[], PROGRAM);
    assert_eq!((last.status, last.header("ratelimit-remaining")), (200, Some("0")), "what was refused was counted");
    assert_eq!(last.header("access-control-allow-origin"), None);
}

#[test]
fn pages_that_are_let_in_may_send_and_read() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--origins", "https://friend.example"]);
    let friend = ("Origin", "https://friend.example");
    let asked = server.call("OPTIONS", "/execute", &[friend, ("Access-Control-Request-Method", "POST")], b"");
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (204, Some("https://friend.example")));
    assert!(asked.header("access-control-allow-headers").unwrap().contains("content-type"), "{asked:?}");
    let answer = server.call("POST", "/execute", &[friend, ("Sec-Fetch-Site", "cross-site")], PROGRAM);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://friend.example")));
    assert_eq!(answer.header("vary"), Some("origin"));
    let evil = ("Origin", "https://evil.example");
    let refused = server.call("OPTIONS", "/execute", &[evil, ("Access-Control-Request-Method", "POST")], b"");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (405, None));
    assert_eq!(server.call("GET", "/executions", &[evil], b"").header("access-control-allow-origin"), None);
}

/// Asks under a name.
fn under(server: &Host, name: &str) -> Answer {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /executions HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").unwrap();
    Answer::read(&mut stream)
}

#[test]
fn a_name_that_was_made_to_lead_here_is_not_answered() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--hosts", "run.example,other.example"]);
    let port = server.address.port();
    for own in ["localhost", "127.0.0.1", "[::1]:1", "app.localhost", "run.example", "other.example:80"] {
        assert_eq!(under(&server, own).status, 200, "{own}");
    }
    assert_eq!(under(&server, &format!("localhost:{port}")).status, 200);
    under(&server, &format!("evil.example:{port}")).is_problem(421, "--hosts");
    under(&server, "192.0.2.1").is_problem(421, "not called");
    // Whoever has to show a key is not a page's to use.
    let server = Host::start(&["--anonymous", "false"]);
    under(&server, "any.example").is_problem(401, "key");
    assert_eq!(server.post("/execute", &json!({"code": ""})).status, 401);
}

//! The line per request (kp-43).

use coracle_proxy::AccessLog;
use serde_json::Value;

use crate::backend::Backend;
use crate::env::{Env, until};

fn lines(env: &Env) -> Vec<Value> {
    let text = std::fs::read_to_string(env.directory.path().join("access.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn logging() -> Env {
    Env::with(|options| {
        let path = options.control_socket.with_file_name("access.log");
        options.access_log = AccessLog::File(path);
    })
    .await
}

#[tokio::test]
async fn a_line_says_what_happened() {
    let app = Backend::saying("hello").await;
    let mut env = logging().await;
    env.serve(&[("t1", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET /a?secret=1 HTTP/1.1\r\nHost: shop\r\nX-Request-Id: r1\r\n\r\n").await;
    wire.answer().await;
    env.get("h", "/b").await;
    until("two lines", async || lines(&env).len() == 2).await;
    let line = &lines(&env)[0];
    for (key, value) in [
        ("request_id", "r1".into()),
        ("host", "shop".into()),
        ("method", "GET".into()),
        ("path", "/a".into()),
        ("status", 200.into()),
        ("bytes", 5.into()),
        ("target", "t1".into()),
        ("attempts", Value::from(1)),
        ("peer", Value::from(wire.stream.local_addr().unwrap().to_string())),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert!(line["duration_us"].as_u64().unwrap() > 0 && line["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[tokio::test]
async fn a_client_that_goes_away_first_is_499_and_its_request_is_cancelled() {
    let (left, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let app = Backend::talking(move |mut conn| {
        let left = left.clone();
        async move {
            conn.request().await;
            // The proxy closes: there is no next request.
            left.send(conn.request().await.is_none()).unwrap();
        }
    })
    .await;
    let mut env = logging().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("in flight", async || env.in_flight().await == 1).await;
    drop(wire);
    assert_eq!(crate::env::soon(noticed.recv()).await, Some(true));
    until("a line", async || lines(&env).len() == 1).await;
    assert_eq!(lines(&env)[0]["status"], 499);
    assert_eq!(env.in_flight().await, 0);
}

//! What reaches the target and what comes back (kp-37, kp-39 to kp-41, kp-52).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::backend::Backend;
use crate::env::{Env, soon};

#[tokio::test]
async fn what_the_target_sees() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send(
        "GET /test?p1=a;b;c&p2=%x&p3=ok HTTP/1.1\r\nHost: custom.example.com:81\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Custom: kept\r\n\
         Connection: X-Hop, keep-alive\r\nX-Hop: gone\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n",
    )
    .await;
    let body = soon(wire.answer()).await.body;
    let mut lines: Vec<_> = body.lines().collect();
    assert_eq!(lines.remove(0), "GET /test?p1=a;b;c&p2=%x&p3=ok HTTP/1.1");
    let id = lines.iter().position(|line| line.starts_with("x-request-id: ")).unwrap();
    assert_eq!(lines.remove(id).len(), "x-request-id: ".len() + 32);
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "host: custom.example.com:81",
            "te: trailers",
            "x-custom: kept",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: custom.example.com:81",
            "x-forwarded-port: 81",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
        ]
    );
}

#[tokio::test]
async fn a_given_request_id_is_kept() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: mine-1\r\n\r\n").await;
    assert!(soon(wire.answer()).await.body.contains("x-request-id: mine-1\n"));
}

#[tokio::test]
async fn absolute_requests_lose_their_host_to_the_header() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET http://real.example.com/a%2Fb?c HTTP/1.1\r\nHost: other\r\n\r\n").await;
    let body = soon(wire.answer()).await.body;
    assert!(body.starts_with("GET /a%2Fb?c HTTP/1.1\nhost: real.example.com\n"), "{body}");
    wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(soon(wire.answer()).await.body.starts_with("OPTIONS * HTTP/1.1\n"));
}

#[tokio::test]
async fn bodies_of_both_kinds_arrive_with_trailers() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let body = String::from_utf8(seen.body.clone()).unwrap();
            let framing = seen.header("content-length").or(seen.header("transfer-encoding")).unwrap();
            conn.ok(&format!("{framing}|{body}|{}", seen.trailers)).await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    soon(wire.answer()).await.is(200, "5|hello|");
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n").await;
    soon(wire.answer()).await.is(200, "chunked|hello|X-Sum: 1");
}

#[tokio::test]
async fn response_trailers_reach_a_client_that_takes_them() {
    let app = Backend::talking(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\n\r\n").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    answer.is(200, "hi");
    assert_eq!(answer.trailers.to_ascii_lowercase(), "x-sum: 9\r\n");
    assert!(!answer.head.contains("x-hop"), "{}", answer.head);
}

#[tokio::test]
async fn events_arrive_before_the_stream_ends() {
    let (go_on, mut wait) = tokio::sync::mpsc::channel::<()>(1);
    let app = Backend::talking({
        let waits = std::sync::Arc::new(tokio::sync::Mutex::new(()));
        let (sender, receiver) = tokio::sync::mpsc::channel::<()>(1);
        // The test's channel is moved into the one connection there is.
        let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
        tokio::spawn(async move {
            while wait.recv().await.is_some() {
                sender.send(()).await.unwrap();
            }
        });
        move |mut conn| {
            let (receiver, waits) = (receiver.clone(), waits.clone());
            async move {
                let _one = waits.lock().await;
                conn.request().await;
                conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n").await;
                receiver.lock().await.recv().await;
                conn.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.read_until("data: 1\n\n").await;
    assert_eq!(env.in_flight().await, 1, "in flight until the last byte");
    go_on.send(()).await.unwrap();
    wire.read_until("data: 2\n\n").await;
    wire.read_until("0\r\n\r\n").await;
    crate::env::until("nothing in flight", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn uploads_stream_before_they_end() {
    let app = Backend::talking(|mut conn| async move {
        conn.head().await;
        assert_eq!(conn.take(5).await.unwrap(), b"first");
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
        // Reads on, as an orderly server does.
        assert_eq!(conn.take(5).await.unwrap(), b"later");
        conn.request().await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst").await;
    soon(wire.answer()).await.is(200, "early");
    wire.send("later").await;
}

#[tokio::test]
async fn head_and_bodiless_answers() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            conn.send(match seen.path() {
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 299 Special Case\r\nContent-Length: 0\r\n\r\n",
            })
            .await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("HEAD /head HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = soon(wire.head_answer()).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
    assert_eq!(wire.get("/304").await.status, 304);
    assert_eq!(wire.get("/204").await.status, 204);
    assert!(wire.get("/299").await.head.starts_with("http/1.1 299 special case\r\n"));
}

#[tokio::test]
async fn http_1_0_clients_are_answered_in_their_way() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            assert!(seen.line.ends_with("HTTP/1.1") && seen.header("host").is_some(), "{seen:?}");
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    answer.is(200, "hello");
    // The version of an answer is that of whoever sends it (RFC 9110, section 6.2); what 1.0 does not know is not in it.
    assert!(answer.head.starts_with("http/1.1 200") && answer.header("transfer-encoding").is_none(), "{}", answer.head);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn an_http_1_0_target_is_not_the_clients_business() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.0 200 OK\r\nServer: old\r\n\r\nuntil the end").await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    let answer = wire.get("/").await;
    answer.is(200, "until the end");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    wire.get("/").await.is(200, "until the end");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_only_when_somebody_takes_the_body() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("hello").await;
    assert!(soon(wire.answer()).await.body.ends_with("hello"));

    env.serve(&[]).await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 503);
}

#[tokio::test]
async fn a_refused_upload_is_read_so_that_the_refusal_can_be() {
    let env = Env::new().await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n").await;
    wire.stream.write_all(&vec![b'x'; 200_000]).await.unwrap();
    assert_eq!(soon(wire.answer()).await.status, 404);
    assert_eq!(wire.get("/").await.status, 404);
}

#[tokio::test]
async fn a_target_that_does_not_answer_in_time_is_504() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.path() == "/quick" {
                conn.ok("quick").await;
            }
        }
    })
    .await;
    let mut env = Env::with(|options| options.limits.response_header = Duration::from_millis(150)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.get("/quick").await.is(200, "quick");
    assert_eq!(wire.get("/slow").await.status, 504);
    wire.get("/quick").await.is(200, "quick");
    crate::env::until("nothing in flight", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn a_slow_upload_is_not_a_slow_answer() {
    let app = Backend::echo().await;
    let mut env = Env::with(|options| options.limits.response_header = Duration::from_millis(300)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await; // The time is what is tested.
        wire.send("x").await;
    }
    assert!(soon(wire.answer()).await.body.ends_with("xxxxxxxx"));
}

#[tokio::test]
async fn slow_and_silent_clients_are_let_go() {
    let env = Env::with(|options| {
        options.limits.header_read = Duration::from_millis(100);
        options.limits.idle = Duration::from_millis(100);
    })
    .await;
    let (mut silent, mut slow) = (env.connect().await, env.connect().await);
    slow.send("GET / HTTP/1.1\r\nHos").await;
    assert!(silent.is_closed().await);
    assert!(slow.is_closed().await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(soon(wire.try_answer(false)).await.is_err());
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let app = Backend::saying("no").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-A: 1\r\n".repeat(200))).await;
    assert_eq!(soon(wire.answer()).await.status, 431);
    let mut wire = env.connect().await;
    wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\nX-A: {}\r\n\r\n", "x".repeat(80 * 1024))).await;
    assert_eq!(soon(wire.answer()).await.status, 431);
}

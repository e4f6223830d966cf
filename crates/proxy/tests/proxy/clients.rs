//! Clients that are told apart, and clients that behave oddly.

use std::time::Duration;

use coracle_proxy::Trust;
use tokio::io::AsyncWriteExt;

use crate::backend::Backend;
use crate::env::{Env, Wire, soon, until};

#[tokio::test]
async fn the_proxy_header_names_the_client() {
    let app = Backend::echo().await;
    let mut env = Env::with(|options| options.listeners[0].proxy_protocol = Some(Trust::parse(["127.0.0.0/8"]).unwrap())).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    // In pieces, and with the request behind it at once.
    wire.send("PROXY TCP4 192.0.2.7 192.0.").await;
    wire.send("2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let body = soon(wire.answer()).await.body;
    assert!(body.contains("x-forwarded-for: 192.0.2.7\n") && body.contains("x-real-ip: 192.0.2.7\n"), "{body}");
    assert!(wire.get("/").await.body.contains("x-forwarded-for: 192.0.2.7\n"));
    // Who may send it has to.
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_proxy_header_that_nobody_asked_for_is_no_request() {
    let env = Env::new().await;
    let mut wire = env.connect().await;
    wire.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 400);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_its_client() {
    let app = Backend::echo().await;
    let mut env = Env::with(|options| options.forwarding.trust = Trust::parse(["127.0.0.1"]).unwrap()).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n").await;
    let body = soon(wire.answer()).await.body;
    assert!(body.contains("x-forwarded-for: 192.0.2.7, 127.0.0.1\n") && body.contains("x-forwarded-proto: https\n"), "{body}");
}

#[tokio::test]
async fn a_client_has_no_more_connections_than_it_may_have() {
    let app = Backend::saying("hello").await;
    let mut env = Env::with(|options| options.max_connections_per_client = Some(2)).await;
    env.serve(&[("t", app.address)]).await;
    let (mut first, mut second) = (env.connect().await, env.connect().await);
    first.get("/").await.is(200, "hello");
    second.get("/").await.is(200, "hello");
    assert!(env.connect().await.is_closed().await);
    drop(first);
    let http = env.http();
    until("there is room again", async || {
        let mut wire = Wire::to(http).await;
        drop(wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await);
        wire.try_answer(false).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn what_was_a_request_and_is_none_any_more_is_a_connection_still() {
    let app = crate::upgrade::echo_socket().await;
    let mut env = Env::with(|options| options.max_connections_per_client = Some(1)).await;
    env.serve(&[("t", app.address)]).await;
    let mut socket = crate::upgrade::open(env.http()).await;
    crate::upgrade::echoes(&mut socket, "hello").await;
    assert!(env.connect().await.is_closed().await);
    drop(socket);
    let http = env.http();
    until("there is room again", async || {
        let mut wire = Wire::to(http).await;
        drop(wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await);
        !wire.read_any().await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_client_may_close_its_side_after_its_last_request() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        // Later than the client's end of stream.
        tokio::time::sleep(Duration::from_millis(50)).await;
        conn.ok("hello").await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    wire.stream.shutdown().await.unwrap();
    soon(wire.answer()).await.is(200, "hello");
}

#[tokio::test]
async fn a_body_that_does_not_wait_to_be_asked_for_gives_the_answer_its_time() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        // Longer than a target is given to ask for a body.
        tokio::time::sleep(Duration::from_millis(600)).await;
        conn.ok("hello").await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi").await;
    soon(wire.answer()).await.is(200, "hello");
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let app = Backend::talking(|mut conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(conn.take(2).await.unwrap(), b"hi");
        conn.ok("hello").await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.read_until("\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(wire.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("hi").await;
    soon(wire.answer()).await.is(200, "hello");
}

#[tokio::test]
async fn a_body_that_is_none_or_does_not_come_is_refused() {
    let app = Backend::talking(|mut conn| async move { drop(conn.request().await) }).await;
    let mut env = Env::with(|options| options.limits.response_header = Duration::from_millis(200)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 400);
    assert!(wire.is_closed().await);
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhi").await;
    assert_eq!(soon(wire.answer()).await.status, 408);
}

#[tokio::test]
async fn a_body_that_trickles_is_refused_and_one_that_takes_its_time_is_not() {
    let app = Backend::answering(|seen| seen.body.len().to_string()).await;
    let mut env = Env::with(|options| {
        options.limits.body_grace = Duration::from_millis(300);
        options.limits.body_rate = 10_000;
    })
    .await;
    env.serve(&[("t", app.address)]).await;
    // Each piece comes in time; all of them would take five seconds.
    for (piece, pieces, expected) in [("x".repeat(10), 100, 408), ("x".repeat(5_000), 8, 200)] {
        let mut wire = env.connect().await;
        wire.send(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", piece.len() * pieces)).await;
        let mut sent = 0;
        let mut pauses = tokio::time::interval(Duration::from_millis(50));
        while sent < pieces && wire.stream.write_all(piece.as_bytes()).await.is_ok() {
            sent += 1;
            // Whoever is refused gets to hear it.
            tokio::select! {
                _ = pauses.tick() => (),
                Ok(()) = wire.stream.readable() => break,
            }
        }
        assert_eq!(soon(wire.answer()).await.status, expected);
        assert!(expected == 200 || sent < pieces, "it was heard to its end");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_stay() {
    let app = Backend::answering(|_| "x".repeat(32 * 1024 * 1024)).await;
    let mut env = Env::with(|options| options.limits.stall = Duration::from_millis(200)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("in flight", async || env.in_flight().await == 1).await;
    until("given up", async || env.in_flight().await == 0).await;
    assert!(soon(wire.try_answer(false)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_every_framing_arrive_whole_both_ways() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let body = String::from_utf8(seen.body).unwrap();
            if seen.line.contains("fixed") {
                conn.ok(&body).await;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for piece in body.as_bytes().chunks(777) {
                conn.send(&format!("{:x};ext=1\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap())).await;
            }
            conn.send("0\r\n\r\n").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let body: String = (0..400_000_u32).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    for path in ["/fixed", "/chunked"] {
        let mut wire = env.connect().await;
        wire.send(&format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        soon(wire.answer()).await.is(200, &body);
        wire.send(&format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        for piece in body.as_bytes().chunks(30_000) {
            wire.send(&format!("{:X}\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap())).await;
        }
        wire.send("0\r\n\r\n").await;
        soon(wire.answer()).await.is(200, &body);
        wire.send(&format!("POST {path} HTTP/1.0\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        soon(wire.answer()).await.is(200, &body);
    }
}

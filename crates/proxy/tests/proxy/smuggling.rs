//! Requests that two readers could take apart in two ways.

mod downgrade;
mod mutations;
mod oracle;
mod recorder;
mod resources;
mod responses;
mod shapes;
mod snapshots;
mod tables;

use std::sync::atomic::Ordering;

use crate::backend::Backend;
use crate::env::{Env, soon};

#[track_caller]
fn refused(status: u16, request: &str, answer: &crate::env::Answer) {
    assert_eq!(answer.status, status, "{request:?} was answered {answer:?}");
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_reach_nobody() {
    let app = Backend::saying("reached").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    for (status, request) in [
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5x\r\n\r\nhello"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\n X: folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: user@h\r\n\r\n"),
        (400, "GET /\u{0}x HTTP/1.1\r\nHost: h\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (405, "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n"),
    ] {
        let mut wire = env.connect().await;
        wire.send(request).await;
        let answer = soon(wire.answer()).await;
        refused(status, request, &answer);
    }
    assert_eq!(app.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn framing_is_looked_at_on_every_request_of_a_connection() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n\r\nContent-Length: 44\r\n\r\n0\r\n\r\n";
    for _ in 0..3 {
        wire.get("/").await;
        // In pieces, and with a body that looks like a header.
        for piece in [&chunked[..30], &chunked[30..70], &chunked[70..]] {
            wire.send(piece).await;
        }
        assert!(soon(wire.answer()).await.body.ends_with("\r\nContent-Length: 44\r\n"));
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(soon(wire.answer()).await.body.ends_with("hi"));
    }
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 400);
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = Backend::answering(|seen| seen.path().to_owned()).await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    for path in ["/1", "/2", "/3"] {
        soon(wire.answer()).await.is(200, path);
    }
}

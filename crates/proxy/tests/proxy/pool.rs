//! Connections to targets: used again, never trusted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::env::{Env, soon};

#[tokio::test]
async fn connections_are_used_again_for_what_may_be_repeated() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    for _ in 0..5 {
        wire.get("/").await.is(200, "hello");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").await;
        soon(wire.answer()).await.is(200, "hello");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn unused_connections_are_closed_in_time() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let app = Backend::talking(move |mut conn| {
        let open = Arc::clone(&counted);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            while conn.request().await.is_some() {
                conn.ok("hello").await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let mut env = Env::with(|options| options.limits.upstream_idle = Duration::from_millis(200)).await;
    env.serve(&[("t", app.address)]).await;
    env.get("h", "/").await.is(200, "hello");
    assert_eq!(open.load(Ordering::SeqCst), 1);
    crate::env::until("closed", async || open.load(Ordering::SeqCst) == 0).await;
}

/// The race that loses requests elsewhere: the target closes a connection just as the proxy uses it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_under_a_request_loses_nothing() {
    let posts = Arc::new(AtomicUsize::new(0));
    for silently in [false, true] {
        let counted = Arc::clone(&posts);
        let app = Backend::talking(move |mut conn| {
            let posts = Arc::clone(&counted);
            async move {
                // After each k-th answer the connection is closed, with or without having announced it; or right after
                // the next request has been read.
                for _ in 0..1 + conn.number % 3 {
                    let Some(seen) = conn.request().await else { return };
                    if seen.line.starts_with("POST") {
                        posts.fetch_add(1, Ordering::SeqCst);
                    }
                    conn.ok("hello").await;
                }
                if silently {
                    conn.head().await;
                }
            }
        })
        .await;
        let mut env = Env::new().await;
        env.serve(&[("t", app.address)]).await;
        let mut wires = Vec::new();
        for number in 0..8 {
            let http = env.http();
            wires.push(tokio::spawn(async move {
                let mut wire = crate::env::Wire::to(http).await;
                for round in 0..100 {
                    if (round + number) % 4 == 0 {
                        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
                        soon(wire.answer()).await.is(200, "hello");
                    } else {
                        wire.get("/").await.is(200, "hello");
                    }
                }
            }));
        }
        for wire in wires {
            wire.await.unwrap();
        }
    }
    assert_eq!(posts.load(Ordering::SeqCst), 2 * 8 * 25, "each exactly once");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_passed_over() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("gone", gone), ("here", app.address)]).await;
    for _ in 0..4 {
        assert_eq!(env.get("h", "/").await.status, 200);
        let mut wire = env.connect().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
        assert!(soon(wire.answer()).await.body.ends_with("abc"));
    }
    env.serve(&[("gone", gone)]).await;
    assert_eq!(env.get("h", "/").await.status, 502);
}

#[tokio::test]
async fn a_killed_backend_costs_nothing_that_can_be_repeated() {
    let stays = Backend::saying("hello").await;
    let dies = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("dies", dies.address), ("stays", stays.address)]).await;
    let mut wire = env.connect().await;
    for _ in 0..4 {
        wire.get("/").await.is(200, "hello");
    }
    drop(dies);
    for _ in 0..10 {
        wire.get("/").await.is(200, "hello");
    }
}

#[tokio::test]
async fn a_post_that_breaks_off_is_not_repeated() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(soon(wire.answer()).await.status, 502);
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

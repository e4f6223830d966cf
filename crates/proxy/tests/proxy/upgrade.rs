//! WebSockets and whatever else a connection may become (kp-42, kp-46).

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::{Backend, Conn};
use crate::env::{Env, Wire, ids, soon, until};

const ASK: &str =
    "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

/// Changes, greets at once, and then echoes.
pub async fn echo_socket() -> Backend {
    Backend::talking(|mut conn: Conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.header("upgrade").is_none() {
                conn.ok("plain").await;
                continue;
            }
            assert_eq!(seen.header("connection"), Some("upgrade"));
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi").await;
            let (mut read, mut write) = conn.stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            return;
        }
    })
    .await
}

pub async fn open(http: std::net::SocketAddr) -> Wire {
    let mut wire = Wire::to(http).await;
    wire.send(ASK).await;
    let head = wire.read_until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(
        head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    wire.read_until("hi").await;
    wire
}

pub async fn echoes(wire: &mut Wire, text: &str) {
    wire.send(text).await;
    assert_eq!(wire.read_until(text).await, text);
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let app = echo_socket().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = open(env.http()).await;
    echoes(&mut wire, "hello").await;
    assert_eq!((env.in_flight().await, env.upgraded().await), (0, 1));
    // One side may be through before the other.
    wire.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(wire.stream.read_to_end(&mut rest)).await.unwrap();
    until("nothing upgraded", async || env.upgraded().await == 0).await;
}

#[tokio::test]
async fn a_target_may_decline() {
    let app = Backend::saying("no").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send(ASK).await;
    soon(wire.answer()).await.is(200, "no");
    wire.get("/").await.is(200, "no");
}

#[tokio::test]
async fn a_change_that_nobody_asked_for_is_a_bad_answer() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
        conn.request().await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    assert_eq!(env.get("h", "/").await.status, 502);
}

#[tokio::test]
async fn a_drain_closes_them_within_a_second() {
    let app = echo_socket().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = open(env.http()).await;
    env.serve(&[]).await;
    echoes(&mut wire, "still here").await;
    let begun = Instant::now();
    env.client().drain(&ids(&["t"]), Duration::from_secs(5)).await.unwrap();
    assert!(wire.is_closed().await);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(env.upgraded().await, 0);
}

#[tokio::test]
async fn a_stopping_proxy_lets_them_live_until_the_deadline() {
    let app = echo_socket().await;
    let mut env = Env::with(|options| options.drain = Duration::from_millis(500)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = open(env.http()).await;
    let begun = Instant::now();
    let proxy = env.proxy.take().unwrap();
    let http = proxy.addresses()[0];
    let ends = tokio::spawn(proxy.shutdown());
    until("refused", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    echoes(&mut wire, "still here").await;
    soon(ends).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(wire.is_closed().await);
}

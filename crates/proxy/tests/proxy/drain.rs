//! Taking targets away (kp-44 to kp-46), and the proxy itself.

use std::time::{Duration, Instant};

use crate::backend::{Backend, Conn};
use crate::env::{Env, Wire, ids, soon, until};

/// Answers when told to.
async fn backend_at_will() -> (Backend, tokio::sync::watch::Sender<bool>) {
    let (go, gone) = tokio::sync::watch::channel(false);
    let backend = Backend::talking(move |mut conn: Conn| {
        let mut gone = gone.clone();
        async move {
            while conn.request().await.is_some() {
                if gone.wait_for(|gone| *gone).await.is_err() {
                    return;
                }
                conn.ok("old").await;
            }
        }
    })
    .await;
    (backend, go)
}

async fn wires_in_flight(env: &Env, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = env.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        wires.push(wire);
    }
    until("in flight", async || env.in_flight().await == count).await;
    wires
}

#[tokio::test]
async fn requests_in_flight_complete() {
    let (old, go) = backend_at_will().await;
    let new = Backend::saying("new").await;
    let mut env = Env::new().await;
    env.serve(&[("old", old.address)]).await;
    let mut wires = wires_in_flight(&env, 3).await;
    env.serve(&[("new", new.address)]).await;
    let client = env.client();
    let drain = tokio::spawn(async move { client.drain(&ids(&["old"]), Duration::from_secs(5)).await.unwrap() });
    env.get("h", "/").await.is(200, "new");
    assert!(!drain.is_finished());
    go.send(true).unwrap();
    for wire in &mut wires {
        soon(wire.answer()).await.is(200, "old");
    }
    assert_eq!(soon(drain).await.unwrap().cut_off, 0);
    for wire in &mut wires {
        wire.get("/").await.is(200, "new");
    }
}

#[tokio::test]
async fn requests_that_take_too_long_get_504_and_not_a_reset() {
    let (old, _go) = backend_at_will().await;
    let new = Backend::saying("new").await;
    let mut env = Env::new().await;
    env.serve(&[("old", old.address)]).await;
    let mut wires = wires_in_flight(&env, 20).await;
    env.serve(&[("new", new.address)]).await;
    let drained = env.client().drain(&ids(&["old"]), Duration::from_millis(10)).await.unwrap();
    assert_eq!(drained.cut_off, 20);
    assert_eq!(env.in_flight().await, 0);
    for wire in &mut wires {
        assert_eq!(soon(wire.answer()).await.status, 504);
        wire.get("/").await.is(200, "new");
    }
}

#[tokio::test]
async fn an_answer_counts_until_its_last_byte_and_is_cut_at_the_deadline() {
    let old = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("old", old.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.read_until("half").await;
    env.serve(&[]).await;
    let begun = Instant::now();
    let drained = env.client().drain(&ids(&["old"]), Duration::from_millis(200)).await.unwrap();
    assert_eq!(drained.cut_off, 1);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_drained_target_of_a_held_service_serves_again_when_it_opens() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    let targets = [("t", app.address)];
    env.serve(&targets).await;
    env.get("h", "/").await.is(200, "hello");
    env.admit(coracle_proxy::table::Admission::Hold { deadline_ms: 20_000, max_waiting: 10 }, &targets).await;
    env.client().drain(&ids(&["t"]), Duration::ZERO).await.unwrap();
    env.serve(&targets).await;
    env.get("h", "/").await.is(200, "hello");
}

/// What a later table has brought back is not what is drained, although it has the same id and the same address.
#[tokio::test]
async fn a_target_that_comes_back_while_it_is_drained_keeps_what_it_gets() {
    let (app, go) = backend_at_will().await;
    let mut env = Env::new().await;
    let targets = [("t", app.address)];
    env.serve(&targets).await;
    let mut before = wires_in_flight(&env, 2).await;
    env.serve(&[]).await;
    let client = env.client();
    let drain = tokio::spawn(async move { client.drain(&ids(&["t"]), Duration::from_secs(4)).await.unwrap() });
    // It has begun when a table no longer finds the old one.
    let mut after = env.connect().await;
    until("a new one", async || {
        env.serve(&targets).await;
        env.client().targets().await.unwrap().len() == 2
    })
    .await;
    after.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("in flight", async || env.in_flight().await == 3).await;
    assert_eq!(soon(drain).await.unwrap().cut_off, 2);
    for wire in &mut before {
        assert_eq!(soon(wire.answer()).await.status, 504);
    }
    assert_eq!(env.in_flight().await, 1);
    // Nor is it drained by somebody who comes too late.
    assert_eq!(env.client().drain(&ids(&["t"]), Duration::ZERO).await.unwrap().cut_off, 0);
    go.send(true).unwrap();
    soon(after.answer()).await.is(200, "old");
}

#[tokio::test]
async fn draining_what_nobody_knows_is_done_at_once() {
    let env = Env::new().await;
    assert_eq!(env.client().drain(&ids(&["who"]), Duration::from_secs(60)).await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn a_stopping_proxy_serves_its_connections_once_more() {
    let (app, go) = backend_at_will().await;
    let mut env = Env::new().await;
    let http = env.http();
    env.serve(&[("t", app.address)]).await;
    let mut idle = env.connect().await;
    let mut busy = wires_in_flight(&env, 1).await.remove(0);
    env.client().stop().await.unwrap();
    until("refused", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    go.send(true).unwrap();
    let answer = soon(busy.answer()).await;
    answer.is(200, "old");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(busy.is_closed().await);
    let answer = idle.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let begun = Instant::now();
    soon(env.proxy.take().unwrap().shutdown()).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody is left to wait for");
}

#[tokio::test]
async fn a_stopping_proxy_ends_at_its_deadline() {
    let (app, _go) = backend_at_will().await;
    let mut env = Env::with(|options| options.drain = Duration::from_millis(200)).await;
    env.serve(&[("t", app.address)]).await;
    let mut idle = env.connect().await;
    let mut busy = wires_in_flight(&env, 1).await.remove(0);
    let (_, answer) = tokio::join!(soon(env.proxy.take().unwrap().shutdown()), soon(busy.answer()));
    assert_eq!(answer.status, 504);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn requests_held_when_the_proxy_ends_are_told_so() {
    let mut env = Env::with(|options| options.drain = Duration::from_millis(100)).await;
    env.admit(coracle_proxy::table::Admission::Hold { deadline_ms: 60_000, max_waiting: 10 }, &[]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("it waits", async || env.waiting().await == 1).await;
    let (_, answer) = tokio::join!(soon(env.proxy.take().unwrap().shutdown()), soon(wire.answer()));
    assert_eq!(answer.status, 503);
}

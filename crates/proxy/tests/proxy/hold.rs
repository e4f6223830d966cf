//! Requests that wait while a service is being replaced.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_proxy::table::Admission;

use crate::backend::{Backend, Conn};
use crate::env::{Env, Wire, soon, until};

fn hold(deadline_ms: u64, max_waiting: usize) -> Admission {
    Admission::Hold { deadline_ms, max_waiting }
}

#[tokio::test]
async fn held_requests_go_on_in_their_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    // One connection after the other, as they were opened: what is seen does not depend on which task is woken first.
    let (line, in_line) = tokio::sync::mpsc::unbounded_channel::<Conn>();
    let in_line = Arc::new(tokio::sync::Mutex::new(in_line));
    let app = Backend::talking(move |conn| {
        line.send(conn).unwrap();
        let (seen, in_line) = (Arc::clone(&seen), Arc::clone(&in_line));
        async move {
            let mut in_line = in_line.lock().await;
            let mut conn = in_line.recv().await.unwrap();
            let request = conn.request().await.unwrap();
            seen.lock().unwrap().push(request.path().to_owned());
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.admit(hold(20_000, 100), &[]).await;
    let mut wires = Vec::new();
    for number in 0..40 {
        let mut wire = env.connect().await;
        wire.send(&format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        until("it waits", async || env.waiting().await == number + 1).await;
        wires.push(wire);
    }
    env.serve(&[("t", app.address)]).await;
    for wire in &mut wires {
        soon(wire.answer()).await.is(200, "hello");
    }
    let expected: Vec<_> = (0..40).map(|number| format!("/{number}")).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(env.waiting().await, 0);
}

#[tokio::test]
async fn a_hold_ends_at_its_deadline_and_has_a_limit() {
    let mut env = Env::new().await;
    env.admit(hold(150, 1), &[]).await;
    let mut first = env.connect().await;
    first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("it waits", async || env.waiting().await == 1).await;
    let second = env.get("h", "/").await;
    assert_eq!((second.status, second.header("retry-after")), (503, Some("1")));
    assert_eq!(soon(first.answer()).await.status, 504);
    assert_eq!(env.waiting().await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place() {
    let mut env = Env::new().await;
    env.admit(hold(20_000, 1), &[]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("it waits", async || env.waiting().await == 1).await;
    drop(wire);
    until("nobody waits", async || env.waiting().await == 0).await;
}

#[tokio::test]
async fn held_requests_learn_that_their_service_is_gone_or_closed() {
    let mut env = Env::new().await;
    for (next, status) in [(Some(Admission::Closed { message: "no".into(), retry_after_s: 1 }), 503), (None, 404)] {
        env.admit(hold(20_000, 10), &[]).await;
        let mut wire = env.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("it waits", async || env.waiting().await == 1).await;
        match next {
            Some(closed) => env.admit(closed, &[]).await,
            None => env.publish(crate::env::table(&[], &[])).await,
        }
        assert_eq!(soon(wire.answer()).await.status, status);
    }
}

/// As `recreate` does it: hold, drain, stop, start, open. The uploads go through it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_replaced_under_load_without_two_at_once() {
    let mut env = Env::new().await;
    let http = env.http();
    let mut app = Some(Backend::echo().await);
    env.serve(&[("v0", app.as_ref().unwrap().address)]).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.is_cancelled() {
                    let mut wire = Wire::to(http).await;
                    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
                    assert_eq!(soon(wire.answer()).await.status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for version in 1..=5 {
        let old = format!("v{}", version - 1);
        env.admit(hold(20_000, 1000), &[]).await;
        let drained = env.client().drain(&crate::env::ids(&[&old]), Duration::from_secs(10)).await.unwrap();
        assert_eq!(drained.cut_off, 0);
        drop(app.take());
        until("requests wait", async || env.waiting().await == 8).await;
        app = Some(Backend::echo().await);
        env.serve(&[(&format!("v{version}"), app.as_ref().unwrap().address)]).await;
        until("nobody waits", async || env.waiting().await == 0).await;
    }
    stop.cancel();
    for client in clients {
        assert!(client.await.unwrap() >= 5);
    }
    drop(app);
}

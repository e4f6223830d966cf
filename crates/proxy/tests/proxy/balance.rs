//! Who answers: shares, cookies, health, ejections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_proxy::control::TargetState;
use coracle_proxy::table::{Admission, Balance, Ejection, HealthCheck, Service, ServiceId, Sticky, Table, Target};
use tokio::net::TcpListener;

use crate::backend::{Backend, Conn};
use crate::env::{Answer, Env, soon, table, until};
use crate::load::Load;

fn service(targets: &[(&str, SocketAddr, u32)]) -> Service {
    let target = |(id, address, weight): &(&str, SocketAddr, u32)| Target { weight: *weight, ..Target::new(*id, *address) };
    Service::new(Admission::Open, targets.iter().map(target).collect())
}

/// This service on every host.
fn serving(service: Service) -> Table {
    let mut table = table(&[("*", "/", "app")], &[]);
    table.services.insert(ServiceId("app".into()), service);
    table
}

fn health() -> HealthCheck {
    HealthCheck { path: "/health?a=b".into(), interval_ms: 20, timeout_ms: 2000, status: None, host: Some("check.me".into()) }
}

async fn state(env: &Env, id: &str) -> TargetState {
    let status = env.client().status().await.unwrap();
    status.targets.iter().find(|target| target.id.0 == id).unwrap().state
}

async fn is(env: &Env, id: &str, wanted: TargetState) {
    until(&format!("{id} is {wanted:?}"), async || state(env, id).await == wanted).await;
}

#[tokio::test]
async fn a_canary_gets_its_share_over_all_workers() {
    let (old, new) = (Backend::saying("old").await, Backend::saying("new").await);
    let mut env = Env::with(|options| options.workers = 4).await;
    env.publish(serving(service(&[("old", old.address, 9), ("new", new.address, 1)]))).await;
    // As many connections as are needed for each worker to have some.
    for _ in 0..8 {
        let mut wire = env.connect().await;
        for _ in 0..50 {
            assert_eq!(wire.get("/").await.status, 200);
        }
    }
    let canary = new.requests.load(Ordering::SeqCst);
    assert!((32..=48).contains(&canary), "{canary} of 400");
}

#[tokio::test]
async fn a_slow_target_gets_less_than_its_turns() {
    let quick = Backend::saying("quick").await;
    // It holds on to what it gets until the test ends.
    let slow = Backend::talking(|mut conn: Conn| async move {
        conn.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut env = Env::new().await;
    let mut least = service(&[("quick", quick.address, 1), ("slow", slow.address, 1)]);
    least.balance = Balance::LeastLoaded;
    env.publish(serving(least)).await;
    let mut stuck = env.connect().await;
    loop {
        stuck.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
        tokio::select! {
            answer = stuck.answer() => answer.is(200, "quick"),
            () = until("it is stuck", async || slow.connections.load(Ordering::SeqCst) > 0) => break,
        }
    }
    let mut wire = env.connect().await;
    for _ in 0..100 {
        wire.get("/").await.is(200, "quick");
    }
}

async fn get_with(env: &Env, cookie: &str) -> Answer {
    let mut wire = env.connect().await;
    wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n")).await;
    soon(wire.answer()).await
}

#[tokio::test]
async fn a_cookie_outlives_tables_but_not_its_target() {
    let (a, b, c) = (Backend::saying("a").await, Backend::saying("b").await, Backend::saying("c").await);
    let mut env = Env::new().await;
    let sticky = |targets: &[(&str, SocketAddr, u32)]| {
        let mut service = service(targets);
        service.sticky =
            Some(Sticky { cookie: "lb".into(), secure: true, http_only: false, same_site: None, max_age_s: Some(60) });
        serving(service)
    };
    env.publish(sticky(&[("a", a.address, 1), ("b", b.address, 1)])).await;
    let first = env.get("h", "/").await;
    let set = first.header("set-cookie").unwrap();
    let (cookie, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " path=/; max-age=60; secure");
    assert!(!set.contains("127.0.0.1"));
    let weight = |name: &str| u32::from(first.body != name);
    for weights in [(1, 1), (weight("a"), weight("b"))] {
        // What was its target gets nothing but it, in the end.
        env.publish(sticky(&[("a", a.address, weights.0), ("c", c.address, 1), ("b", b.address, weights.1)])).await;
        for _ in 0..5 {
            let again = get_with(&env, &format!("x=y; {cookie}")).await;
            again.is(200, &first.body);
            assert_eq!(again.header("set-cookie"), None);
        }
    }
    env.publish(sticky(&[("c", c.address, 1)])).await;
    let moved = get_with(&env, cookie).await;
    moved.is(200, "c");
    assert!(moved.header("set-cookie").is_some_and(|set| !set.starts_with(cookie)));
}

/// Serves, and says about its health what it is told to.
async fn with_health(name: &'static str, healthy: &Arc<AtomicBool>) -> Backend {
    let healthy = Arc::clone(healthy);
    Backend::talking(move |mut conn| {
        let healthy = Arc::clone(&healthy);
        async move {
            while let Some(seen) = conn.request().await {
                match seen.path() {
                    "/health?a=b" if !healthy.load(Ordering::SeqCst) || seen.header("host") != Some("check.me") => {
                        conn.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
                    }
                    _ => conn.ok(name).await,
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_take_a_target_out_and_back_and_no_request_fails() {
    let flags = [Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true))];
    let (a, b) = (with_health("a", &flags[0]).await, with_health("b", &flags[1]).await);
    let mut env = Env::new().await;
    let mut checked = service(&[("a", a.address, 1), ("b", b.address, 1)]);
    checked.health = Some(health());
    env.publish(serving(checked.clone())).await;
    let load = Load::on(env.http(), 4);
    for _ in 0..2 {
        flags[0].store(false, Ordering::SeqCst);
        is(&env, "a", TargetState::Down).await;
        for _ in 0..10 {
            env.get("h", "/").await.is(200, "b");
        }
        // Another table does not change what is known.
        env.publish(serving(checked.clone())).await;
        assert_eq!(state(&env, "a").await, TargetState::Down);
        env.get("h", "/").await.is(200, "b");
        flags[0].store(true, Ordering::SeqCst);
        is(&env, "a", TargetState::Up).await;
        until("it answers", async || env.get("h", "/").await.body == "a").await;
    }
    load.end().await;
    // Without checks there is nothing against it.
    flags[0].store(false, Ordering::SeqCst);
    is(&env, "a", TargetState::Down).await;
    checked.health = None;
    env.publish(serving(checked)).await;
    assert_eq!(state(&env, "a").await, TargetState::Up);
}

#[tokio::test]
async fn nobody_healthy_is_503_at_once() {
    let mut env = Env::new().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut checked = service(&[("a", closed, 1)]);
    checked.health = Some(health());
    env.publish(serving(checked.clone())).await;
    is(&env, "a", TargetState::Down).await;
    let answer = env.get("h", "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    // Back at the same address.
    let _app = Backend::on(TcpListener::bind(closed).await.unwrap(), |mut conn| async move {
        while conn.request().await.is_some() {
            conn.ok("back").await;
        }
    });
    is(&env, "a", TargetState::Up).await;
    env.get("h", "/").await.is(200, "back");
    // A held service is not asked, and begins healthy.
    checked.admission = Admission::Hold { deadline_ms: 1000, max_waiting: 10 };
    env.publish(serving(checked)).await;
    assert_eq!(state(&env, "a").await, TargetState::Up);
}

#[tokio::test]
async fn a_grpc_target_is_asked_for_a_connection() {
    let app = Backend::talking(|mut conn| async move { while conn.take(1).await.is_some() {} }).await;
    let address = app.address;
    let mut env = Env::new().await;
    let mut checked = service(&[("a", address, 1)]);
    (checked.health, checked.protocol) = (Some(health()), coracle_proxy::table::Protocol::H2c);
    env.publish(serving(checked)).await;
    until("it was asked", async || app.connections.load(Ordering::SeqCst) > 3).await;
    assert_eq!(state(&env, "a").await, TargetState::Up);
    drop(app);
    is(&env, "a", TargetState::Down).await;
}

#[tokio::test]
async fn a_target_that_fails_is_ejected_and_tried_again() {
    let fails = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&fails);
    let bad = Backend::talking(move |mut conn| {
        let fails = Arc::clone(&told);
        async move {
            while conn.request().await.is_some() {
                match fails.load(Ordering::SeqCst) {
                    true => conn.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await,
                    false => conn.ok("well").await,
                }
            }
        }
    })
    .await;
    let good = Backend::saying("good").await;
    let mut env = Env::new().await;
    let mut ejecting = service(&[("bad", bad.address, 1), ("good", good.address, 1)]);
    ejecting.ejection = Some(Ejection { failures: 3, for_ms: 50 });
    env.publish(serving(ejecting.clone())).await;
    let mut failures = 0;
    while state(&env, "bad").await != TargetState::Ejected {
        failures += usize::from(env.get("h", "/").await.status == 503);
        assert!(failures <= 3);
    }
    assert_eq!(failures, 3);
    env.publish(serving(ejecting.clone())).await;
    assert_eq!(state(&env, "bad").await, TargetState::Ejected);
    fails.store(false, Ordering::SeqCst);
    until("it is tried", async || env.get("h", "/").await.body == "well").await;
    is(&env, "bad", TargetState::Up).await;
    // Everybody fails: half of them stay.
    fails.store(true, Ordering::SeqCst);
    drop(good);
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(env.get("h", "/").await.status);
    }
    assert!(statuses.iter().all(|status| [502, 503].contains(status)), "{statuses:?}");
    let status = env.client().status().await.unwrap();
    let out = status.targets.iter().filter(|target| target.state == TargetState::Ejected).count();
    assert_eq!(out, 1);
}

#[tokio::test]
async fn a_new_target_is_said_to_start() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let mut env = Env::new().await;
    let mut slow = service(&[("a", a.address, 1), ("b", b.address, 1)]);
    slow.slow_start_ms = 3_600_000;
    env.publish(serving(slow.clone())).await;
    assert_eq!(state(&env, "a").await, TargetState::Starting);
    slow.slow_start_ms = 1;
    env.publish(serving(slow)).await;
    is(&env, "a", TargetState::Up).await;
    env.get("h", "/").await;
}

/// Instances die and come back under load; checks and ejections keep every request away from what is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_die_and_come_back_lose_no_request() {
    let well = Arc::new(AtomicBool::new(true));
    let stable = with_health("stable", &well).await;
    let mut dying = Some(with_health("dying", &well).await);
    let address = dying.as_ref().unwrap().address;
    let mut env = Env::new().await;
    let mut guarded = service(&[("stable", stable.address, 1), ("dying", address, 1)]);
    (guarded.health, guarded.ejection) = (Some(health()), Some(Ejection { failures: 3, for_ms: 20 }));
    env.publish(serving(guarded)).await;
    for _ in 0..3 {
        // A request that has just been sent may be lost with its instance; those after it may not.
        drop(dying.take());
        until("it is dead", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        let load = Load::on(env.http(), 4);
        is(&env, "dying", TargetState::Down).await;
        until("there was load", async || load.answered.load(Ordering::SeqCst) > 100).await;
        let listener = TcpListener::bind(address).await.unwrap();
        dying = Some(Backend::on(listener, |mut conn| async move {
            while conn.request().await.is_some() {
                conn.ok("dying").await;
            }
        }));
        is(&env, "dying", TargetState::Up).await;
        until("it answers again", async || env.get("h", "/").await.body == "dying").await;
        load.end().await;
    }
}

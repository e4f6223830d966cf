//! What a table has in common with the one before is not made anew; what has changed takes effect all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_proxy::control::TargetState;
use coracle_proxy::table::{Admission, Ejection, HealthCheck, MiddlewareId, Service, ServiceId, Table};

use crate::backend::Backend;
use crate::env::{Answer, Env, soon, table, until};

fn service<'t>(table: &'t mut Table, id: &str) -> &'t mut Service {
    table.services.get_mut(&ServiceId(id.to_owned())).unwrap()
}

async fn state(env: &Env, id: &str) -> TargetState {
    let targets = env.client().targets().await.unwrap();
    targets.iter().find(|target| target.id.0 == id).unwrap().state
}

/// Two services on a host each: `app` has two targets, `other` one.
fn two(app: [&Backend; 2], other: &Backend) -> Table {
    let targets = [("a", app[0].address), ("b", app[1].address)];
    let services = [("app", Admission::Open, &targets[..]), ("other", Admission::Open, &[("o", other.address)])];
    table(&[("app.example", "/", "app"), ("other.example", "/", "other")], &services)
}

/// Answers 503 to everything but its health for as long as it is told to.
async fn failing() -> (Backend, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&fails);
    let backend = Backend::talking(move |mut conn| {
        let told = Arc::clone(&told);
        async move {
            while let Some(seen) = conn.request().await {
                match seen.path() {
                    "/ill" => conn.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await,
                    "/" if told.load(Ordering::SeqCst) => conn.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await,
                    _ => conn.ok("fine").await,
                }
            }
        }
    })
    .await;
    (backend, fails)
}

#[tokio::test]
async fn one_middleware_changes_and_the_others_keep_their_counts() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    let with_header = |value: &str| {
        let mut table = two([&app, &app], &app);
        let middlewares = [
            ("limit", r#"{"rate-limit": {"average": 1, "period_ms": 3600000}}"#.to_owned()),
            ("head", format!(r#"{{"headers": {{"custom_response_headers": {{"X-Table": "{value}"}}}}}}"#)),
        ];
        for (id, text) in middlewares {
            let id = MiddlewareId(id.to_owned());
            table.middlewares.insert(id.clone(), serde_json::from_str(&text).unwrap());
            table.routes[0].middlewares.insert(0, id);
        }
        table
    };
    let told = |answer: &Answer| (answer.status, answer.header("x-table").map(ToOwned::to_owned));
    let mut wire = env.connect().await;
    let mut get = async || {
        wire.send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
        told(&soon(wire.answer()).await)
    };
    env.publish(with_header("one")).await;
    assert_eq!(get().await, (200, Some("one".to_owned())));
    env.publish(with_header("two")).await;
    assert_eq!(get().await, (429, Some("two".to_owned())), "the limit was reached by the table before");
    // The whole list changes, too.
    let mut without = with_header("three");
    without.routes[0].middlewares.pop();
    env.publish(without).await;
    assert_eq!(get().await, (200, Some("three".to_owned())));
}

#[tokio::test]
async fn a_gate_shuts_and_opens_where_nothing_else_changes() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    let admitting = |admission: Admission| {
        let mut table = two([&app, &app], &app);
        service(&mut table, "app").admission = admission;
        table
    };
    let hold = || Admission::Hold { deadline_ms: 60_000, max_waiting: 10 };
    for _ in 0..3 {
        env.publish(admitting(Admission::Open)).await;
        env.get("app.example", "/").await.is(200, "hello");
        env.publish(admitting(hold())).await;
        let mut waiting = env.connect().await;
        waiting.send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
        until("it waits", async || env.waiting().await == 1).await;
        // A table that holds it again keeps its place.
        env.publish(admitting(hold())).await;
        assert_eq!(env.waiting().await, 1);
        env.get("other.example", "/").await.is(200, "hello");
        env.publish(admitting(Admission::Open)).await;
        soon(waiting.answer()).await.is(200, "hello");
        env.publish(admitting(Admission::Closed { message: "closed".to_owned(), retry_after_s: 7 })).await;
        assert_eq!(env.get("app.example", "/").await.status, 503);
    }
}

#[tokio::test]
async fn ejection_begins_and_ends_with_its_settings_and_outlives_the_others() {
    let (well, (ill, fails)) = (Backend::saying("fine").await, failing().await);
    let mut env = Env::with(|options| options.workers = 1).await;
    let ejecting = |failures: Option<u32>| {
        let mut table = two([&well, &ill], &well);
        service(&mut table, "app").ejection = failures.map(|failures| Ejection { failures, for_ms: 600_000 });
        table
    };
    let four = async |env: &Env| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(env.get("app.example", "/").await.status);
        }
        statuses.sort_unstable();
        statuses
    };
    env.publish(ejecting(None)).await;
    assert_eq!(four(&env).await, [200, 200, 503, 503]);
    assert_eq!(state(&env, "b").await, TargetState::Up);
    env.publish(ejecting(Some(1))).await;
    assert_eq!(four(&env).await.iter().filter(|status| **status == 503).count(), 1);
    assert_eq!(state(&env, "b").await, TargetState::Ejected);
    // Another service's settings, or its targets, change nothing about it.
    let mut next = ejecting(Some(1));
    service(&mut next, "other").response_timeout_ms = Some(5000);
    env.publish(next).await;
    assert_eq!(four(&env).await, [200; 4]);
    assert_eq!(state(&env, "b").await, TargetState::Ejected);
    fails.store(false, Ordering::SeqCst);
    assert_eq!(four(&env).await, [200; 4]);
}

#[tokio::test]
async fn health_is_asked_as_the_new_table_says() {
    let (well, (ill, _fails)) = (Backend::saying("fine").await, failing().await);
    let mut env = Env::with(|options| options.workers = 1).await;
    let checking = |path: Option<&str>| {
        let mut table = two([&well, &ill], &well);
        let check = |path: &str| HealthCheck { path: path.into(), interval_ms: 20, timeout_ms: 5000, status: None, host: None };
        service(&mut table, "app").health = path.map(check);
        table
    };
    env.publish(checking(None)).await;
    assert_eq!(state(&env, "b").await, TargetState::Up);
    for _ in 0..2 {
        env.publish(checking(Some("/ill"))).await;
        until("it is down", async || state(&env, "b").await == TargetState::Down).await;
        assert_eq!([state(&env, "a").await, state(&env, "o").await], [TargetState::Up; 2]);
        for _ in 0..3 {
            env.get("app.example", "/").await.is(200, "fine");
        }
        env.publish(checking(Some("/well"))).await;
        until("it is up", async || state(&env, "b").await == TargetState::Up).await;
    }
    // Who is not asked any more is not down for ever.
    env.publish(checking(Some("/ill"))).await;
    until("it is down", async || state(&env, "b").await == TargetState::Down).await;
    env.publish(checking(None)).await;
    until("it is up", async || state(&env, "b").await == TargetState::Up).await;
}

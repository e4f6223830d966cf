//! Who answers (kp-01 to kp-07, kp-15, kp-20 to kp-23).

use std::sync::atomic::Ordering;

use coracle_proxy::table::{Admission, Middleware, MiddlewareId, StripPrefix};

use crate::backend::Backend;
use crate::env::{Env, table};

#[tokio::test]
async fn nothing_is_served_before_the_first_table() {
    let env = Env::new().await;
    assert_eq!(env.get("example.com", "/").await.status, 404);
    assert_eq!(env.client().status().await.unwrap().generation, 0);
}

#[tokio::test]
async fn replicas_take_turns() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let mut env = Env::new().await;
    env.serve(&[("a", a.address), ("b", b.address)]).await;
    for _ in 0..4 {
        assert_eq!(env.get("h", "/").await.status, 200);
    }
    assert_eq!((a.requests.load(Ordering::SeqCst), b.requests.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test]
async fn a_removed_app_is_unknown() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.publish(table(&[("app.x", "/", "s")], &[("s", Admission::Open, &[("t", app.address)])])).await;
    env.get("app.x", "/").await.is(200, "hello");
    env.publish(table(&[], &[])).await;
    assert_eq!(env.get("app.x", "/").await.status, 404);
}

#[tokio::test]
async fn hosts_change_with_the_table() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    let services: &[(&str, Admission, &[_])] = &[("s", Admission::Open, &[("t", app.address)])];
    env.publish(table(&[("1.example.com", "/", "s"), ("2.example.com", "/", "s")], services)).await;
    env.get("1.example.com", "/").await.is(200, "hello");
    env.publish(table(&[("3.example.com", "/", "s"), ("2.example.com", "/", "s")], services)).await;
    assert_eq!(env.get("1.example.com", "/").await.status, 404);
    env.get("2.example.com:80", "/").await.is(200, "hello");
    env.get("3.EXAMPLE.com", "/").await.is(200, "hello");
    assert_eq!(env.get("other.example.com", "/").await.status, 404);
}

#[tokio::test]
async fn the_next_request_goes_by_the_new_table() {
    let (first, second) = (Backend::saying("first").await, Backend::saying("second").await);
    let mut env = Env::new().await;
    env.serve(&[("v1", first.address)]).await;
    let mut wire = env.connect().await;
    wire.get("/").await.is(200, "first");
    env.serve(&[("v2", second.address)]).await;
    wire.get("/").await.is(200, "second");
}

#[tokio::test]
async fn prefixes_are_matched_by_segments_and_stripped() {
    let (root, app, internal) =
        (Backend::answering(|s| format!("root {}", s.path())).await, Backend::echo().await, Backend::echo().await);
    let mut env = Env::new().await;
    let mut routes = table(
        &[("*", "/", "root"), ("*", "/app", "app"), ("*", "/api/internal", "internal")],
        &[
            ("root", Admission::Open, &[("r", root.address)]),
            ("app", Admission::Open, &[("a", app.address)]),
            ("internal", Admission::Open, &[("i", internal.address)]),
        ],
    );
    for (number, prefix) in [(1, "/app"), (2, "/api/internal")] {
        let id = MiddlewareId(format!("m{number}"));
        routes.middlewares.insert(id.clone(), Middleware::StripPrefix(StripPrefix { prefixes: vec![prefix.into()] }));
        routes.routes[number].middlewares = vec![id];
    }
    env.publish(routes).await;
    let first_line = async |path: &str| env.get("h", path).await.body.lines().next().unwrap().to_owned();
    assert_eq!(first_line("/app/show").await, "GET /show HTTP/1.1");
    assert_eq!(first_line("/app").await, "GET / HTTP/1.1");
    assert_eq!(first_line("/app?q").await, "GET /?q HTTP/1.1");
    assert_eq!(first_line("/api/internal/x?a=b").await, "GET /x?a=b HTTP/1.1");
    assert_eq!(first_line("/api/external/x").await, "root /api/external/x");
    assert_eq!(first_line("/appointment").await, "root /appointment");
    assert!(env.get("h", "/app/show").await.body.contains("x-forwarded-prefix: /app\n"));
}

#[tokio::test]
async fn wildcards_cover_one_label_and_exact_hosts_win() {
    let backends = [
        Backend::saying("first").await,
        Backend::saying("second").await,
        Backend::saying("s1").await,
        Backend::saying("any").await,
    ];
    let [first, second, s1, any] = backends.each_ref().map(|backend| backend.address);
    let mut env = Env::new().await;
    let mut wildcards = table(
        &[
            ("*.first.example.com", "/", "f"),
            ("*.second.example.com", "/", "s"),
            ("s1.first.example.com", "/", "1"),
            ("*", "/", "a"),
        ],
        &[
            ("f", Admission::Open, &[("f", first)]),
            ("s", Admission::Open, &[("s", second)]),
            ("1", Admission::Open, &[("1", s1)]),
            ("a", Admission::Open, &[("a", any)]),
        ],
    );
    // By itself the longer rule would win.
    wildcards.routes[2].priority = Some(1000);
    env.publish(wildcards).await;
    env.get("app.first.example.com", "/").await.is(200, "first");
    env.get("api.second.example.com", "/").await.is(200, "second");
    env.get("s1.first.example.com", "/").await.is(200, "s1");
    env.get("something-else.example.com", "/").await.is(200, "any");
    env.get("extra.level.first.example.com", "/").await.is(200, "any");
}

#[tokio::test]
async fn a_service_without_targets_or_closed_is_unavailable() {
    let mut env = Env::new().await;
    env.serve(&[]).await;
    let answer = env.get("h", "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    env.admit(Admission::Closed { message: "Back at noon.".into(), retry_after_s: 60 }, &[]).await;
    let answer = env.get("h", "/").await;
    assert!(answer.status == 503 && answer.body.contains("\nBack at noon.\n"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("60"));
}

#[tokio::test]
async fn a_table_that_contradicts_itself_is_refused_and_changes_nothing() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let refused = env.client().publish(&table(&[("*", "/", "missing")], &[])).await.unwrap_err();
    assert!(matches!(refused, coracle_proxy::control::ControlError::Refused { status: 422, .. }), "{refused}");
    env.get("h", "/").await.is(200, "hello");
    assert_eq!(env.client().table().await.unwrap().generation, 1);
}

#[tokio::test]
async fn the_last_table_survives_a_restart() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    env.proxy.take().unwrap().shutdown().await;
    assert!(!env.options.control_socket.exists());
    env.proxy = Some(coracle_proxy::Proxy::start(env.options.clone()).await.unwrap());
    env.get("h", "/").await.is(200, "hello");
}

//! Limits: of rates, numbers, bodies, and of services that fail.

use coracle_proxy::table::Admission;
use tokio::io::AsyncReadExt;

use crate::backend::Backend;
use crate::env::{Env, soon, table, until};
use crate::middlewares::{chained, through};

#[tokio::test]
async fn a_rate_is_kept_across_tables() {
    let app = Backend::saying("app").await;
    let other = Backend::saying("other").await;
    let limit = r#"{"rate-limit": {"average": 1, "period_ms": 3600000, "burst": 2}}"#;
    let mut env = through(&[limit], &app).await;
    env.get("h", "/").await.is(200, "app");
    env.publish(chained(&[limit, r#"{"add-prefix": {"prefix": "/x"}}"#], &[("o", other.address)])).await;
    env.get("h", "/").await.is(200, "other");
    let refused = env.get("h", "/").await;
    assert!(refused.status == 429 && refused.header("retry-after").is_some(), "{refused:?}");
    // A table that is refused takes nothing away.
    let mut bad = chained(&[&limit.replace("2}", "3}"), r#"{"redirect-regex": {"regex": "(", "replacement": ""}}"#], &[]);
    bad.generation = 99;
    assert!(env.client().publish(&bad).await.is_err());
    env.publish(chained(&[limit], &[("t", app.address)])).await;
    assert_eq!(env.get("h", "/").await.status, 429);
}

#[tokio::test]
async fn only_so_many_at_once_and_only_from_there() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        drop(conn.request().await);
    })
    .await;
    let env =
        through(&[r#"{"ip-allow-list": {"source_range": ["127.0.0.0/8"]}}"#, r#"{"in-flight-limit": {"amount": 1}}"#], &app)
            .await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("in flight", async || env.in_flight().await == 1).await;
    assert_eq!(env.get("h", "/").await.status, 429);
    drop(wire);
    until("gone", async || env.in_flight().await == 0).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("let in again", async || env.in_flight().await == 1).await;
    let env = through(&[r#"{"ip-allow-list": {"source_range": ["10.0.0.0/8"]}}"#], &app).await;
    assert_eq!(env.get("h", "/").await.status, 403);
}

#[tokio::test]
async fn bodies_are_as_long_as_they_may_be() {
    let app = Backend::echo().await;
    let env = through(&[r#"{"body-limit": {"max_bytes": 10}}"#], &app).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789").await;
    assert!(soon(wire.answer()).await.body.ends_with("\n0123456789"));
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n").await;
    assert!(soon(wire.answer()).await.body.ends_with("\n0123456789"));
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n0123456789a").await;
    assert_eq!(soon(wire.answer()).await.status, 413);
    wire.get("/").await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 413);
    assert_eq!(app.requests.load(std::sync::atomic::Ordering::SeqCst), 3);
    assert_eq!(wire.get("/").await.status, 200);
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_for_a_while() {
    let app = Backend::talking(|mut conn| async move { drop(conn.request().await) }).await;
    let breaker = r#"{"circuit-breaker": {"expression": "NetworkErrorRatio() > 0.3", "check_period_ms": 0}}"#;
    let env = through(&[breaker], &app).await;
    assert_eq!(env.get("h", "/").await.status, 502);
    until("open", async || env.get("h", "/").await.status == 503).await;
    let asked = app.connections.load(std::sync::atomic::Ordering::SeqCst);
    let answer = env.get("h", "/").await;
    assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), asked);
}

#[tokio::test]
async fn answers_that_break_off_count_as_none() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbro").await;
    })
    .await;
    let breaker = r#"{"circuit-breaker": {"expression": "NetworkErrorRatio() > 0.5", "check_period_ms": 0}}"#;
    let env = through(&[breaker], &app).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut answer = Vec::new();
    soon(wire.stream.read_to_end(&mut answer)).await.unwrap();
    // How much of it has left before that is known depends on how fast it is.
    assert!(answer.is_empty() || answer.ends_with(b"\r\n\r\nbro"), "{answer:?}");
    assert_eq!(env.get("h", "/").await.status, 503);
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn encoded_characters_pass_as_the_options_say() {
    let app = Backend::echo().await;
    let mut env = Env::with(|options| options.encoded_characters.slash = false).await;
    env.publish(table(&[("*", "/", "s")], &[("s", Admission::Open, &[("t", app.address)])])).await;
    assert_eq!(env.get("h", "/a%2fb").await.status, 400);
    assert_eq!(env.get("h", "/a%00b").await.status, 400);
    assert_eq!(env.get("h", "/a%3Fb?c=%2F").await.status, 200);
}

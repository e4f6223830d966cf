//! Pages for errors that a service of the table makes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use coracle_proxy::control::{ControlError, TargetState};
use coracle_proxy::table::{Admission, Ejection, Protocol, Service, ServiceId, Table, Target};

use crate::backend::{Backend, Seen};
use crate::env::{Env, soon};
use crate::middlewares::chained;

/// The app says 404 to what is missing, 503 to `/away`, and breaks off otherwise.
async fn app() -> Backend {
    Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            match seen.path() {
                "/fine" => conn.ok("fine").await,
                "/away" => conn.send("HTTP/1.1 503 Away\r\nRetry-After: 7\r\nETag: \"1\"\r\nContent-Length: 4\r\n\r\naway").await,
                path if path.starts_with("/missing") => {
                    conn.send("HTTP/1.1 404 No\r\nSet-Cookie: a=b\r\nContent-Type: text/x\r\nContent-Length: 6\r\n\r\nsecret")
                        .await;
                }
                _ => return,
            }
        }
    })
    .await
}

/// Makes pages that show what was asked for, and keeps what it was asked.
async fn pages(asked: &Arc<Mutex<Vec<Seen>>>) -> Backend {
    let asked = Arc::clone(asked);
    Backend::talking(move |mut conn| {
        let asked = Arc::clone(&asked);
        async move {
            while let Some(seen) = conn.request().await {
                let body = format!("page {}", seen.path());
                let length = body.len();
                asked.lock().unwrap().push(seen);
                conn.send(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Pages: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            }
        }
    })
    .await
}

fn with_pages(middlewares: &[&str], app: &Backend, pages: &Backend) -> Table {
    let mut table = chained(middlewares, &[("t", app.address)]);
    let service = Service::new(Admission::Open, vec![Target::new("p", pages.address)]);
    table.services.insert(ServiceId("pages".to_owned()), service);
    table
}

const ERRORS: &str = r#"{"error-pages": {"status": ["404", "429", "500-599"], "service": "pages",
    "query": "/{status}.html?was={originalStatus}&of={url}", "status_rewrites": {"503": 502}}}"#;

#[tokio::test]
async fn the_page_is_the_services_and_the_status_that_of_the_error() {
    let (app, asked) = (app().await, Arc::default());
    let maker = pages(&asked).await;
    let mut env = Env::new().await;
    let out = r#"{"headers": {"custom_response_headers": {"X-Out": "2"}}}"#;
    let strip = r#"{"strip-prefix": {"prefixes": ["/shop"]}}"#;
    env.publish(with_pages(&[out, ERRORS, strip], &app, &maker)).await;
    let mut wire = env.connect().await;
    wire.get("/shop/fine").await.is(200, "fine");
    wire.send(
        "GET /shop/missing?a=b%20c HTTP/1.1\r\nHost: shop.example\r\nCookie: who=ann\r\nRange: bytes=0-1\r\n\
         If-None-Match: \"x\"\r\nX-Request-Id: id-1\r\n\r\n",
    )
    .await;
    let answer = soon(wire.answer()).await;
    answer.is(404, "page /404.html?was=404&of=%2Fshop%2Fmissing%3Fa%3Db%2520c");
    for (name, value) in [
        ("content-type", Some("text/html")),
        ("set-cookie", Some("a=b")),
        ("x-pages", Some("1")),
        ("x-out", Some("2")),
        ("x-hop", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let seen = asked.lock().unwrap().pop().unwrap();
    assert!(seen.line.starts_with("GET "), "{}", seen.line);
    assert_eq!(
        ["host", "cookie", "x-request-id", "range", "if-none-match", "x-forwarded-for"].map(|name| seen.header(name)),
        [Some("shop.example"), Some("who=ann"), Some("id-1"), None, None, Some("127.0.0.1")]
    );
    // What the proxy says itself, and what is said without a body, are no different.
    wire.send("POST /shop/broken HTTP/1.1\r\nHost: h\r\nContent-Type: text/y\r\nContent-Length: 2\r\n\r\nhi").await;
    let answer = soon(wire.answer()).await;
    answer.is(502, "page /502.html?was=502&of=%2Fshop%2Fbroken");
    let seen = asked.lock().unwrap().pop().unwrap();
    assert_eq!((seen.header("content-length"), seen.header("content-type")), (None, None));
    wire.send("HEAD /shop/missing HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = soon(wire.head_answer()).await;
    assert_eq!((answer.status, answer.header("x-pages")), (404, Some("1")));
    let answer = wire.get("/shop/away").await;
    answer.is(502, "page /502.html?was=503&of=%2Fshop%2Faway");
    assert_eq!((answer.header("retry-after"), answer.header("etag")), (Some("7"), None));
    assert_eq!(maker.connections.load(Ordering::SeqCst), 1, "the service's connection is used again");
    assert_eq!(env.in_flight().await, 0);
}

#[tokio::test]
async fn what_middlewares_answer_is_an_error_as_well() {
    let (app, asked) = (app().await, Arc::default());
    let maker = pages(&asked).await;
    let mut env = Env::new().await;
    let once = r#"{"rate-limit": {"average": 1, "period_ms": 3600000}}"#;
    let compress = r#"{"compress": {"min_response_body_bytes": 1, "encodings": ["gzip"]}}"#;
    env.publish(with_pages(&[compress, ERRORS, once], &app, &maker)).await;
    let mut wire = env.connect().await;
    wire.get("/fine").await.is(200, "fine");
    let answer = wire.get("/fine").await;
    answer.is(429, "page /429.html?was=429&of=%2Ffine");
    assert!(answer.header("retry-after").is_some());
    wire.send("GET /fine HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.header("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn without_a_page_the_answer_is_as_it_came() {
    let app = app().await;
    let failing = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            match seen.path() {
                "/404.html?was=404&of=%2Fmissing%2Flarge" => conn.ok(&"x".repeat(1_100_000)).await,
                "/404.html?was=404&of=%2Fmissing%2Fbroken" => return,
                _ => conn.send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno").await,
            }
        }
    })
    .await;
    let mut env = Env::new().await;
    env.publish(with_pages(&[ERRORS], &app, &failing)).await;
    let mut wire = env.connect().await;
    for path in ["/missing", "/missing/large", "/missing/broken"] {
        let answer = wire.get(path).await;
        answer.is(404, "secret");
        assert_eq!((answer.header("content-type"), answer.header("set-cookie")), (Some("text/x"), Some("a=b")), "{path}");
    }
    let answer = wire.get("/away").await;
    answer.is(502, "away");
    assert_eq!(answer.header("etag"), Some("\"1\""));
    drop(failing);
    wire.get("/missing").await.is(404, "secret");
    // One that takes no requests is not waited for; a directory's pages come before what the app says.
    let mut closed = with_pages(&[ERRORS], &app, &app);
    let pages = closed.services.get_mut(&ServiceId("pages".to_owned())).unwrap();
    pages.admission = Admission::Hold { deadline_ms: 60_000, max_waiting: 10 };
    env.publish(closed).await;
    wire.get("/missing").await.is(404, "secret");
    std::fs::write(env.directory.path().join("404.txt"), "from a file").unwrap();
    let both = ERRORS.replace("\"service\"", &format!("\"directory\": {:?}, \"service\"", env.directory.path()));
    let mut table = with_pages(&[&both], &app, &app);
    table.services.get_mut(&ServiceId("pages".to_owned())).unwrap().targets.clear();
    env.publish(table).await;
    wire.get("/missing").await.is(404, "from a file");
}

/// Who answers well, if more than is wanted, is well.
#[tokio::test]
async fn a_page_that_is_too_long_does_not_eject_its_target() {
    let app = app().await;
    let maker = || {
        Backend::talking(|mut conn| async move {
            while let Some(seen) = conn.request().await {
                conn.ok(&if seen.path().contains("large") { "x".repeat(1_100_000) } else { "a page".to_owned() }).await;
            }
        })
    };
    let (one, other) = (maker().await, maker().await);
    let mut env = Env::new().await;
    let mut table = with_pages(&[ERRORS], &app, &one);
    let service = table.services.get_mut(&ServiceId("pages".to_owned())).unwrap();
    service.targets.push(Target::new("q", other.address));
    service.ejection = Some(Ejection { failures: 1, for_ms: 600_000 });
    env.publish(table).await;
    for _ in 0..4 {
        env.get("h", "/missing/large").await.is(404, "secret");
        env.get("h", "/missing").await.is(404, "a page");
    }
    assert!(env.client().targets().await.unwrap().iter().all(|target| target.state == TargetState::Up));
}

#[tokio::test]
async fn a_client_that_leaves_waits_for_no_page_and_a_page_for_no_longer_than_said() {
    let app = app().await;
    let silent = Backend::talking(|mut conn| async move {
        drop(conn.head().await);
        assert!(conn.head().await.is_none(), "nobody is waited for");
    })
    .await;
    let mut env = Env::new().await;
    env.publish(with_pages(&[ERRORS], &app, &silent)).await;
    let mut leaving = env.connect().await;
    leaving.send("GET /missing HTTP/1.1\r\nHost: h\r\n\r\n").await;
    crate::env::until("asked", async || silent.connections.load(Ordering::SeqCst) == 1).await;
    drop(leaving);
    crate::env::until("let go", async || env.in_flight().await == 0).await;
    env.get("h", "/missing").await.is(404, "secret");
}

#[tokio::test]
async fn services_of_http2_make_pages_too_and_one_that_is_not_there_is_named() {
    let app = app().await;
    let mut env = Env::new().await;
    // The page's service is a proxy that speaks HTTP/2 to whoever wants it.
    let (asked, mut behind) = (Arc::default(), Env::new().await);
    let maker = pages(&asked).await;
    behind.serve(&[("p", maker.address)]).await;
    let mut table = with_pages(&[ERRORS], &app, &maker);
    let service = table.services.get_mut(&ServiceId("pages".to_owned())).unwrap();
    service.targets[0].address = behind.http();
    service.protocol = Protocol::H2c;
    env.publish(table).await;
    for _ in 0..2 {
        env.get("shop.example", "/missing").await.is(404, "page /404.html?was=404&of=%2Fmissing");
    }
    assert_eq!(asked.lock().unwrap()[0].header("host"), Some("shop.example"));
    let mut table = with_pages(&[ERRORS], &app, &maker);
    table.services.remove(&ServiceId("pages".to_owned()));
    table.generation = 99;
    let Err(ControlError::Refused { status, message, .. }) = env.client().publish(&table).await else { panic!("taken") };
    assert!(status == 422 && message.contains("m0") && message.contains("\"pages\""), "{status} {message}");
}

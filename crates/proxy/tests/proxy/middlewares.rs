//! Middlewares around requests: in their order, once each, and gone with their client.

use std::net::SocketAddr;

use coracle_proxy::control::ControlError;
use coracle_proxy::table::{Admission, MiddlewareId, Table};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::env::{Answer, Env, soon, table, until};

/// One route on every host through these middlewares, as tables have them.
pub fn chained(middlewares: &[&str], targets: &[(&str, SocketAddr)]) -> Table {
    let mut table = table(&[("*", "/", "app")], &[("app", Admission::Open, targets)]);
    for (number, text) in middlewares.iter().enumerate() {
        let id = MiddlewareId(format!("m{number}"));
        table.middlewares.insert(id.clone(), serde_json::from_str(text).unwrap());
        table.routes[0].middlewares.push(id);
    }
    table
}

/// A proxy whose one route goes through these.
pub async fn through(middlewares: &[&str], backend: &Backend) -> Env {
    let mut env = Env::new().await;
    env.publish(chained(middlewares, &[("t", backend.address)])).await;
    env
}

async fn ask(env: &Env, request: &str) -> Answer {
    let mut wire = env.connect().await;
    wire.send(request).await;
    soon(wire.answer()).await
}

#[tokio::test]
async fn paths_and_headers_change_in_the_order_written() {
    let app = Backend::echo().await;
    let env = through(
        &[
            r#"{"strip-prefix": {"prefixes": ["/a"]}}"#,
            r#"{"add-prefix": {"prefix": "/b"}}"#,
            r#"{"replace-path-regex": {"regex": "^/b/(.*)$", "replacement": "/c/$1"}}"#,
            r#"{"headers": {"custom_request_headers": {"X-In": "1"}, "custom_response_headers": {"X-Out": "2"}}}"#,
        ],
        &app,
    )
    .await;
    let answer = env.get("h", "/a/x?q=1").await;
    assert!(answer.body.starts_with("GET /c/x?q=1 HTTP/1.1\n"), "{answer:?}");
    assert!(answer.body.contains("x-in: 1\n") && answer.body.contains("x-forwarded-prefix: /a\n"), "{answer:?}");
    assert_eq!(answer.header("x-out"), Some("2"));
    // The same the other way round is something else.
    let env = through(&[r#"{"add-prefix": {"prefix": "/b"}}"#, r#"{"strip-prefix": {"prefixes": ["/a"]}}"#], &app).await;
    assert!(env.get("h", "/a/x").await.body.starts_with("GET /b/a/x HTTP/1.1\n"));
    let env = through(&[r#"{"replace-path": {"path": "/r"}}"#], &app).await;
    assert!(env.get("h", "/a/x").await.body.contains("x-replaced-path: /a/x\n"));
    let env = through(&[r#"{"strip-prefix-regex": {"regex": ["/[0-9]+"]}}"#], &app).await;
    assert!(env.get("h", "/12/x").await.body.starts_with("GET /x HTTP/1.1\n"));
}

#[tokio::test]
async fn what_a_middleware_answers_reaches_no_target_and_the_connection_goes_on() {
    let app = Backend::saying("app").await;
    let env = through(
        &[
            r#"{"headers": {"custom_response_headers": {"X-Out": "2"}}}"#,
            r#"{"redirect-regex": {"regex": "^http://h/old(.*)", "replacement": "http://h/new$1", "permanent": true}}"#,
            r#"{"basic-auth": {"users": ["u:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="], "realm": "here"}}"#,
        ],
        &app,
    )
    .await;
    let mut wire = env.connect().await;
    // The body of a request that is answered at once is no request.
    wire.send("POST /old/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n").await;
    let moved = soon(wire.answer()).await;
    assert_eq!((moved.status, moved.header("location"), moved.header("x-out")), (308, Some("http://h/new/1"), Some("2")));
    let refused = wire.get("/").await;
    assert_eq!((refused.status, refused.header("x-out")), (401, Some("2")));
    assert_eq!(refused.header("www-authenticate"), Some("basic realm=\"here\""));
    assert_eq!(app.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic dTp0ZXN0\r\n\r\n").await;
    soon(wire.answer()).await.is(200, "app");
    wire.send("HEAD /old HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(soon(wire.head_answer()).await.status, 308);
    assert_eq!(wire.get("/").await.status, 401);
}

#[tokio::test]
async fn clients_of_other_names_are_sent_to_the_one_that_is_meant() {
    let app = Backend::echo().await;
    let env = through(&[r#"{"canonical-host": {"host": "shop.example", "permanent": true}}"#], &app).await;
    for (host, path, location) in
        [("www.shop.example", "/a?b=c%25&d", "http://shop.example/a?b=c%25&d"), ("shop.example.net", "/", "http://shop.example/")]
    {
        let answer = env.get(host, path).await;
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)));
        // What is not to be repeated with another method keeps it.
        let answer = ask(&env, &format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi")).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)));
    }
    for host in ["shop.example", "SHOP.example", "shop.example:80"] {
        assert_eq!(env.get(host, "/x").await.status, 200, "{host}");
    }
    assert_eq!(app.requests.load(std::sync::atomic::Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_route_without_a_service_needs_a_middleware_that_answers() {
    let mut env = Env::new().await;
    let mut routes = chained(&[r#"{"redirect-scheme": {"scheme": "https"}}"#], &[]);
    routes.routes[0].service = None;
    routes.services.clear();
    env.publish(routes).await;
    let answer = env.get("h", "/x").await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://h/x")));
    let mut routes = chained(&[r#"{"add-prefix": {"prefix": "/x"}}"#], &[]);
    routes.routes[0].service = None;
    env.publish(routes).await;
    assert_eq!(env.get("h", "/").await.status, 404);
}

#[tokio::test]
async fn a_middleware_that_cannot_be_is_refused_by_name_and_changes_nothing() {
    let app = Backend::saying("app").await;
    let env = through(&[r#"{"add-prefix": {"prefix": "/x"}}"#], &app).await;
    for bad in [
        r#"{"redirect-regex": {"regex": "(", "replacement": "x"}}"#,
        r#"{"forward-auth": {"address": "https://127.0.0.1/", "tls": {"ca_file": "/nowhere.pem"}}}"#,
    ] {
        let mut routes = chained(&[r#"{"add-prefix": {"prefix": "/y"}}"#, bad], &[("t", app.address)]);
        routes.generation = 9;
        let Err(ControlError::Refused { status, message, .. }) = env.client().publish(&routes).await else { panic!("{bad}") };
        assert!(status == 422 && message.contains("r0") && message.contains("m1"), "{status} {message}");
    }
    assert_eq!(env.client().table().await.unwrap().generation, 1);
    env.get("h", "/").await.is(200, "app");
}

#[tokio::test]
async fn forwarded_authentication_lets_pass_refuses_and_is_waited_for_no_longer_than_said() {
    let app = Backend::echo().await;
    let gate = Backend::talking(|mut conn| async move {
        let Some(seen) = conn.request().await else { return };
        match seen.header("x-token") {
            Some("good") => conn.send("HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n").await,
            Some("slow") => drop(conn.head().await),
            Some("long") => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n").await,
            _ => {
                conn.send(&format!(
                    "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nX-Uri: {}\r\n\r\nnope\n",
                    seen.header("x-forwarded-uri").unwrap()
                ))
                .await
            }
        }
    })
    .await;
    let address = gate.address;
    let auth = |address: SocketAddr| {
        format!(
            r#"{{"forward-auth": {{"address": "http://{address}/auth", "auth_response_headers": ["X-User"], "timeout_ms": 300}}}}"#
        )
    };
    let env = through(&[&auth(address)], &app).await;
    let good = ask(&env, "GET /x HTTP/1.1\r\nHost: h\r\nX-Token: good\r\nX-User: eve\r\n\r\n").await;
    assert!(good.status == 200 && good.body.contains("x-user: ann\n") && !good.body.contains("eve"), "{good:?}");
    let refused = ask(&env, "GET /x?y HTTP/1.1\r\nHost: h\r\n\r\n").await;
    refused.is(403, "nope\n");
    assert_eq!(refused.header("x-uri"), Some("/x?y"));
    assert_eq!(ask(&env, "GET / HTTP/1.1\r\nHost: h\r\nX-Token: slow\r\n\r\n").await.status, 504);
    let down = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let env = through(&[&auth(down)], &app).await;
    assert_eq!(ask(&env, "GET / HTTP/1.1\r\nHost: h\r\nX-Token: good\r\n\r\n").await.status, 502);
    assert_eq!(app.requests.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_chain() {
    let app = Backend::saying("app").await;
    let (came, coming) = oneshot::channel();
    let (ended, ending) = oneshot::channel();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Some((came, ended))));
    let gate = Backend::talking(move |mut conn| {
        let (came, ended) = told.lock().unwrap().take().unwrap();
        async move {
            conn.head().await.unwrap();
            came.send(()).unwrap();
            assert!(conn.head().await.is_none());
            ended.send(()).unwrap();
        }
    })
    .await;
    let auth = format!(r#"{{"forward-auth": {{"address": "http://{}", "timeout_ms": 60000}}}}"#, gate.address);
    let env = through(&[r#"{"in-flight-limit": {"amount": 1}}"#, &auth], &app).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    soon(coming).await.unwrap();
    assert_eq!(env.get("h", "/").await.status, 429);
    drop(wire);
    soon(ending).await.unwrap();
    assert_eq!(app.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_is_sent_as_often_as_said_and_no_more() {
    let app = Backend::talking(|mut conn| async move {
        let Some(seen) = conn.request().await else { return };
        let number: usize = seen.path().trim_start_matches('/').parse().unwrap();
        let answer = if conn.number >= number { "200 Yes" } else { "503 No" };
        conn.send(&format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
    })
    .await;
    let env = through(&[r#"{"retry": {"attempts": 3, "initial_interval_ms": 1}}"#], &app).await;
    let times = || app.connections.load(std::sync::atomic::Ordering::SeqCst);
    // The third time is good; then never.
    assert_eq!((env.get("h", "/2").await.status, times()), (200, 3));
    assert_eq!((env.get("h", "/1000").await.status, times()), (503, 6));
    let answer = ask(&env, "POST /1000 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((answer.status, times()), (503, 7));
}

#[tokio::test]
async fn retries_go_on_until_a_target_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut env = Env::new().await;
    let retry = r#"{"retry": {"attempts": 30, "initial_interval_ms": 20}}"#;
    env.publish(chained(&[retry], &[("t", address)])).await;
    let mut wire = env.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
    until("tried", async || env.in_flight().await <= 1).await;
    let app = Backend::on(TcpListener::bind(address).await.unwrap(), |mut conn| async move {
        // The first answer is not one to be content with.
        let number = conn.number;
        while let Some(seen) = conn.request().await {
            if seen.line.starts_with("GET") && number < 3 {
                conn.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
            } else {
                conn.ok(&String::from_utf8(seen.body).unwrap()).await;
            }
        }
    });
    soon(wire.answer()).await.is(200, "hi");
    env.get("h", "/").await.is(200, "");
    assert!(app.connections.load(std::sync::atomic::Ordering::SeqCst) >= 4);
}

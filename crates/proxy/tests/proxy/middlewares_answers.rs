//! What middlewares make of answers: pages, compression, files.

use std::io::Write;

use coracle_proxy::table::Admission;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::backend::Backend;
use crate::env::{Env, soon, table};
use crate::middlewares::{chained, through};

/// Reads one chunk of a body; nothing at its end. What stands behind that is read as well.
async fn chunk(stream: &mut tokio::net::TcpStream) -> Option<Vec<u8>> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(stream.read_u8().await.unwrap()));
    }
    let size = usize::from_str_radix(line.trim(), 16).unwrap();
    if size == 0 {
        return None;
    }
    let mut bytes = vec![0; size + 2];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes.truncate(size);
    Some(bytes)
}

async fn head(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head.to_ascii_lowercase()
}

#[tokio::test]
async fn a_compressed_stream_flows_whenever_it_pauses_and_keeps_its_trailers() {
    let (go_on, wait) = mpsc::channel::<()>(1);
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(wait));
    let app = Backend::talking(move |mut conn| {
        let wait = std::sync::Arc::clone(&wait);
        async move {
            conn.request().await;
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst \r\n",
            )
            .await;
            wait.lock().await.recv().await;
            conn.send("6\r\nsecond\r\n0\r\nX-Sum: 9\r\n\r\n").await;
            drop(conn.request().await);
        }
    })
    .await;
    let env = through(&[r#"{"compress": {}}"#], &app).await;
    let mut stream = env.connect().await.stream;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nAccept-Encoding: gzip\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let head = soon(head(&mut stream)).await;
    for line in ["content-encoding: gzip\r\n", "transfer-encoding: chunked\r\n", "etag: w/\"1\"\r\n", "vary: accept-encoding\r\n"]
    {
        assert!(head.contains(line), "{line} {head}");
    }
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    while decoder.get_ref() != b"first " {
        decoder.write_all(&soon(chunk(&mut stream)).await.unwrap()).unwrap();
        decoder.flush().unwrap();
    }
    go_on.send(()).await.unwrap();
    while let Some(bytes) = soon(chunk(&mut stream)).await {
        decoder.write_all(&bytes).unwrap();
    }
    assert_eq!(decoder.finish().unwrap(), b"first second");
    let mut trailers = vec![0; "x-sum: 9\r\n\r\n".len()];
    soon(stream.read_exact(&mut trailers)).await.unwrap();
    assert_eq!(trailers.to_ascii_lowercase(), b"x-sum: 9\r\n\r\n");
}

#[tokio::test]
async fn large_bodies_are_compressed_for_old_clients_too_and_not_for_head() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let body = if seen.line.starts_with("HEAD") { String::new() } else { "0123456789".repeat(100_000) };
            conn.send(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/css\r\nContent-Length: 1000000\r\n\r\n{body}")).await;
        }
    })
    .await;
    let env = through(&[r#"{"compress": {"encodings": ["gzip"]}}"#], &app).await;
    let mut stream = env.connect().await.stream;
    let request = "GET / HTTP/1.0\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let head = soon(head(&mut stream)).await;
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length") && head.contains("gzip"), "{head}");
    let mut body = Vec::new();
    soon(stream.read_to_end(&mut body)).await.unwrap();
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    decoder.write_all(&body).unwrap();
    assert_eq!(decoder.finish().unwrap(), "0123456789".repeat(100_000).as_bytes());
    let mut wire = env.connect().await;
    for _ in 0..2 {
        wire.send("HEAD / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n").await;
        assert_eq!(soon(wire.head_answer()).await.status, 200);
    }
}

#[tokio::test]
async fn error_pages_stand_in_for_what_targets_and_the_proxy_itself_say() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.path() == "/missing" {
                conn.send("HTTP/1.1 404 Not Found\r\nX-Own: 1\r\nContent-Length: 6\r\n\r\nsecret").await;
            } else {
                return;
            }
        }
    })
    .await;
    let pages = tempfile::tempdir().unwrap();
    std::fs::write(pages.path().join("5xx.html"), "<p>ours").unwrap();
    let errors = format!(r#"{{"error-pages": {{"status": ["404", "500-599"], "directory": {:?}}}}}"#, pages.path());
    let mut env = through(&[r#"{"headers": {"custom_response_headers": {"X-Out": "2"}}}"#, &errors], &app).await;
    let mut wire = env.connect().await;
    for _ in 0..2 {
        let missing = wire.get("/missing").await;
        assert!(missing.status == 404 && !missing.body.contains("secret"), "{missing:?}");
        assert_eq!((missing.header("x-own"), missing.header("x-out")), (Some("1"), Some("2")));
    }
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n").await;
    let failed = soon(wire.answer()).await;
    failed.is(502, "<p>ours");
    assert_eq!(failed.header("x-out"), Some("2"));
    wire.send("HEAD / HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n").await;
    assert_eq!(soon(wire.head_answer()).await.status, 502);
    env.publish(chained(&[&errors], &[])).await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n").await;
    let none = soon(wire.answer()).await;
    none.is(503, "<p>ours");
    assert_eq!(none.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn refusals_are_written_as_their_clients_read() {
    let mut env = Env::new().await;
    env.publish(table(&[], &[])).await;
    let mut wire = env.connect().await;
    for (accept, content_type, part) in [
        ("text/html,*/*;q=0.8", "text/html; charset=utf-8", "<html"),
        ("application/json", "application/json", "\"status\":404"),
        ("*/*", "text/plain; charset=utf-8", "404 Not Found\n"),
    ] {
        wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: id-1\r\nAccept: {accept}\r\n\r\n")).await;
        let answer = soon(wire.answer()).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some(content_type)));
        assert!(answer.body.contains(part) && answer.body.contains("id-1"), "{answer:?}");
    }
}

#[tokio::test]
async fn maintenance_answers_for_everybody_else() {
    let app = Backend::saying("app").await;
    let env = through(&[r#"{"maintenance": {"retry_after_s": 60}}"#], &app).await;
    let answer = env.get("h", "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("60")));
    let env = through(&[r#"{"maintenance": {"retry_after_s": 60, "allowed_ips": ["127.0.0.1"]}}"#], &app).await;
    env.get("h", "/").await.is(200, "app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_served_with_ranges_on_one_connection() {
    let root = tempfile::tempdir().unwrap();
    let large: String = (0..700_000_u32).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    std::fs::write(root.path().join("index.html"), "<p>home").unwrap();
    std::fs::write(root.path().join("large.txt"), &large).unwrap();
    let mut routes = table(&[("*", "/", "s")], &[("s", Admission::Open, &[])]);
    let files = chained(&[&format!(r#"{{"static-files": {{"root": {:?}}}}}"#, root.path())], &[]);
    routes.middlewares = files.middlewares;
    routes.routes[0].middlewares = files.routes[0].middlewares.clone();
    routes.routes[0].service = None;
    let mut env = Env::new().await;
    env.publish(routes).await;
    let mut wire = env.connect().await;
    wire.get("/").await.is(200, "<p>home");
    let whole = wire.get("/large.txt").await;
    assert!(whole.status == 200 && whole.body == large);
    let tag = whole.header("etag").unwrap().to_owned();
    wire.send("GET /large.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=300000-599999\r\n\r\n").await;
    let part = soon(wire.answer()).await;
    assert!(part.status == 206 && part.body == large[300_000..600_000]);
    assert_eq!(part.header("content-range"), Some("bytes 300000-599999/700000"));
    wire.send(&format!("GET /large.txt HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n")).await;
    assert_eq!(soon(wire.answer()).await.status, 304);
    wire.send("HEAD /large.txt HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(soon(wire.head_answer()).await.header("content-length"), Some("700000"));
    assert_eq!(wire.get("/none").await.status, 404);
    wire.get("/").await.is(200, "<p>home");
}

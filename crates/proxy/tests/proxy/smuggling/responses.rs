//! Answers that could be read in two ways, or that nobody has asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::backend::{Backend, Conn};
use crate::env::{Env, Wire, soon};

/// What a client gets to see of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A whole one of this status, with this content.
    Whole(u16, &'static str),
    /// The proxy's own, 502.
    Refused,
    /// The beginning of one of this status, cut off so that the client notices.
    Cut(u16),
}

/// What is asked for, what the target sends, whether it then closes, what the client sees.
type Row = (&'static str, &'static str, bool, Seen);

const LINE: &str = "HTTP/1.1 200 OK\r\n";
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn rows() -> Vec<(&'static str, String, bool, Seen)> {
    use Seen::{Cut, Whole};
    let bad = Seen::Refused;
    let framing: &[Row] = &[
        ("GET", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: 2\r\nContent-Length: 50\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: 2, 2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: +2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: -2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: 2x\r\n\r\nhi", false, bad),
        ("GET", "Content-Length:\r\n 2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length : 2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: 18446744073709551618\r\n\r\nhi", false, bad),
        ("GET", "Transfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "Transfer-Encoding : chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false, bad),
        ("GET", "X: y\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "X: y\rContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "X: \0\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", " X: y\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "Content-Length: 2\n\nhi", false, bad),
        ("GET", "Content-Length: 5\r\n\r\nhi", true, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n5\r\nhi", true, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", true, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", true, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\r\nhiX0\r\n\r\n", false, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n", false, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n", false, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi", false, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX : y\r\n\r\n", false, Cut(200)),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n", false, Whole(200, "hi")),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n", false, Whole(200, "hi")),
        ("GET", "\r\nuntil the end", true, Whole(200, "until the end")),
        ("GET", "Content_Length: 50\r\nContent-Length: 2\r\n\r\nhi", false, Whole(200, "hi")),
        ("GET", "Connection: content-length\r\nContent-Length: 2\r\n\r\nhi", false, Whole(200, "hi")),
        ("HEAD", "Content-Length: 6\r\n\r\n", false, Whole(200, "")),
    ];
    let mut rows: Vec<_> = framing.iter().map(|(m, text, closes, seen)| (*m, format!("{LINE}{text}"), *closes, *seen)).collect();
    let whole: &[Row] = &[
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", false, Whole(204, "")),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", false, Whole(204, "")),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", false, Whole(304, "")),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", false, Whole(200, "")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", false, Whole(200, "")),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\npoison", false, bad),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            false,
            Whole(200, "hi"),
        ),
        ("GET", "HTTP/1.1 199 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, Whole(200, "hi")),
        ("GET", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true, Whole(408, "")),
        ("GET", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, bad),
        ("GET", "ICY 200 OK\r\n\r\nhi", true, bad),
        ("GET", "<html>hello</html>", true, bad),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", true, bad),
        ("GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true, bad),
    ];
    rows.extend(whole.iter().map(|(m, text, closes, seen)| (*m, (*text).to_owned(), *closes, *seen)));
    // Whatever can be whole may have another answer behind it.
    let followed: Vec<_> =
        rows.iter().filter(|row| !row.2).map(|row| (row.0, format!("{}{POISON}", row.1), false, row.3)).collect();
    rows.extend(followed);
    rows.push((
        "GET",
        format!("{}{LINE}Content-Length: 2\r\n\r\nhi", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(50)),
        false,
        Whole(200, "hi"),
    ));
    rows
}

/// Sends what a request asks for by its number, and to everything else its own answer.
async fn misbehaving(mut conn: Conn, texts: Arc<Vec<(String, bool)>>) {
    while let Some(seen) = conn.request().await {
        match seen.path().strip_prefix("/row/").map(|number| &texts[number.parse::<usize>().unwrap()]) {
            Some((text, closes)) => {
                conn.send(text).await;
                if *closes {
                    return;
                }
            }
            None => conn.ok(seen.path()).await,
        }
    }
}

/// All that comes until the end of the stream.
async fn rest(wire: &mut Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(soon(wire.stream.read_to_end(&mut bytes)).await);
    bytes
}

/// Reads exactly one final answer, as strictly as the proxy should write it.
fn read(mut bytes: &[u8], is_head: bool, name: &str) -> (u16, Option<Vec<u8>>) {
    loop {
        let end =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("{name}: no head in {bytes:?}"));
        let head = String::from_utf8(bytes[..end + 2].to_vec()).unwrap();
        bytes = &bytes[end + 4..];
        for line in head.split_terminator("\r\n") {
            assert!(!line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']), "{name}: {line:?}");
        }
        let status: u16 = head[9..12].parse().unwrap();
        let field = |name: &str| -> Vec<&str> {
            head.lines()
                .filter_map(|l| l.split_once(':'))
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.trim())
                .collect()
        };
        let (lengths, codings) = (field("content-length"), field("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "{name}: {head}");
        assert!(field("content_length").is_empty(), "{name}: {head}");
        if (100..200).contains(&status) {
            assert!(lengths.is_empty() && codings.is_empty() && status != 101, "{name}: {head}");
            continue;
        }
        if is_head || status == 204 || status == 304 {
            assert!(bytes.is_empty() && codings.is_empty(), "{name}: {bytes:?}");
            return (status, Some(Vec::new()));
        }
        if let [length] = lengths.as_slice() {
            let length: usize = length.parse().unwrap();
            assert!(bytes.len() <= length, "{name}: more than one answer: {:?}", String::from_utf8_lossy(bytes));
            return (status, (bytes.len() == length).then(|| bytes.to_vec()));
        }
        assert_eq!(codings, ["chunked"], "{name}: {head}");
        let mut body = Vec::new();
        loop {
            let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return (status, None) };
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
            bytes = &bytes[end + 2..];
            if size == 0 {
                assert!(bytes == b"\r\n", "{name}: {:?}", String::from_utf8_lossy(bytes));
                return (status, Some(body));
            }
            let Some(chunk) = bytes.get(..size + 2) else { return (status, None) };
            assert!(chunk.ends_with(b"\r\n"), "{name}");
            body.extend_from_slice(&chunk[..size]);
            bytes = &bytes[size + 2..];
        }
    }
}

#[tokio::test]
async fn clients_see_one_answer_in_one_framing_or_that_it_broke_off() {
    let rows = rows();
    let texts: Arc<Vec<_>> = Arc::new(rows.iter().map(|row| (row.1.clone(), row.2)).collect());
    let app = Backend::talking(move |conn| misbehaving(conn, Arc::clone(&texts))).await;
    let mut env = Env::with(|options| options.workers = 1).await;
    env.serve(&[("t", app.address)]).await;
    for (number, (method, text, _, expected)) in rows.iter().enumerate() {
        let name = format!("{method} {text:?}");
        // The same again, so that a kept connection would be used.
        for _ in 0..2 {
            let mut wire = env.connect().await;
            wire.send(&format!("{method} /row/{number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
            let bytes = rest(&mut wire).await;
            // Before the head has gone out there may be nothing to see of an answer that breaks off.
            let (status, body) = if bytes.is_empty() { (200, None) } else { read(&bytes, *method == "HEAD", &name) };
            match expected {
                Seen::Whole(code, content) => {
                    assert_eq!(
                        (status, body.as_deref().map(String::from_utf8_lossy).as_deref()),
                        (*code, Some(*content)),
                        "{name}"
                    );
                }
                Seen::Refused => assert!(status == 502 && body.is_some(), "{name}: {status}"),
                Seen::Cut(code) => assert_eq!((status, body), (*code, None), "{name}"),
            }
            env.get("h", "/innocent").await.is(200, "/innocent");
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_has_asked_for_is_nobodys() {
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (go_there, gone_there) = (Arc::clone(&go), Arc::clone(&gone));
    let app = Backend::talking(move |mut conn| {
        let (go, gone) = (Arc::clone(&go_there), Arc::clone(&gone_there));
        async move {
            while let Some(seen) = conn.request().await {
                conn.ok(seen.path()).await;
                if seen.path() == "/twice" {
                    go.notified().await;
                    conn.send(POISON).await;
                    // Nothing else may come on this connection.
                    assert!(conn.head().await.is_none());
                    gone.notify_one();
                }
            }
        }
    })
    .await;
    let mut env = Env::with(|options| {
        options.workers = 1;
        options.limits.upstream_idle = Duration::from_secs(2);
    })
    .await;
    env.serve(&[("t", app.address)]).await;
    for _ in 0..5 {
        env.get("h", "/twice").await.is(200, "/twice");
        go.notify_one();
        soon(gone.notified()).await;
        for number in 0..10 {
            let path = format!("/innocent/{number}");
            env.get("h", &path).await.is(200, &path);
        }
    }
}

#[tokio::test]
async fn what_a_target_takes_for_a_request_because_it_has_not_read_the_body_is_answered_to_nobody() {
    const SMUGGLED: &str = "GET /poison HTTP/1.1\r\nHost: h\r\n\r\n";
    // Never reads a body: its bytes are the next request.
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.head().await {
            conn.ok(seen.path()).await;
        }
    })
    .await;
    let mut env = Env::with(|options| options.workers = 1).await;
    env.serve(&[("t", app.address)]).await;
    for _ in 0..20 {
        let mut wire = env.connect().await;
        wire.send(&format!("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", SMUGGLED.len())).await;
        soon(wire.answer()).await.is(200, "/early");
        wire.send(SMUGGLED).await;
        wire.stream.shutdown().await.unwrap();
        assert!(rest(&mut wire).await.is_empty());
        for number in 0..3 {
            let path = format!("/innocent/{number}");
            env.get("h", &path).await.is(200, &path);
        }
    }
}

#[tokio::test]
async fn what_a_target_reflects_stays_a_value() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let value = seen.header("x-reflect").unwrap_or_default().replace("%0d", "\r").replace("%0a", "\n");
            conn.send(&format!("HTTP/1.1 200 OK\r\nX-Reflected: {value}\r\nContent-Length: 2\r\n\r\nhi")).await;
        }
    })
    .await;
    let mut env = Env::with(|options| options.workers = 1).await;
    env.serve(&[("t", app.address)]).await;
    for (value, statuses) in [
        ("a%0db", &[502][..]),
        ("a%0ab", &[502]),
        ("a%0a b", &[502]),
        ("a%0d%0a b", &[502]),
        // Here the target itself has written another field, and then another answer.
        ("a%0d%0aContent-Length: 2", &[502]),
        ("a%0d%0aContent-Length: 0%0d%0a%0d%0aHTTP/1.1 200 OK", &[200]),
    ] {
        let mut wire = env.connect().await;
        wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\nX-Reflect: {value}\r\nConnection: close\r\n\r\n")).await;
        let (status, body) = read(&rest(&mut wire).await, false, value);
        assert!(statuses.contains(&status), "{value}: {status}");
        assert!(status == 502 || body.as_deref() == Some(b""), "{value}: {body:?}");
        env.get("h", "/").await.is(200, "hi");
    }
}

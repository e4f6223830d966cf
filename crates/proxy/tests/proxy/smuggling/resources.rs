//! Clients and targets that want to use the proxy up.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::Backend;
use crate::env::{Env, Wire, soon, until};

const MEGABYTE: usize = 1024 * 1024;

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn impatient(app: &Backend) -> Env {
    let mut env = Env::with(|options| {
        options.workers = 1;
        options.limits.header_read = Duration::from_millis(700);
        options.limits.idle = Duration::from_secs(10);
        options.limits.response_header = Duration::from_millis(700);
        options.limits.stall = Duration::from_millis(700);
    })
    .await;
    env.serve(&[("t", app.address)]).await;
    env
}

/// Sends a piece again and again until the proxy has enough; everything it says.
async fn endless(env: &Env, begin: &str, piece: &[u8], pause: Duration) -> String {
    let mut wire = env.connect().await;
    wire.send(begin).await;
    let (mut read, mut write) = wire.stream.into_split();
    let sends = async {
        while write.write_all(piece).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
        // Reset, or closed: whatever it has said can be read.
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    let reads = async { drop(read.read_to_end(&mut bytes).await) };
    soon(async {
        tokio::select! { () = sends => (), () = reads => () }
    })
    .await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off_and_hold_up_nobody() {
    let app = Backend::saying("hi").await;
    let env = impatient(&app).await;
    let slow = Duration::from_millis(100);
    let heads = (0..100).map(|_| endless(&env, "GET / HTTP/1.1\r\nX: ", b"y", slow));
    let (heads, ()) = tokio::join!(futures::future::join_all(heads), async {
        for _ in 0..50 {
            env.get("h", "/").await.is(200, "hi");
        }
    });
    assert!(heads.iter().all(|text| text.is_empty() || text.starts_with("HTTP/1.1 408 ")), "{heads:?}");
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = env.connect().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx").await;
        wires.push(wire);
    }
    for mut wire in wires {
        assert_eq!(soon(wire.answer()).await.status, 408);
        assert!(wire.is_closed().await);
    }
    until("nothing is under way", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn heads_and_frames_without_end_are_refused() {
    let app = Backend::saying("hi").await;
    let env = impatient(&app).await;
    let before = resident();
    let now = Duration::ZERO;
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (many, long) = ("X: y\r\n".repeat(100), "y".repeat(1000));
    for (status, begin, piece) in [
        ("431", "GET / HTTP/1.1\r\nHost: h\r\n".to_owned(), many.clone()),
        ("431", "GET / HTTP/1.1\r\nHost: h\r\nX: ".to_owned(), long.clone()),
        ("414", "GET /".to_owned(), long.clone()),
        ("414", String::new(), long.clone()),
        ("400", format!("{chunked}1;a="), long.clone()),
        ("400", format!("{chunked}1;a=\""), long.clone()),
        ("400", chunked.to_owned(), "1;aaaaaaaa\r\nx\r\n".repeat(50)),
        ("400", format!("{chunked}0\r\n"), many),
        ("400", format!("{chunked}0\r\nX: "), long.clone()),
        ("400", chunked.to_owned(), "0".repeat(1000)),
        ("400", chunked.to_owned(), " ".repeat(1000)),
        ("400", String::new(), "\r\n".repeat(1000)),
    ] {
        let answer = endless(&env, &begin, piece.as_bytes(), now).await;
        // A client that goes on sending may find the connection reset before it has read the answer.
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{begin:?}: {answer:?}");
        env.get("h", "/").await.is(200, "hi");
    }
    for count in [100, 101, 5000] {
        let mut wire = env.connect().await;
        let fields: String = (0..count - 1).map(|number| format!("x{number}: y\r\n")).collect();
        wire.send(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).await;
        assert_eq!(soon(wire.answer()).await.status, if count == 100 { 200 } else { 431 }, "{count}");
    }
    assert!(resident().saturating_sub(before) < 32 * MEGABYTE);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_neither_kept_in_memory_nor_for_ever() {
    let app = Backend::talking(|mut conn| async move {
        while conn.head().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n").await;
            let piece = vec![b'x'; MEGABYTE];
            while conn.stream.write_all(&piece).await.is_ok() {}
        }
    })
    .await;
    let env = impatient(&app).await;
    let before = resident();
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = env.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        wires.push(wire);
    }
    until("they are under way", async || env.in_flight().await > 0).await;
    until("they are given up", async || env.in_flight().await == 0).await;
    let grown = resident().saturating_sub(before);
    // Each target here has a megabyte of its own.
    assert!(grown < 64 * MEGABYTE, "{grown} bytes more");
    drop(wires);
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_no_more() {
    let app = Backend::saying("hi").await;
    let mut env = Env::with(|options| options.max_connections_per_client = Some(5)).await;
    env.serve(&[("t", app.address)]).await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = env.connect().await;
        wire.get("/").await.is(200, "hi");
        wires.push(wire);
    }
    for _ in 0..20 {
        assert!(env.connect().await.is_closed().await);
    }
    for wire in &mut wires {
        wire.get("/").await.is(200, "hi");
    }
    wires.pop();
    until("there is room again", async || {
        let mut wire = env.connect().await;
        wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.is_ok() && wire.try_answer(false).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_idle_connections_are_cheap() {
    const MANY: u64 = 10_000;
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = MANY.min(room.saturating_sub(200) / 2);
    let app = Backend::saying("hi").await;
    let mut env = Env::with(|options| options.limits.idle = Duration::from_secs(600)).await;
    env.serve(&[("t", app.address)]).await;
    env.get("h", "/").await.is(200, "hi");
    let before = resident();
    let mut wires: Vec<Wire> = Vec::new();
    for _ in 0..count {
        let mut wire = env.connect().await;
        // It has been used.
        wire.get("/").await.is(200, "hi");
        wires.push(wire);
    }
    let each = resident().saturating_sub(before) / wires.len();
    #[allow(clippy::print_stderr, reason = "the number is what one wants to know")]
    {
        eprintln!("{each} bytes for each of {count} idle connections, {} in all", resident());
    }
    // With what the test itself keeps for each.
    assert!(each < 12 * 1024, "{each} bytes for each of {count}");
    env.get("h", "/").await.is(200, "hi");
    for wire in wires.iter_mut().step_by(1000) {
        wire.get("/").await.is(200, "hi");
    }
}

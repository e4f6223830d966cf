//! One proxy after the other.

use std::time::Duration;

use coracle_proxy::{ListenerOptions, Proxy, StartError};

use crate::backend::Backend;
use crate::env::{Env, Wire, ids, soon, until};
use crate::load::Load;
use crate::upgrade;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_successors_under_load_lose_nothing() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let http = env.http();
    let load = Load::on(http, 16);
    let mut ended = Vec::new();
    for _ in 0..10 {
        let successor = Proxy::start(env.options.clone()).await.unwrap();
        assert_eq!(successor.addresses(), [http]);
        let mut old = env.proxy.replace(successor).unwrap();
        ended.push(tokio::spawn(async move { old.ended().await }));
        let before = load.answered.load(std::sync::atomic::Ordering::SeqCst);
        until("load", async || load.answered.load(std::sync::atomic::Ordering::SeqCst) > before + 50).await;
    }
    assert!(load.end().await > 500);
    for old in ended {
        soon(old).await.unwrap();
    }
    // Nothing is left but the successor's own.
    let mut left: Vec<_> =
        std::fs::read_dir(env.directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["control", "control.lock", "state"]);
}

#[tokio::test]
async fn a_websocket_and_an_idle_connection_survive_until_they_are_through() {
    let app = upgrade::echo_socket().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut socket = upgrade::open(env.http()).await;
    let mut idle = env.connect().await;
    idle.get("/").await.is(200, "plain");
    let mut old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();
    upgrade::echoes(&mut socket, "after").await;
    let answer = idle.get("/").await;
    answer.is(200, "plain");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(idle.is_closed().await);
    let mut fresh = env.connect().await;
    let answer = fresh.get("/").await;
    assert_ne!(answer.header("connection"), Some("close"), "the successor answers");
    drop(socket);
    soon(old.ended()).await;
    until("no predecessor", async || {
        // It is forgotten when it is asked for something.
        env.client().drain(&ids(&["nobody"]), Duration::ZERO).await.unwrap();
        env.client().status().await.unwrap().predecessors == 0
    })
    .await;
}

/// A table and a drain after the hand-over reach what the predecessor still serves.
#[tokio::test]
async fn the_predecessor_follows_tables_and_drains() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let v1 = Backend::talking(move |mut conn| {
        let mut gone = gone.clone();
        async move {
            while let Some(seen) = conn.request().await {
                if seen.path() == "/slow" && gone.wait_for(|gone| *gone).await.is_err() {
                    return;
                }
                conn.ok("v1").await;
            }
        }
    })
    .await;
    let v2 = Backend::saying("v2").await;
    let mut env = Env::new().await;
    env.serve(&[("v1", v1.address)]).await;
    let (mut idle, mut slow) = (env.connect().await, env.connect().await);
    idle.get("/").await.is(200, "v1");
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("in flight", async || env.in_flight().await == 1).await;
    let _old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();

    env.serve(&[("v2", v2.address)]).await;
    let client = env.client();
    let drain = tokio::spawn(async move { client.drain(&ids(&["v1"]), Duration::from_secs(15)).await.unwrap() });
    idle.get("/").await.is(200, "v2");
    assert!(!drain.is_finished(), "the predecessor still has a request there");
    go.send(true).unwrap();
    soon(slow.answer()).await.is(200, "v1");
    assert_eq!(soon(drain).await.unwrap().cut_off, 0);
}

fn listener(address: &str) -> ListenerOptions {
    ListenerOptions::http(address.parse().unwrap())
}

#[tokio::test]
async fn addresses_may_change() {
    let app = Backend::saying("hello").await;
    let mut env = Env::with(|options| options.listeners.push(listener("127.0.0.2:0"))).await;
    env.serve(&[("t", app.address)]).await;
    let [kept, dropped] = *env.proxy.as_ref().unwrap().addresses() else { panic!("two") };
    env.options.listeners = vec![listener("127.0.0.3:0"), ListenerOptions::http(kept)];
    let mut old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();
    soon(old.ended()).await;
    assert_eq!(env.proxy.as_ref().unwrap().addresses()[1], kept);
    for address in env.proxy.as_ref().unwrap().addresses() {
        Wire::to(*address).await.get("/").await.is(200, "hello");
    }
    assert!(tokio::net::TcpStream::connect(dropped).await.is_err());
}

#[tokio::test]
async fn a_successor_that_cannot_start_leaves_the_old_one_serving() {
    let app = Backend::saying("hello").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wrong = env.options.clone();
    wrong.listeners = [env.http(), taken.local_addr().unwrap()].map(ListenerOptions::http).into();
    for _ in 0..3 {
        let error = Proxy::start(wrong.clone()).await.unwrap_err();
        assert!(matches!(error, StartError::Listen { address, .. } if address == taken.local_addr().unwrap()), "{error}");
    }
    env.get("h", "/").await.is(200, "hello");
    until("only the control socket is open", async || control_sockets(&env) == 1).await;
    // And it can still be told things, and be succeeded.
    until("the table can change", async || env.client().table().await.is_ok()).await;
    env.serve(&[]).await;
    assert_eq!(env.get("h", "/").await.status, 503);
    let successor = Proxy::start(env.options.clone()).await.unwrap();
    assert_eq!(successor.addresses(), [env.http()]);
}

/// How many sockets listen at the control socket's path and beside it.
fn control_sockets(env: &Env) -> usize {
    /// The kernel's flag for a socket that listens (`__SO_ACCEPTCON`).
    const LISTENS: &str = "00010000";
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let path = env.options.control_socket.display().to_string();
    sockets.lines().filter(|line| line.contains(&path) && line.split_whitespace().nth(3) == Some(LISTENS)).count()
}

#[tokio::test]
async fn a_successor_that_vanishes_half_way_leaves_the_old_one_serving() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    for words in ["", "ready\n"] {
        let mut stream = tokio::net::UnixStream::connect(&env.options.control_socket).await.unwrap();
        stream
            .write_all(b"POST /v1/handover HTTP/1.1\r\nHost: p\r\nConnection: upgrade\r\nUpgrade: coracle-handover\r\n\r\n")
            .await
            .unwrap();
        let mut head = [0; 12];
        soon(stream.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        stream.write_all(words.as_bytes()).await.unwrap();
        // It even took the path.
        std::fs::remove_file(&env.options.control_socket).unwrap();
        drop(stream);
        until("the control socket is back", async || env.client().status().await.is_ok()).await;
        env.serve(&[("t", app.address)]).await;
        env.get("h", "/").await.is(200, "hello");
    }
}

#[tokio::test]
async fn a_stale_control_socket_is_no_proxy_and_a_taken_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&control).unwrap());
    assert!(control.exists());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut env = Env::with(|options| options.control_socket = control.clone()).await;
    assert_eq!(env.client().status().await.unwrap().pid, std::process::id());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&control).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    env.proxy.take().unwrap().shutdown().await;
    env.options.listeners = vec![ListenerOptions::http(taken.local_addr().unwrap())];
    let error = Proxy::start(env.options.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {}", taken.local_addr().unwrap())), "{error}");
}

//! What goes on within TLS: requests, WebSockets, and a proxy that is replaced meanwhile.

use std::time::Duration;

use coracle_proxy::{AccessLog, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::{connect, look, truster};
use super::{https, local, local_root, publish, with_tls};
use crate::backend::Backend;
use crate::env::{Env, soon, until};
use crate::upgrade::echo_socket;

const WEBSOCKET: &str =
    "GET /ws HTTP/1.1\r\nHost: a.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[tokio::test]
async fn long_bodies_go_both_ways() {
    let app = Backend::answering(|seen| String::from_utf8(seen.body.clone()).unwrap()).await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["a.localhost"], app.address)).await;
    let mut wire = connect(truster(&local_root(&env)), https(&env), "a.localhost").await.unwrap();
    let body = "0123456789abcdef".repeat(128 * 1024);
    for _ in 0..2 {
        wire.send(&format!("POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        soon(wire.stream.write_all(body.as_bytes())).await.unwrap();
        soon(wire.stream.flush()).await.unwrap();
        let answer = soon(wire.answer()).await;
        assert!(answer.status == 200 && answer.body == body);
    }
}

#[tokio::test]
async fn websockets_go_through() {
    let app = echo_socket().await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["a.localhost"], app.address)).await;
    let mut wire = connect(truster(&local_root(&env)), https(&env), "a.localhost").await.unwrap();
    wire.send(WEBSOCKET).await;
    assert!(wire.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    wire.read_until("hi").await;
    // More than any buffer on the way holds, so that both directions wait at times.
    let sent: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(wire.stream);
    let mut received = vec![0; sent.len()];
    let both = async {
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.flush().await.unwrap();
        };
        tokio::join!(writing, async { read.read_exact(&mut received).await.unwrap() });
    };
    soon(both).await;
    assert!(received == sent);
    // A few bytes, after a while in which nothing was said.
    for _ in 0..3 {
        write.write_all(b"ping").await.unwrap();
        write.flush().await.unwrap();
        let mut pong = [0; 4];
        soon(read.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"ping");
    }
    assert_eq!(env.upgraded().await, 1);
    write.shutdown().await.unwrap();
    assert_eq!(soon(read.read(&mut [0; 8])).await.unwrap(), 0);
    until("it has ended", async || env.upgraded().await == 0).await;
}

#[tokio::test]
async fn a_successor_shows_the_same_certificates() {
    let app = echo_socket().await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["a.localhost"], app.address)).await;
    let root = local_root(&env);
    let (http, https) = (env.http(), https(&env));
    let serial = look(https, "a.localhost").await.unwrap();
    let mut socket = connect(truster(&root), https, "a.localhost").await.unwrap();
    socket.send(WEBSOCKET).await;
    socket.read_until("hi").await;
    let mut kept = connect(truster(&root), https, "a.localhost").await.unwrap();
    env.options.listeners[0].address = http;
    env.options.listeners[1].address = https;
    let mut old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();
    // Not a moment without: the first handshake with the successor.
    assert_eq!(look(https, "a.localhost").await.unwrap(), serial);
    kept.send("GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    soon(kept.answer()).await.is(200, "plain");
    socket.send("still here").await;
    socket.read_until("still here").await;
    drop((socket, kept));
    soon(old.ended()).await;
    // The successor keeps the certificates now, and gets new ones.
    publish(&mut env, local(&["a.localhost", "b.localhost"], app.address)).await;
    connect(truster(&root), https, "b.localhost").await.unwrap();
}

#[tokio::test]
async fn the_access_log_and_routes_know() {
    let (plain, encrypted) = (Backend::saying("plain").await, Backend::saying("encrypted").await);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let mut env = Env::with(|options| {
        with_tls(options);
        options.access_log = AccessLog::File(log.clone());
    })
    .await;
    let mut table = local(&["a.localhost", "a.localhost"], plain.address);
    let mut other = local(&["a.localhost"], encrypted.address).services.pop_first().unwrap().1;
    other.targets[0].id.0 = "e".into();
    table.services.insert(coracle_proxy::table::ServiceId("encrypted".into()), other);
    table.routes[0].tls = Some(false);
    table.routes[1].tls = Some(true);
    table.routes[1].service = Some(coracle_proxy::table::ServiceId("encrypted".into()));
    publish(&mut env, table).await;
    env.get("a.localhost", "/one").await.is(200, "plain");
    let mut wire = connect(truster(&local_root(&env)), https(&env), "a.localhost").await.unwrap();
    wire.send("GET /two HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    soon(wire.answer()).await.is(200, "encrypted");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    until("two lines", async || lines().lines().count() >= 2).await;
    let said = |path: &str| lines().lines().find(|line| line.contains(path)).unwrap().to_owned();
    assert!(said("/one").contains("\"tls\":false") && said("/two").contains("\"tls\":true"), "{}", lines());
}

#[tokio::test]
async fn a_stopping_proxy_lets_a_handshake_end() {
    let app = Backend::saying("hello").await;
    let mut env = Env::with(|options| {
        with_tls(options);
        options.drain = Duration::from_secs(20);
    })
    .await;
    publish(&mut env, local(&["a.localhost"], app.address)).await;
    let root = local_root(&env);
    let https = https(&env);
    let stream = tokio::net::TcpStream::connect(https).await.unwrap();
    let proxy = env.proxy.take().unwrap();
    let ends = tokio::spawn(proxy.shutdown());
    until("refused", async || tokio::net::TcpStream::connect(https).await.is_err()).await;
    let mut wire = super::clients::connect_over(truster(&root), stream, "a.localhost").await.unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    answer.is(200, "hello");
    assert_eq!(answer.header("connection"), Some("close"));
    soon(ends).await.unwrap();
}

#[tokio::test]
async fn http2_is_spoken_where_the_client_prefers_it() {
    let app = Backend::answering(|seen| format!("{} {}", seen.header("x-forwarded-proto").unwrap(), seen.path())).await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["a.localhost", "b.localhost"], app.address)).await;
    let mut config = truster(&local_root(&env));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let wire = connect(config, https(&env), "a.localhost").await.unwrap();
    assert_eq!(wire.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = soon(h2::client::handshake(wire.stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut get = async |uri: &str| {
        let request = http::Request::get(uri).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let response = soon(response).await.unwrap();
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(data) = soon(body.data()).await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            text.extend(data);
        }
        (status, String::from_utf8(text).unwrap())
    };
    for path in ["/one", "/two"] {
        assert_eq!(get(&format!("https://a.localhost{path}")).await, (200, format!("https {path}")));
    }
    // Another host with a certificate of its own: the client is to connect for it.
    assert_eq!(get("https://b.localhost/").await.0, 421);
    assert_eq!(get("https://a.localhost/still").await.0, 200);
    driver.abort();
}

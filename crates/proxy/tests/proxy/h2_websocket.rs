//! WebSockets on streams of HTTP/2 (RFC 8441).

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use sha1::{Digest, Sha1};

use crate::backend::{Backend, Conn};
use crate::env::{Env, ids, soon, until};
use crate::h2::{Client, request};

/// Answers the key as a server has to; greets at once, echoes, and says when its client is through.
async fn echo_socket() -> Backend {
    Backend::talking(|mut conn: Conn| async move {
        let Some(seen) = conn.request().await else { return };
        assert_eq!(
            (seen.line.as_str(), seen.header("connection"), seen.header("upgrade")),
            ("GET /ws HTTP/1.1", Some("upgrade"), Some("websocket"))
        );
        assert_eq!(seen.header("sec-websocket-version"), Some("13"));
        let mut hash = Sha1::new();
        hash.update(seen.header("sec-websocket-key").unwrap());
        hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = match seen.header("x-wrong") {
            Some(_) => "wrong".to_owned(),
            None => base64::engine::general_purpose::STANDARD.encode(hash.finalize()),
        };
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n";
        conn.send(&format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\nhi")).await;
        let (mut read, mut write) = conn.stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(tokio::io::AsyncWriteExt::write_all(&mut write, b"through").await);
    })
    .await
}

fn ask(protocol: &'static str) -> Request<()> {
    let mut asked = request(Method::CONNECT, "/ws");
    asked.extensions_mut().insert(Protocol::from_static(protocol));
    asked.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    asked
}

async fn client(env: &Env) -> Client {
    let client = Client::to(env.http()).await;
    // The settings that allow it come with the first words of the proxy.
    until("connect is allowed", async || client.send.is_extended_connect_protocol_enabled()).await;
    client
}

struct Socket {
    stream: SendStream<Bytes>,
    body: RecvStream,
}

async fn open(client: &Client) -> Socket {
    let (response, stream) = client.begin(ask("websocket"), false).await.unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["sec-websocket-protocol"].as_bytes()), (200, b"chat".as_slice()));
    assert!(!response.headers().contains_key("sec-websocket-accept") && !response.headers().contains_key("upgrade"));
    let mut socket = Socket { stream, body: response.into_body() };
    socket.reads("hi").await;
    socket
}

impl Socket {
    async fn reads(&mut self, text: &str) {
        let mut read = Vec::new();
        while read.len() < text.len() {
            let piece = soon(self.body.data()).await.unwrap().unwrap();
            self.body.flow_control().release_capacity(piece.len()).unwrap();
            read.extend_from_slice(&piece);
        }
        assert_eq!(String::from_utf8(read).unwrap(), text);
    }

    /// It ends, one way or the other, without another byte.
    async fn ends(&mut self) {
        while let Some(Ok(piece)) = soon(self.body.data()).await {
            assert!(piece.is_empty(), "{piece:?}");
        }
    }

    async fn echoes(&mut self, text: &'static str) {
        self.stream.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
        self.reads(text).await;
    }
}

#[tokio::test]
async fn many_on_one_connection_each_with_its_own_bytes_and_its_own_end() {
    let app = echo_socket().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = client(&env).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(open(&client).await);
    }
    for socket in &mut sockets {
        socket.echoes("hello").await;
    }
    assert_eq!((env.in_flight().await, env.upgraded().await), (0, 10));
    // One side may be through before the other.
    let mut one = sockets.pop().unwrap();
    one.stream.send_data(Bytes::new(), true).unwrap();
    one.reads("through").await;
    one.ends().await;
    until("one less", async || env.upgraded().await == 9).await;
    // Or go without a word.
    drop(sockets.pop());
    until("two less", async || env.upgraded().await == 8).await;
    sockets[0].echoes("still here").await;
}

#[tokio::test]
async fn what_is_none_is_no_success() {
    let app = Backend::saying("plain").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = client(&env).await;
    assert_eq!(client.ask(ask("websocket"), b"").await.unwrap().status, 502);
    let (response, _stream) = client.begin(ask("something-else"), false).await.unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 405);
    let strict = echo_socket().await;
    env.serve(&[("s", strict.address)]).await;
    let mut wrong = ask("websocket");
    wrong.headers_mut().insert("x-wrong", "1".parse().unwrap());
    let (response, _stream) = client.begin(wrong, false).await.unwrap();
    assert!(soon(response).await.is_err());
    open(&client).await.echoes("right").await;
}

#[tokio::test]
async fn a_drain_closes_them_and_leaves_the_connection() {
    let app = echo_socket().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = client(&env).await;
    let mut socket = open(&client).await;
    let plain = Backend::saying("fine").await;
    env.serve(&[("p", plain.address)]).await;
    socket.echoes("still here").await;
    env.client().drain(&ids(&["t"]), Duration::from_secs(5)).await.unwrap();
    socket.ends().await;
    assert_eq!(env.upgraded().await, 0);
    client.get("/").await.is(200, "fine");
}

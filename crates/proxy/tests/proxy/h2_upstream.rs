//! Targets that speak HTTP/2, as gRPC servers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coracle_proxy::table::{Admission, Protocol, ServiceId, Table};
use h2::ext::Protocol as Upgraded;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::env::{Env, ids, soon, table, until};
use crate::h2::{Client, long, put, read, request, whole};

/// A server; dropping it kills it, connections and all.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One stream.
struct Call {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

/// How a server's connections are.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// How many streams at once.
    streams: Option<u32>,
    /// After so many a connection is closed gracefully.
    goodbye: Option<usize>,
    /// Takes WebSockets (RFC 8441).
    sockets: bool,
}

impl Server {
    async fn calling<F: Future<Output = ()> + Send + 'static>(
        manner: Manner,
        answer: impl Fn(Call) -> F + Send + Sync + Clone + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, opened) = (Arc::clone(&connections), Arc::clone(&open));
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                opened.fetch_add(1, Ordering::SeqCst);
                let (answer, opened) = (answer.clone(), Arc::clone(&opened));
                tasks.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if manner.sockets {
                        builder.enable_connect_protocol();
                    }
                    if let Some(streams) = manner.streams {
                        builder.max_concurrent_streams(streams);
                    }
                    let mut streams = JoinSet::new();
                    if let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await {
                        let mut number = 0;
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            streams.spawn(answer(Call { request, respond }));
                            number += 1;
                            if manner.goodbye == Some(number) {
                                connection.graceful_shutdown();
                            }
                        }
                    }
                    opened.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, open, task }
    }

    /// Answers with the method, the path and the body, and trailers as gRPC has them.
    async fn echo(manner: Manner) -> Self {
        Self::calling(manner, |mut call: Call| async move {
            assert!(call.request.headers().get("connection").is_none() && call.request.headers().get("host").is_none());
            let line = format!("{} {}", call.request.method(), call.request.uri());
            let te = call.request.headers().get("te").cloned();
            let Ok((body, sum)) = read(call.request.into_body()).await else { return };
            let mut response = Response::new(());
            response.headers_mut().insert("x-line", line.parse().unwrap());
            te.map(|te| response.headers_mut().insert("x-te", te));
            let Ok(mut stream) = call.respond.send_response(response, false) else { return };
            if put_all(&mut stream, body.into()).await.is_ok() {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                sum.map(|sum| trailers.insert("x-sum", sum["x-sum"].clone()));
                drop(stream.send_trailers(trailers));
            }
        })
        .await
    }
}

async fn put_all(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Reason::CANCEL)??;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

fn grpc(targets: &[(&str, SocketAddr)]) -> Table {
    let mut table = table(&[("*", "/", "app")], &[("app", Admission::Open, targets)]);
    table.services.get_mut(&ServiceId("app".into())).unwrap().protocol = Protocol::H2c;
    table
}

async fn one_worker() -> Env {
    Env::with(|options| options.workers = 1).await
}

#[tokio::test]
async fn a_call_with_trailers_both_ways() {
    let server = Server::echo(Manner::default()).await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    let mut asked = request(Method::POST, "/pkg.Service/Call?x");
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut stream) = client.begin(asked, false).await.unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let answer = soon(whole(response)).await.unwrap();
    answer.is(200, "hello");
    assert_eq!(answer.headers["x-line"], "POST http://app.test/pkg.Service/Call?x");
    assert_eq!(answer.headers["x-te"], "trailers");
    let trailers = answer.trailers.unwrap();
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-sum"].as_bytes()), (b"0".as_slice(), b"5".as_slice()));
}

#[tokio::test]
async fn clients_of_http_1_1_are_answered_too() {
    let server = Server::echo(Manner::default()).await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let mut wire = env.connect().await;
    wire.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    let answer = soon(wire.answer()).await;
    answer.is(200, "hello");
    assert_eq!(answer.header("x-line"), Some("post http://h/a"));
    assert_eq!(answer.trailers, "grpc-status: 0\r\n");
    wire.send("POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nagain\r\n0\r\nX-Sum: 5\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    answer.is(200, "again");
    assert!(answer.trailers.contains("x-sum: 5\r\n"), "{answer:?}");
    wire.get("/c").await.is(200, "");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_may_be_a_conversation() {
    let server = Server::calling(Manner::default(), |mut call: Call| async move {
        let mut body = call.request.into_body();
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).unwrap();
            drop(stream.send_data(piece, false));
        }
        drop(stream.send_data(Bytes::new(), true));
    })
    .await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    let (response, mut stream) = client.begin(request(Method::POST, "/"), false).await.unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        stream.send_data(Bytes::from(word), false).unwrap();
        assert_eq!(soon(body.data()).await.unwrap().unwrap(), word);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(soon(body.data()).await.is_none_or(|piece| piece.unwrap().is_empty()) && body.is_end_stream());
}

#[tokio::test]
async fn streams_share_connections_and_further_ones_are_opened_when_those_are_full() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let server = Server::calling(Manner { streams: Some(10), ..Manner::default() }, move |mut call: Call| {
        let opened = Arc::clone(&opened);
        async move {
            if call.request.uri().path() == "/wait" {
                opened.acquire().await.unwrap().forget();
            }
            drop(call.respond.send_response(Response::new(()), true));
        }
    })
    .await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    // By now the target has said how many it takes.
    client.get("/").await.is(200, "");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let (response, _) = client.begin(request(Method::GET, "/wait"), true).await.unwrap();
        waiting.push(tokio::spawn(whole(response)));
    }
    until("all there", async || env.in_flight().await == 30).await;
    client.get("/").await.is(200, "");
    gate.add_permits(30);
    for answer in waiting {
        soon(answer).await.unwrap().unwrap().is(200, "");
    }
    let connections = server.connections.load(Ordering::SeqCst);
    assert!((3..=6).contains(&connections), "{connections}");
}

#[tokio::test]
async fn long_bodies_go_both_ways() {
    let server = Server::echo(Manner::default()).await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    let bytes = long(4 * 1024 * 1024);
    let (response, stream) = client.begin(request(Method::POST, "/"), false).await.unwrap();
    let upload = tokio::spawn(put(stream, bytes.clone()));
    let answer = soon(whole(response)).await.unwrap();
    soon(upload).await.unwrap().unwrap();
    assert!(answer.body == bytes && answer.trailers.is_some());
}

#[tokio::test]
async fn a_target_that_says_goodbye_again_and_again_loses_nothing() {
    let server = Server::echo(Manner { goodbye: Some(5), ..Manner::default() }).await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    for _ in 0..20 {
        let calls = (0..10).map(|_| client.ask(request(Method::POST, "/"), b""));
        for answer in futures::future::join_all(calls).await {
            answer.unwrap().is(200, "");
        }
    }
    assert!(server.connections.load(Ordering::SeqCst) > 5);
}

#[tokio::test]
async fn what_was_refused_unseen_is_sent_again_whatever_it_is() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let server = Server::calling(Manner::default(), move |mut call: Call| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 1;
        async move {
            let reason = match call.request.uri().path() {
                "/refused" if first => Reason::REFUSED_STREAM,
                "/broken" => Reason::INTERNAL_ERROR,
                _ => {
                    drop(call.respond.send_response(Response::new(()), true));
                    return;
                }
            };
            call.respond.send_reset(reason);
        }
    })
    .await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    client.get("/").await.is(200, "");
    client.ask(request(Method::POST, "/refused"), b"").await.unwrap().is(200, "");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    // What has been seen is not.
    assert_eq!(client.ask(request(Method::POST, "/broken"), b"").await.unwrap().status, 502);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_client_that_takes_back_a_call_takes_it_back_from_the_target() {
    let reasons = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&reasons);
    let server = Server::calling(Manner::default(), move |mut call: Call| {
        let seen = Arc::clone(&seen);
        async move {
            let why = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
            seen.lock().unwrap().push(why.unwrap());
        }
    })
    .await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let client = Client::to(env.http()).await;
    let kept = client.begin(request(Method::GET, "/"), true).await.unwrap();
    let taken_back = client.begin(request(Method::GET, "/"), true).await.unwrap();
    until("both there", async || env.in_flight().await == 2).await;
    drop(taken_back);
    until("told", async || reasons.lock().unwrap().as_slice() == [Reason::CANCEL]).await;
    assert_eq!(env.in_flight().await, 1);
    drop(kept);
}

#[tokio::test]
async fn a_cut_target_loses_its_connections_and_an_unused_one_too() {
    let hangs = Server::calling(Manner::default(), |call: Call| async move {
        let _call = call;
        std::future::pending::<()>().await;
    })
    .await;
    let server = Server::echo(Manner::default()).await;
    let mut env = Env::with(|options| {
        options.workers = 1;
        options.limits.idle = Duration::from_millis(300);
    })
    .await;
    env.publish(grpc(&[("old", hangs.address)])).await;
    let client = Client::to(env.http()).await;
    let (response, _) = client.begin(request(Method::GET, "/"), true).await.unwrap();
    until("under way", async || hangs.open.load(Ordering::SeqCst) == 1 && env.in_flight().await == 1).await;
    env.publish(grpc(&[("new", server.address)])).await;
    let drained = env.client().drain(&ids(&["old"]), Duration::from_millis(50)).await.unwrap();
    assert_eq!(drained.cut_off, 1);
    assert_eq!(soon(whole(response)).await.unwrap().status, 504);
    until("closed", async || hangs.open.load(Ordering::SeqCst) == 0).await;
    Client::to(env.http()).await.get("/").await.is(200, "");
    until("closed when idle", async || server.open.load(Ordering::SeqCst) == 0).await;
    Client::to(env.http()).await.get("/").await.is(200, "");
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_target_that_is_none_or_speaks_something_else_is_a_bad_gateway() {
    let http1 = crate::backend::Backend::saying("no").await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", http1.address)])).await;
    let client = Client::to(env.http()).await;
    assert_eq!(client.ask(request(Method::GET, "/"), b"").await.unwrap().status, 502);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    env.publish(grpc(&[("n", nobody)])).await;
    assert_eq!(client.ask(request(Method::POST, "/"), b"").await.unwrap().status, 502);
}

/// Opens WebSockets and echoes them.
async fn sockets() -> Server {
    Server::calling(Manner { sockets: true, ..Manner::default() }, |mut call: Call| async move {
        let asked = &call.request;
        let protocol = asked.extensions().get::<Upgraded>().map(Upgraded::as_str);
        assert_eq!((asked.method(), asked.uri().path(), protocol), (&Method::CONNECT, "/ws", Some("websocket")));
        let has = |name: &str| asked.headers().contains_key(name);
        assert!(has("sec-websocket-version") && !has("sec-websocket-key") && !has("upgrade") && !has("connection"));
        if has("x-refuse") {
            let refusal = Response::builder().status(403).body(()).unwrap();
            drop(call.respond.send_response(refusal, true));
            return;
        }
        let opened = Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
        let mut stream = call.respond.send_response(opened, false).unwrap();
        let body = call.request.body_mut();
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).unwrap();
            stream.send_data(piece, false).unwrap();
        }
        drop(stream.send_data(Bytes::from_static(b"through"), true));
    })
    .await
}

const KNOCK: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn websockets_reach_targets_whatever_their_clients_speak() {
    let server = sockets().await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let mut wire = env.connect().await;
    wire.send(&format!("{KNOCK}\r\n")).await;
    let head = soon(wire.read_until("\r\n\r\n")).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    for line in
        ["upgrade: websocket\r\n", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n", "sec-websocket-protocol: chat\r\n"]
    {
        assert!(head.contains(line), "{line}: {head}");
    }
    for text in ["hello", &"long ".repeat(50_000)] {
        wire.send(text).await;
        let mut echoed = Vec::new();
        while echoed.len() < text.len() {
            echoed.extend(wire.read_any().await);
        }
        assert!(echoed == text.as_bytes(), "{} of {} bytes", echoed.len(), text.len());
    }
    // The same connection to the target has room for another, of a client that speaks HTTP/2.
    let client = Client::to(env.http()).await;
    until("connect is allowed", async || client.send.is_extended_connect_protocol_enabled()).await;
    let mut asked = request(Method::CONNECT, "/ws");
    asked.extensions_mut().insert(Upgraded::from_static("websocket"));
    asked.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (response, mut stream) = client.begin(asked, false).await.unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    stream.send_data(Bytes::from_static(b"hi"), true).unwrap();
    let mut echoed = Vec::new();
    while let Some(piece) = soon(response.body_mut().data()).await {
        echoed.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(String::from_utf8(echoed).unwrap(), "hithrough");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    // What the target says instead of opening one is passed on.
    let mut refused = env.connect().await;
    refused.send(&format!("{KNOCK}X-Refuse: 1\r\n\r\n")).await;
    assert_eq!(soon(refused.answer()).await.status, 403);
    drop(wire);
    until("nothing is open", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn a_target_that_takes_no_websockets_gets_none() {
    let server = Server::echo(Manner::default()).await;
    let mut env = one_worker().await;
    env.publish(grpc(&[("t", server.address)])).await;
    let mut wire = env.connect().await;
    wire.send(&format!("{KNOCK}\r\n")).await;
    let refused = soon(wire.try_answer(false)).await;
    assert_eq!(refused.as_ref().map(|answer| answer.status).ok(), Some(502), "{refused:?}");
    assert_eq!(env.get("h", "/").await.status, 200);
}

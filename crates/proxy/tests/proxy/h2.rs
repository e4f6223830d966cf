//! Clients that speak HTTP/2.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coracle_proxy::table::Admission;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::backend::{Backend, Conn};
use crate::env::{Env, ids, soon, until};

/// A client's connection.
pub struct Client {
    pub send: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    #[track_caller]
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, String::from_utf8_lossy(&self.body).as_ref()), (status, body), "{self:?}");
    }
}

pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://app.test{path}")).version(Version::HTTP_2).body(()).unwrap()
}

impl Client {
    pub async fn to(address: SocketAddr) -> Self {
        Self::try_to(address).await.unwrap()
    }

    pub async fn try_to(address: SocketAddr) -> Result<Self, h2::Error> {
        let stream = TcpStream::connect(address).await.map_err(|_| Reason::CONNECT_ERROR)?;
        stream.set_nodelay(true).unwrap();
        let (send, connection) = soon(h2::client::Builder::new().handshake(stream)).await?;
        Ok(Self { send, connection: tokio::spawn(connection) })
    }

    pub async fn begin(&self, request: Request<()>, ends: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        soon(self.send.clone().ready()).await?.send_request(request, ends)
    }

    pub async fn ask(&self, request: Request<()>, body: &[u8]) -> Result<Whole, h2::Error> {
        let (response, mut stream) = self.begin(request, body.is_empty()).await?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        soon(whole(response)).await
    }

    pub async fn get(&self, path: &str) -> Whole {
        self.ask(request(Method::GET, path), b"").await.unwrap()
    }
}

pub async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok((bytes, body.trailers().await?))
}

pub async fn whole(response: ResponseFuture) -> Result<Whole, h2::Error> {
    let (parts, body) = response.await?.into_parts();
    let (body, trailers) = read(body).await?;
    Ok(Whole { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// Puts a long body on a stream, as fast as it is taken.
pub async fn put(mut stream: SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Reason::CANCEL)??;
        let piece = bytes.split_to(room.min(bytes.len()));
        let ends = bytes.is_empty();
        stream.send_data(piece, ends)?;
    }
    Ok(())
}

pub fn long(length: usize) -> Bytes {
    (0..length).map(|number| (number % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1_1() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let mut asked = request(Method::POST, "/a%2Fb?x=1");
    for value in ["a=1", "b=2"] {
        asked.headers_mut().append("cookie", value.parse().unwrap());
    }
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let answer = client.ask(asked, b"hello").await.unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 200);
    assert!(text.starts_with("POST /a%2Fb?x=1 HTTP/1.1\nhost: app.test\n"), "{text}");
    assert!(text.contains("cookie: a=1; b=2\n") && text.contains("te: trailers\n"), "{text}");
    assert!(text.contains("transfer-encoding: chunked\n") && text.ends_with("\nhello"), "{text}");
    assert!(answer.headers.contains_key("date") && !answer.headers.contains_key("connection"));
    // The connection to the target is used again, as if all had been HTTP/1.1.
    client.get("/").await;
    let before = app.connections.load(Ordering::SeqCst);
    client.get("/").await;
    assert_eq!(app.connections.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            let answer = match seen.path() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            };
            conn.send(answer).await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    for (method, path, status, length) in [
        (Method::GET, "/204", 204, None),
        (Method::GET, "/304", 304, None),
        (Method::GET, "/empty", 200, Some("0")),
        (Method::HEAD, "/", 200, Some("5")),
    ] {
        let (response, _) = client.begin(request(method, path), true).await.unwrap();
        let response = soon(response).await.unwrap();
        assert!(response.body().is_end_stream(), "{path}");
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get("content-length").map(|value| value.to_str().unwrap()), length, "{path}");
    }
}

#[tokio::test]
async fn interim_answers_and_trailers_pass() {
    let app = Backend::talking(|mut conn| async move {
        conn.head().await.unwrap();
        conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let size = conn.take(11).await.unwrap();
        assert_eq!(size, b"5\r\nhello\r\n0");
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        conn.send("2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n").await;
        conn.take(usize::MAX).await;
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let mut asked = request(Method::POST, "/");
    asked.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut stream) = client.begin(asked, false).await.unwrap();
    let interim = async |response: &mut ResponseFuture| {
        soon(std::future::poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap().status().as_u16()
    };
    assert_eq!(interim(&mut response).await, 100);
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert_eq!(interim(&mut response).await, 103);
    let answer = soon(whole(response)).await.unwrap();
    answer.is(200, "ok");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_side_by_side() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.path() != "/slow" {
                conn.ok(seen.path()).await;
            }
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let (slow, _) = client.begin(request(Method::GET, "/slow"), true).await.unwrap();
    let paths: Vec<String> = (0..100).map(|number| format!("/{number}")).collect();
    let answers = futures::future::join_all(paths.iter().map(|path| client.get(path))).await;
    for (path, answer) in paths.iter().zip(answers) {
        answer.is(200, path);
    }
    assert_eq!(env.in_flight().await, 1);
    // Taking it back ends it at the target too.
    drop(slow);
    until("nothing in flight", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn long_bodies_go_both_ways_no_faster_than_they_are_taken() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let (taken, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (counted, opened) = (Arc::clone(&taken), Arc::clone(&gate));
    let app = Backend::talking(move |mut conn| {
        let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
        async move {
            let seen = conn.head().await.unwrap();
            assert_eq!(seen.header("content-length"), Some(LENGTH.to_string().as_str()));
            opened.notified().await;
            let body = conn.take(LENGTH).await.unwrap();
            counted.fetch_add(body.len(), Ordering::SeqCst);
            conn.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
            drop(conn.stream.write_all(&body).await);
            conn.take(1).await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let mut asked = request(Method::POST, "/");
    asked.headers_mut().insert("content-length", LENGTH.into());
    let (response, stream) = client.begin(asked, false).await.unwrap();
    let bytes = long(LENGTH);
    let upload = tokio::spawn(put(stream, bytes.clone()));
    until("the target is asked", async || env.in_flight().await == 1).await;
    assert!(!upload.is_finished(), "nobody has room for that much");
    gate.notify_one();
    soon(upload).await.unwrap().unwrap();
    let answer = soon(whole(response)).await.unwrap();
    assert!(answer.body == bytes && taken.load(Ordering::SeqCst) == LENGTH);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_others_go_on() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let mut other_host = request(Method::GET, "/");
    other_host.headers_mut().insert("host", "other.test".parse().unwrap());
    assert_eq!(client.ask(other_host, b"").await.unwrap().status, 400);
    let mut lookalike = request(Method::POST, "/");
    lookalike.headers_mut().insert("content_length", "3".parse().unwrap());
    assert_eq!(client.ask(lookalike, b"abc").await.unwrap().status, 400);
    let tunnel = Request::builder().method(Method::CONNECT).uri("app.test:443").version(Version::HTTP_2).body(()).unwrap();
    assert_eq!(client.ask(tunnel, b"").await.unwrap().status, 405);
    // A body that is not as long as it says: the target must not take it for a whole one.
    let mut short = request(Method::POST, "/");
    short.headers_mut().insert("content-length", "10".parse().unwrap());
    let error = client.ask(short, b"short").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    client.get("/").await;
    assert_eq!(app.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_resets_its_stream_only() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.path() == "/broken" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await;
                return;
            }
            conn.ok("fine").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let error = client.ask(request(Method::GET, "/broken"), b"").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error:?}");
    client.get("/").await.is(200, "fine");
}

/// A client that writes its frames itself.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn to(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut raw = Self(stream);
        assert!(raw.frame(4, 0, 0, &[]).await);
        raw
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.0.write_all(&bytes).await.is_ok()
    }

    /// The reason of the GOAWAY that comes, before the connection ends; nothing if none does.
    pub async fn reason(&mut self) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            soon(self.0.read_exact(&mut head)).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            soon(self.0.read_exact(&mut payload)).await.ok()?;
            if head[3] == 7 {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    }
}

/// `:method GET`, `:scheme http`, `:path /`, and `:authority a`, by HPACK's static table.
const HEAD: &[u8] = b"\x82\x86\x84\x01\x01a";
const CALM: Option<u32> = Some(11);

/// Sends until it is cut off: whether it was, and the reason if it could be read behind all the answers to the flood.
async fn floods(env: &Env, frames: usize, mut frame: impl FnMut(u32) -> Vec<(u8, u8, u32, Vec<u8>)>) -> (bool, Option<u32>) {
    let (mut read, mut write) = Raw::to(env.http()).await.0.into_split();
    let sends = async {
        for number in 0..frames as u32 {
            let mut bytes = Vec::new();
            for (kind, flags, stream, payload) in frame(number) {
                bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
                bytes.extend([kind, flags]);
                bytes.extend(stream.to_be_bytes());
                bytes.extend(payload);
            }
            if write.write_all(&bytes).await.is_err() {
                return (true, write);
            }
        }
        (false, write)
    };
    let mut seen = Vec::new();
    let reads = async {
        // A reset may come behind the last word.
        drop(read.read_to_end(&mut seen).await);
    };
    let ((cut_off, _write), ()) = soon(futures::future::join(sends, reads)).await;
    let mut rest = seen.as_slice();
    while rest.len() >= 17 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == 7 {
            return (cut_off, Some(u32::from_be_bytes(rest[13..17].try_into().unwrap())));
        }
        rest = &rest[(9 + length).min(rest.len())..];
    }
    (cut_off, None)
}

#[tokio::test]
async fn floods_end_their_connection_and_nobody_elses() {
    let app = Backend::talking(|mut conn: Conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.header("host") != Some("a") {
                conn.ok("fine").await;
            }
        }
    })
    .await;
    let mut env = Env::with(|options| options.workers = 1).await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    const MANY: usize = 2_000_000;
    let stream = |number: u32| number * 2 + 1;
    // Rapid reset: what is taken back at once.
    let reset = |number| vec![(1, 5, stream(number), HEAD.to_vec()), (3, 0, stream(number), vec![0, 0, 0, 8])];
    assert_eq!(floods(&env, MANY, reset).await, (true, CALM));
    // Pings, settings, priorities.
    assert!(floods(&env, MANY, |_| vec![(6, 0, 0, vec![0; 8])]).await.0);
    assert!(floods(&env, MANY, |_| vec![(4, 0, 0, vec![])]).await.0);
    assert_eq!(floods(&env, MANY, |_| vec![(2, 0, 1, vec![0, 0, 0, 3, 0])]).await, (true, CALM));
    // A head without an end.
    let endless = |number| vec![(if number == 0 { 1 } else { 9 }, 0, 1, if number == 0 { HEAD.to_vec() } else { vec![] })];
    assert_eq!(floods(&env, MANY, endless).await, (true, CALM));
    client.get("/").await.is(200, "fine");
    until("nothing in flight", async || env.in_flight().await == 0).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let app = Backend::saying("fine").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    let mut large = request(Method::GET, "/");
    large.headers_mut().insert("x", "v".repeat(100_000).parse().unwrap());
    assert_eq!(client.ask(large, b"").await.unwrap().status, 431);
    let mut many = request(Method::GET, "/");
    for number in 0..200 {
        many.headers_mut().insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), "v".parse().unwrap());
    }
    assert_eq!(client.ask(many, b"").await.unwrap().status, 431);
    client.get("/").await.is(200, "fine");
    // Small on the wire, large when unpacked: one field in the table, named again and again.
    let mut bomb = HEAD.to_vec();
    bomb.extend(b"\x40\x01x\x7f\x81\x1e");
    bomb.extend([b'v'; 4000]);
    bomb.extend(vec![0xbe; 4000]);
    let mut raw = Raw::to(env.http()).await;
    assert!(raw.frame(1, 5, 1, &bomb).await);
    let reason = raw.reason().await;
    assert!(reason.is_none_or(|reason| reason != 0), "{reason:?}");
    client.get("/").await.is(200, "fine");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let mut env = Env::with(|options| {
        options.limits.idle = Duration::from_millis(200);
        options.limits.header_read = Duration::from_millis(200);
    })
    .await;
    let app = Backend::saying("fine").await;
    env.serve(&[("t", app.address)]).await;
    let client = Client::to(env.http()).await;
    client.get("/").await.is(200, "fine");
    assert!(soon(client.connection).await.unwrap().is_ok());
    let mut begun = TcpStream::connect(env.http()).await.unwrap();
    begun.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    drop(soon(begun.read_to_end(&mut rest)).await);
}

#[tokio::test]
async fn a_stopping_proxy_answers_what_is_under_way_and_takes_no_more() {
    let app = Backend::talking(|mut conn| async move {
        while let Some(seen) = conn.request().await {
            if seen.path() == "/slow" {
                conn.take(1).await;
            }
            conn.ok("fine").await;
        }
    })
    .await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let slow = Backend::talking(move |mut conn| {
        let opened = Arc::clone(&opened);
        async move {
            conn.request().await;
            opened.notified().await;
            conn.ok("in the end").await;
        }
    })
    .await;
    let mut env = Env::new().await;
    env.publish(crate::env::table(
        &[("app.test", "/slow", "slow"), ("*", "/", "app")],
        &[("app", Admission::Open, &[("t", app.address)]), ("slow", Admission::Open, &[("s", slow.address)])],
    ))
    .await;
    let (client, idle) = (Client::to(env.http()).await, Client::to(env.http()).await);
    idle.get("/").await.is(200, "fine");
    let (response, _) = client.begin(request(Method::GET, "/slow"), true).await.unwrap();
    until("under way", async || env.in_flight().await == 1).await;
    let ends = tokio::spawn(env.proxy.take().unwrap().shutdown());
    // Who has nothing under way is let go at once, and told so.
    assert!(soon(idle.connection).await.unwrap().is_ok());
    gate.notify_one();
    soon(whole(response)).await.unwrap().is(200, "in the end");
    assert!(soon(client.connection).await.unwrap().is_ok());
    soon(ends).await.unwrap();
}

#[tokio::test]
async fn a_drain_cuts_off_streams_and_leaves_the_connection() {
    let hangs = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.take(1).await;
    })
    .await;
    let app = Backend::saying("fine").await;
    let mut env = Env::new().await;
    env.serve(&[("old", hangs.address)]).await;
    let client = Client::to(env.http()).await;
    let (response, _) = client.begin(request(Method::GET, "/"), true).await.unwrap();
    until("under way", async || env.in_flight().await == 1).await;
    env.serve(&[("new", app.address)]).await;
    let drained = env.client().drain(&ids(&["old"]), Duration::from_millis(50)).await.unwrap();
    assert_eq!(drained.cut_off, 1);
    assert_eq!(soon(whole(response)).await.unwrap().status, 504);
    client.get("/").await.is(200, "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_change_under_many_streams_and_none_is_lost() {
    let mut env = Env::new().await;
    let mut old = Backend::saying("0").await;
    env.serve(&[("v0", old.address)]).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let http = env.http();
    let load: Vec<_> = (0..16)
        .map(|number| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let client = Client::to(http).await;
                let (mut answered, mut statuses) = (0, BTreeSet::new());
                while !stop.is_cancelled() {
                    answered += 1;
                    let answer = match (answered + number) % 4 {
                        0 => client.ask(request(Method::POST, "/up"), b"abc").await.unwrap(),
                        _ => client.get("/").await,
                    };
                    statuses.insert(answer.status);
                }
                assert_eq!(statuses, BTreeSet::from([200]));
                answered
            })
        })
        .collect();
    for version in 1..=100 {
        let new = Backend::saying("n").await;
        env.serve(&[(&format!("v{version}"), new.address)]).await;
        let drained = env.client().drain(&ids(&[&format!("v{}", version - 1)]), Duration::from_secs(10)).await.unwrap();
        assert_eq!(drained.cut_off, 0);
        drop(std::mem::replace(&mut old, new));
    }
    stop.cancel();
    let mut answered = 0;
    for task in load {
        answered += task.await.unwrap();
    }
    assert!(answered > 500, "{answered} requests are no load");
}

/// Asks on a connection of its own, and on the next one when the proxy has closed that: what it has not looked at may be
/// asked again.
async fn asks(http: SocketAddr, stop: tokio_util::sync::CancellationToken, answered: Arc<AtomicUsize>) -> usize {
    let mut connections = 0;
    while !stop.is_cancelled() {
        let client = Client::to(http).await;
        connections += 1;
        while !stop.is_cancelled() {
            match client.ask(request(Method::POST, "/up"), b"abc").await {
                Ok(answer) => {
                    answer.is(200, "hello");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) if error.is_remote() && error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successors_take_over_under_many_streams() {
    let app = Backend::saying("hello").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let (stop, answered) = (tokio_util::sync::CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8).map(|_| tokio::spawn(asks(env.http(), stop.clone(), Arc::clone(&answered)))).collect();
    let mut ended = Vec::new();
    for _ in 0..5 {
        let successor = coracle_proxy::Proxy::start(env.options.clone()).await.unwrap();
        let mut old = env.proxy.replace(successor).unwrap();
        ended.push(tokio::spawn(async move { old.ended().await }));
        let before = answered.load(Ordering::SeqCst);
        until("load", async || answered.load(Ordering::SeqCst) > before + 50).await;
    }
    stop.cancel();
    for task in load {
        assert!(soon(task).await.unwrap() > 1, "nobody was told to go");
    }
    for old in ended {
        soon(old).await.unwrap();
    }
}

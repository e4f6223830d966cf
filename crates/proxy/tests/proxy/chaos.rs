//! Upstreams that misbehave in every way, under load, beside one that does not: clients get right answers, the proxy's
//! memory stays flat, and the healthy routes do not notice.

use std::net::SocketAddr;

use coracle_proxy::control::Client;
use coracle_proxy::table::{Admission, Route, Service, ServiceId, Table, Target};
use tokio::net::TcpListener;

use crate::backend::{Backend, Conn};
use crate::env::{Answer, Wire, soon, until};
use crate::load::Load;
use crate::processes::{Process, serves};

/// Requests to each misbehaving upstream in a round.
const ROUND: usize = 60;
/// What the proxy's resident memory may grow by after the rounds that warm it up, in KiB: what an allocator takes and keeps.
const SLACK: u64 = 2 << 10;

/// How an upstream misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chaos {
    /// Resets the connection once it has a request.
    Resets,
    /// Closes it without a word.
    Closes,
    /// Takes the request and never answers.
    Hangs,
    /// Answers what is no HTTP.
    Garbage,
    /// Says two lengths.
    TwoLengths,
    /// Switches protocols unasked.
    Switches,
    /// Sends header fields without an end.
    EndlessHead,
    /// Closes in the middle of a body whose length it said.
    HalfABody,
    /// Closes in the middle of a body in chunks.
    HalfTheChunks,
    /// Resets in the middle of a body.
    ResetsWithin,
    /// Answers rightly, and adds an answer that nobody asked for.
    AnswersTwice,
    /// Answers before it has read the request's body, and closes.
    AnswersEarly,
}

impl Chaos {
    const ALL: [Self; 12] = [
        Self::Resets,
        Self::Closes,
        Self::Hangs,
        Self::Garbage,
        Self::TwoLengths,
        Self::Switches,
        Self::EndlessHead,
        Self::HalfABody,
        Self::HalfTheChunks,
        Self::ResetsWithin,
        Self::AnswersTwice,
        Self::AnswersEarly,
    ];

    fn host(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }

    /// How many requests a round has.
    fn requests(self) -> usize {
        // Each of them takes as long as the proxy waits for an answer.
        if self == Self::Hangs { ROUND / 10 } else { ROUND }
    }

    async fn misbehave(self, mut conn: Conn) {
        let Some(seen) = conn.head().await else { return };
        match self {
            Self::Resets => reset(&conn),
            Self::Closes => {}
            // Until the proxy has enough of it.
            Self::Hangs => drop(conn.head().await),
            Self::Garbage => conn.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            Self::TwoLengths => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello").await,
            Self::Switches => conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n").await,
            Self::EndlessHead => {
                let fields = format!("X-More: {}\r\n", "x".repeat(1000));
                conn.send("HTTP/1.1 200 OK\r\n").await;
                for _ in 0..1000 {
                    conn.send(&fields).await;
                }
            }
            Self::HalfABody => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it").await,
            Self::HalfTheChunks => conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf of it").await,
            Self::ResetsWithin => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it").await;
                reset(&conn);
            }
            Self::AnswersTwice => {
                let own = seen.path();
                let (length, nobodys) = (own.len(), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfor nobody");
                // In one piece: what comes later may come when it looks like the answer to a later request, and is one then.
                conn.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{own}{nobodys}")).await;
                // Whether the proxy uses the connection again is what the answers show.
                while let Some(seen) = conn.head().await {
                    let own = seen.path().to_owned();
                    conn.ok(&own).await;
                }
            }
            Self::AnswersEarly => {
                conn.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await
            }
        }
    }

    fn request(self, path: &str) -> String {
        let host = self.host();
        match self {
            Self::AnswersEarly => format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        }
    }

    /// Whether a client got what it should. An error is a connection that ended before the answer did.
    fn is_right(self, path: &str, answer: &std::io::Result<Answer>) -> bool {
        match self {
            // Nobody may take half a body for a whole one.
            Self::HalfABody | Self::HalfTheChunks | Self::ResetsWithin => match answer {
                Ok(answer) => answer.status == 502,
                Err(_) => true,
            },
            Self::Hangs => answer.as_ref().is_ok_and(|answer| answer.status == 504),
            Self::AnswersTwice => answer.as_ref().is_ok_and(|answer| (answer.status, answer.body.as_str()) == (200, path)),
            Self::AnswersEarly => answer.as_ref().is_ok_and(|answer| answer.status == 413),
            _ => answer.as_ref().is_ok_and(|answer| answer.status == 502),
        }
    }
}

/// The connection ends with RST once it is closed.
fn reset(conn: &Conn) {
    conn.stream.set_zero_linger().unwrap();
}

/// A round of requests to one upstream, some on connections that are kept if the proxy keeps them.
async fn round(http: SocketAddr, chaos: Chaos, number: usize) {
    let mut kept: Option<Wire> = None;
    for request in 0..chaos.requests() {
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => Wire::to(http).await,
        };
        let path = format!("/{number}/{request}");
        wire.send(&chaos.request(&path)).await;
        let answer = soon(wire.try_answer(false)).await;
        assert!(chaos.is_right(&path, &answer), "{chaos:?} {path}: {answer:?}");
        kept = answer.is_ok_and(|answer| answer.header("connection") != Some("close")).then_some(wire);
    }
}

fn table(healthy: SocketAddr, dying: SocketAddr, chaos: &[(Chaos, Backend)]) -> Table {
    let mut table = Table { generation: 1, ..Table::default() };
    let chaotic = chaos.iter().map(|(kind, backend)| (kind.host(), backend.address));
    // The host that the load asks for.
    for (host, address) in chaotic.chain([("h".to_owned(), healthy), ("dying".to_owned(), dying)]) {
        let id = ServiceId(host.clone());
        table.routes.push(Route::new(host.clone(), format!("Host(`{host}`)"), id.clone()));
        // Nobody else is to be hurried: the machine may be busy.
        let hangs = host == Chaos::Hangs.host();
        let mut service = Service::new(Admission::Open, vec![Target::new(host, address)]);
        service.response_timeout_ms = hangs.then_some(100);
        table.services.insert(id, service);
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaving_upstreams_hurt_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let proxy = Process::start(directory.path(), "127.0.0.1:0", "5000");
    serves(&client, proxy.id()).await;
    let mut chaos = Vec::new();
    for kind in Chaos::ALL {
        chaos.push((kind, Backend::talking(move |conn| kind.misbehave(conn)).await));
    }
    let (healthy, dying) = (Backend::saying("well").await, Backend::saying("alive").await);
    client.publish(&table(healthy.address, dying.address, &chaos)).await.unwrap();
    let http = client.status().await.unwrap().http[0];

    let load = Load::on(http, 4);
    let mut resident = Vec::new();
    for number in 0..5 {
        let rounds: Vec<_> = Chaos::ALL.into_iter().map(|kind| tokio::spawn(round(http, kind, number))).collect();
        for round in rounds {
            round.await.unwrap();
        }
        resident.push(proxy.resident_kib());
    }
    // The first rounds make the pools and buffers that the later ones use.
    assert!(resident[4] < resident[1] + SLACK, "resident KiB after each round: {resident:?}");
    comes_back(http, dying).await;
    let answered = load.end().await;
    assert!(answered > 100, "{answered} requests are no load");
    until("nothing is in flight", async || client.status().await.unwrap().targets.iter().all(|target| target.in_flight == 0))
        .await;
}

/// An upstream that dies and comes back under load: 502 or 503 meanwhile, and the right answers before and after.
async fn comes_back(http: SocketAddr, mut dying: Backend) {
    let address = dying.address;
    for _ in 0..5 {
        until("it answers", async || ask(http).await == 200).await;
        drop(dying);
        until("it is missed", async || ask(http).await != 200).await;
        let listener = TcpListener::bind(address).await.unwrap();
        dying = Backend::on(listener, |mut conn| async move {
            while conn.request().await.is_some() {
                conn.ok("alive").await;
            }
        });
    }
    until("it is back", async || ask(http).await == 200).await;
}

async fn ask(http: SocketAddr) -> u16 {
    let mut wire = Wire::to(http).await;
    wire.send("GET / HTTP/1.1\r\nHost: dying\r\nConnection: close\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    match answer.status {
        200 => answer.is(200, "alive"),
        status => assert!(matches!(status, 502 | 503), "{answer:?}"),
    }
    answer.status
}

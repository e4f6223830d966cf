//! Whether an instance is healthy: one check, waiting until it passes, and watching that it goes on passing.
//!
//! It knows instances and checks, not why anybody asks: what is checked is said by whoever waits.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_engine::{Engine, EngineError, Exit, Health, InstanceState, LogQuery, OutputSink};
use coracle_model::InstanceId;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long one check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// An HTTP check must pass twice in a row, this far apart: an app whose first answer is its only good one is not healthy.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// How often the engine is asked whether the instance still runs.
const INSPECT_EVERY: Duration = Duration::from_millis(250);
/// How often the program of a check is run.
const PROGRAM_EVERY: Duration = Duration::from_millis(300);
/// While watching: how often to check, and how many failures in a row are one too many.
const WATCH_EVERY: Duration = Duration::from_millis(250);
const WATCH_FAILURES: u32 = 3;

/// How an instance is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// GET this path with this Host: 2xx or 3xx.
    Http {
        /// The path.
        path: String,
        /// The host.
        host: String,
    },
    /// What the image's HEALTHCHECK says.
    Image,
    /// A program inside the instance ends with code 0. It is run by whoever waits, and not only as often as the engine would.
    Program {
        /// What is run.
        argv: Vec<String>,
        /// How long one run may take.
        limit: Duration,
        /// How long it is waited for at least.
        patience: Duration,
    },
    /// It answers a request (`OPTIONS /`, which asks for nothing to be done) with whatever it likes. That its port is open says
    /// too little: a server that opens it before it loads the app is there for a moment even if the app cannot be loaded.
    Answer,
    /// A TCP connection is accepted.
    Tcp,
    /// It keeps running: all that can be said of a process that does not listen.
    Running,
}

impl Check {
    /// How long it is waited for at least, whatever the deployment's own limit.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Program { patience, .. } => *patience,
            _ => Duration::ZERO,
        }
    }

    /// In words, for notes and errors.
    pub fn describe(&self) -> String {
        match self {
            Self::Http { path, .. } => format!("GET {path}"),
            Self::Image => "the image's HEALTHCHECK".to_owned(),
            // Its words have the configuration filled in: a password may be one of them.
            Self::Program { .. } => "its health check".to_owned(),
            Self::Answer => "any answer to OPTIONS /".to_owned(),
            Self::Tcp => "a TCP connection".to_owned(),
            Self::Running => "running".to_owned(),
        }
    }
}

/// How many lines of an instance's log an error shows.
const EVIDENCE_LINES: usize = 20;

/// The last lines that an instance wrote; none if they cannot be read.
pub async fn last_lines(engine: &Engine, id: &InstanceId) -> Vec<String> {
    let query = LogQuery { tail: Some(EVIDENCE_LINES), ..LogQuery::default() };
    let read = async {
        let lines = engine.runtime.logs(id, &query).await.ok()?;
        Some(lines.filter_map(|line| async { line.ok().map(|line| line.text) }).collect().await)
    };
    tokio::time::timeout(CHECK_LIMIT, read).await.ok().flatten().unwrap_or_default()
}

/// Why an instance is not healthy.
#[derive(Debug)]
pub enum Unhealthy {
    /// Its program ended.
    Exited(Exit),
    /// It is not there any more.
    Gone,
    /// It did not pass in time, or not any more; with what the last check saw.
    Failing(String),
    /// The engine could not say.
    Engine(EngineError),
}

impl std::fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "its program ended ({exit})"),
            Self::Gone => f.write_str("it was removed from outside"),
            Self::Failing(last) => f.write_str(last),
            Self::Engine(error) => error.fmt(f),
        }
    }
}

/// What the engine says of an instance that should be running.
struct Alive {
    address: Option<SocketAddr>,
    health: Health,
}

async fn alive(engine: &Engine, id: &InstanceId) -> Result<Alive, Unhealthy> {
    match engine.runtime.inspect(id).await.map_err(Unhealthy::Engine)?.map(|instance| instance.state) {
        Some(InstanceState::Running { address, health, .. }) => Ok(Alive { address, health }),
        Some(InstanceState::Exited(exit)) => Err(Unhealthy::Exited(exit)),
        None => Err(Unhealthy::Gone),
    }
}

/// Waits until the instance passes its check; answers where it listens. Gives up when its program ends or `deadline` is over.
pub async fn until_healthy(
    engine: &Engine,
    id: &InstanceId,
    check: &Check,
    deadline: Duration,
) -> Result<Option<SocketAddr>, Unhealthy> {
    let begun = Instant::now();
    let deadline = deadline.max(check.patience());
    let mut last = Miss::Failed(format!("{} was not tried in time", check.describe()));
    let mut passes = 0;
    let mut state = alive(engine, id).await?;
    let mut inspected = Instant::now();
    while begun.elapsed() < deadline {
        if inspected.elapsed() >= INSPECT_EVERY || *check == Check::Image {
            state = alive(engine, id).await?;
            inspected = Instant::now();
        }
        match once(engine, id, check, &state).await {
            Ok(()) => passes += 1,
            Err(reason) => (passes, last) = (0, reason),
        }
        let needed = if matches!(check, Check::Http { .. }) { 2 } else { 1 };
        if passes >= needed {
            // A program that answered and then ended must not be taken for healthy.
            return alive(engine, id).await.map(|state| state.address);
        }
        let least = if matches!(check, Check::Program { .. }) { PROGRAM_EVERY } else { Duration::ZERO };
        tokio::time::sleep(if passes > 0 { SECOND_LOOK } else { pause(begun.elapsed()).max(least) }).await;
    }
    let state = alive(engine, id).await?;
    match last {
        // It has kept every connection open, so it may be one that speaks only when it is asked for something it knows.
        Miss::Silent if *check == Check::Answer => Ok(state.address),
        last => Err(Unhealthy::Failing(format!("not healthy after {} s: {last}", deadline.as_secs()))),
    }
}

/// Why one check has not passed.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    /// It took too long; nothing else is known.
    Silent,
    /// For this reason.
    Failed(String),
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent => write!(f, "no answer within {} s", CHECK_LIMIT.as_secs()),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Checks often while an app is likely to be starting, less often when it takes long.
fn pause(elapsed: Duration) -> Duration {
    match elapsed.as_millis() {
        0..2_000 => Duration::from_millis(20),
        2_000..10_000 => Duration::from_millis(100),
        _ => Duration::from_millis(500),
    }
}

/// Checks again and again for `span`; fails as soon as the program ends or too many checks in a row do.
pub async fn watch(engine: &Engine, id: &InstanceId, check: &Check, span: Duration) -> Result<(), Unhealthy> {
    let begun = Instant::now();
    let mut failures = 0;
    while begun.elapsed() < span {
        let state = alive(engine, id).await?;
        match once(engine, id, check, &state).await {
            Ok(()) => failures = 0,
            Err(Miss::Silent) if *check == Check::Answer => failures = 0,
            Err(reason) => {
                failures += 1;
                if failures >= WATCH_FAILURES {
                    return Err(Unhealthy::Failing(reason.to_string()));
                }
            }
        }
        let every = if matches!(check, Check::Program { .. }) { PROGRAM_EVERY } else { WATCH_EVERY };
        tokio::time::sleep(every.min(span.saturating_sub(begun.elapsed()))).await;
    }
    alive(engine, id).await.map(drop)
}

async fn once(engine: &Engine, id: &InstanceId, check: &Check, state: &Alive) -> Result<(), Miss> {
    let address = || state.address.ok_or_else(|| "the instance has no address".to_owned());
    let work = async {
        match check {
            Check::Running => Ok(()),
            Check::Image => match state.health {
                Health::Healthy => Ok(()),
                Health::Unchecked => Err("the engine does not run the image's HEALTHCHECK".to_owned()),
                Health::Starting => Err("its HEALTHCHECK has not passed yet".to_owned()),
                Health::Unhealthy => Err("its HEALTHCHECK fails".to_owned()),
            },
            Check::Program { argv, limit, .. } => run(engine, id, check, argv, *limit).await,
            Check::Answer => any_answer(address()?).await,
            Check::Tcp => connect(address()?).await.map(drop),
            Check::Http { path, host } => get(address()?, path, host).await,
        }
    };
    // A program is ended by the one who runs it, which takes a moment.
    let limit = if let Check::Program { limit, .. } = check { *limit + CHECK_LIMIT } else { CHECK_LIMIT };
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(Miss::Failed),
        Err(_) if *check == Check::Answer => Err(Miss::Silent),
        Err(_) => Err(Miss::Failed(format!("{} took longer than {} s", check.describe(), limit.as_secs()))),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("no TCP connection: {error}"))
}

/// Asks what every HTTP server has some answer to, and reads the first byte of it.
async fn any_answer(address: SocketAddr) -> Result<(), String> {
    const REQUEST: &[u8] =
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: coracle-health-check\r\nConnection: close\r\n\r\n";
    let failed = |error: std::io::Error| format!("OPTIONS /: {error}");
    let mut stream = connect(address).await?;
    stream.write_all(REQUEST).await.map_err(failed)?;
    match stream.read(&mut [0; 1]).await.map_err(failed)? {
        0 => Err("OPTIONS /: the connection was closed without an answer".to_owned()),
        _ => Ok(()),
    }
}

/// Runs the program of a check inside the instance.
async fn run(engine: &Engine, id: &InstanceId, check: &Check, argv: &[String], limit: Duration) -> Result<(), String> {
    let last = Arc::new(Mutex::new(String::new()));
    let kept = last.clone();
    let sink = OutputSink::new(move |line| *kept.lock().unwrap_or_else(PoisonError::into_inner) = line.text);
    let cancel = CancellationToken::new();
    let mut program = std::pin::pin!(engine.runtime.exec(id, argv, &sink, &cancel));
    let ended = tokio::select! {
        ended = &mut program => ended,
        () = tokio::time::sleep(limit) => {
            cancel.cancel();
            program.await
        }
    };
    match ended {
        Ok(exit) if exit.success() => Ok(()),
        Ok(exit) => {
            let said = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(format!("{} failed: {exit}{}{said}", check.describe(), if said.is_empty() { "" } else { ": " }))
        }
        Err(EngineError::Cancelled) => Err(format!("{} took longer than {} s", check.describe(), limit.as_secs())),
        Err(error) => Err(format!("{} cannot be run: {error}", check.describe())),
    }
}

async fn get(address: SocketAddr, path: &str, host: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("GET {path}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "coracle-health-check")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let mut response = sender.send_request(request).await?;
        // The body is read, within reason, so that the app does not see a broken pipe.
        let mut left = 1_usize << 20;
        while let Some(frame) = response.frame().await {
            left = left.saturating_sub(frame?.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                break;
            }
        }
        Ok::<_, hyper::Error>(response.status())
    };
    // The connection is driven here and ends with this function, so no task outlives the check. When it ends first, the
    // exchange still has to be asked: it may hold the whole answer already.
    let drive = async {
        connection.await.ok();
        std::future::pending::<std::convert::Infallible>().await
    };
    let status = tokio::select! {
        answer = exchange => answer.map_err(|error| failed(&error))?,
        never = drive => match never {},
    };
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("GET {path} answered {}", status.as_u16())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn answers(response: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok() {
                    stream.write_all(response.as_bytes()).await.ok();
                }
            }
        });
        address
    }

    async fn check(response: &'static str) -> Result<(), String> {
        get(answers(response).await, "/up", "shop.localhost").await
    }

    #[tokio::test]
    async fn a_2xx_or_3xx_is_healthy_and_nothing_else_is() {
        assert_eq!(check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await, Ok(()));
        assert_eq!(check("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").await, Ok(()));
        assert_eq!(check("HTTP/1.0 200 OK\r\n\r\nuntil close").await, Ok(()));
        assert_eq!(check("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await, Err("GET /up answered 500".to_owned()));
        assert!(check("garbage\r\n\r\n").await.is_err());
        assert!(check("").await.is_err());
    }

    #[tokio::test]
    async fn whatever_is_answered_is_an_answer_and_a_closed_connection_is_none() {
        assert_eq!(any_answer(answers("HTTP/1.1 500 No\r\n\r\n").await).await, Ok(()));
        assert_eq!(any_answer(answers("garbage").await).await, Ok(()));
        assert!(any_answer(answers("").await).await.is_err());
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_not_healthy() {
        let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(get(address, "/", "x").await.unwrap_err().contains("refused"));
    }
}

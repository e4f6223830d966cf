//! `pyrunner bench`: how quick a server is, asked by so many callers for so long: one that runs already, or one of its own.
//!
//! Each caller has a connection that it keeps and asks again as soon as it has its answer. It speaks plain HTTP, so that what
//! is measured is the server and not what may stand before it.

mod server;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::settings::duration;
use crate::output;
use server::OwnServer;
use tally::Tally;

/// The variable with the API key: no argument, which everybody on the machine could read.
const KEY: &str = "PYRUNNER_KEY";

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many failures in a row a caller puts up with.
const MOST_FAILURES: u32 = 20;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A running server, such as http://127.0.0.1:8000; PYRUNNER_KEY may hold its key [default: one of its own, for as long
    /// as it takes]
    url: Option<Uri>,
    /// How many ask at the same time
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    callers: u16,
    /// For how long; Ctrl-C ends it sooner
    #[arg(long, short, default_value = "5s", value_parser = duration, value_name = "TIME")]
    duration: Duration,
    /// The program that is executed [default: print(42)]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{0}: a server is named as http://HOST:PORT; only plain HTTP is measured")]
    Address(Uri),
    #[error("{KEY} holds what no key can")]
    Key,
    #[error("a server cannot be started: {0}")]
    Start(#[source] std::io::Error),
    #[error("the server ended before it listened; it says why above")]
    Ended,
    #[error("the server is not ready in time: {0}")]
    NotReady(CallError),
    #[error("nothing was executed: {0}")]
    Nothing(String),
}

/// Why a question has no right answer.
#[derive(Debug, Clone, thiserror::Error)]
enum CallError {
    #[error("no connection: {0}")]
    Connection(String),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("{0}: {1}")]
    Status(StatusCode, String),
    #[error("the program failed: {0}")]
    Program(String),
}

impl CallError {
    /// What failures of the same kind have in common.
    fn kind(&self) -> String {
        match self {
            Self::Connection(_) => "no connection".to_owned(),
            Self::Late => "no answer in time".to_owned(),
            Self::Status(status, _) => status.as_str().to_owned(),
            Self::Program(reason) => format!("program: {reason}"),
        }
    }
}

/// What is asked, and of whom.
#[derive(Debug)]
struct Question {
    authority: Authority,
    key: Option<HeaderValue>,
    body: Bytes,
}

pub(crate) fn run(bench: &Bench) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::Start);
    match runtime.and_then(|runtime| runtime.block_on(measure(bench))) {
        Ok(tally) => {
            output::result(if bench.json { tally.json().to_string() } else { tally.to_string() });
            ExitCode::SUCCESS
        }
        Err(error) => output::failure(&error, hint(&error)),
    }
}

fn hint(error: &BenchError) -> Option<&'static str> {
    match error {
        BenchError::Nothing(why) if why.starts_with("429") => {
            Some("PYRUNNER_KEY names a key without a rate (`pyrunner keys add --rate 0`), or the server is started with --rate 0")
        }
        BenchError::Nothing(why) if why.starts_with("401") => Some("PYRUNNER_KEY names the key"),
        BenchError::NotReady(_) | BenchError::Ended => Some("`pyrunner doctor` says what this machine allows"),
        _ => None,
    }
}

async fn measure(bench: &Bench) -> Result<Tally, BenchError> {
    let code = match &bench.program {
        Some(path) => std::fs::read_to_string(path).map_err(|source| BenchError::Unreadable { path: path.clone(), source })?,
        None => "print(42)".to_owned(),
    };
    // From here on nothing ends this process before it has ended its server.
    let mut interrupts = Interrupts::start().map_err(BenchError::Start)?;
    let own = if bench.url.is_none() { Some(OwnServer::start()?) } else { None };
    let authority = match (&bench.url, &own) {
        (Some(url), _) => authority_of(url)?,
        (None, own) => own.as_ref().map(OwnServer::authority).ok_or(BenchError::Ended)?,
    };
    let key = std::env::var(KEY).ok().map(|key| HeaderValue::try_from(format!("Bearer {key}"))).transpose();
    let mut key = key.map_err(|_| BenchError::Key)?;
    key.iter_mut().for_each(|key| key.set_sensitive(true));
    let body = Bytes::from(json!({ "code": code }).to_string());
    let question = Arc::new(Question { authority, key: key.filter(|_| own.is_none()), body });
    if own.is_some() {
        tokio::select! {
            ready = server::until_ready(&question) => ready?,
            () = interrupts.next() => return Err(BenchError::Nothing("it was interrupted".to_owned())),
        }
    }
    let tally = ask(bench, &question, &mut interrupts).await;
    drop(own);
    if tally.is_empty() { Err(BenchError::Nothing(tally.failure())) } else { Ok(tally) }
}

fn authority_of(url: &Uri) -> Result<Authority, BenchError> {
    // `localhost:8000` alone is read as an authority without a scheme.
    let plain = url.scheme_str().is_none_or(|scheme| scheme == "http") && matches!(url.path(), "" | "/");
    let authority =
        url.authority().filter(|authority| plain && !authority.host().is_empty() && !authority.as_str().contains('@'));
    authority.cloned().ok_or_else(|| BenchError::Address(url.clone()))
}

/// Ctrl-C, and being asked to end.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn start() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// All callers until the time is over, or until Ctrl-C.
async fn ask(bench: &Bench, question: &Arc<Question>, interrupts: &mut Interrupts) -> Tally {
    let (over, begun) = (CancellationToken::new(), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..bench.callers {
        callers.spawn(call_on(Arc::clone(question), over.clone(), begun + bench.duration));
    }
    let mut tally = Tally::of(usize::from(bench.callers), question.authority.as_str());
    loop {
        tokio::select! {
            joined = callers.join_next() => match joined {
                Some(Ok((times, failures))) => tally.add(times, failures),
                Some(Err(error)) => tally.add(Vec::new(), vec![CallError::Connection(error.to_string())]),
                None => break,
            },
            () = interrupts.next() => over.cancel(),
        }
    }
    tally.end(begun.elapsed());
    tally
}

/// One caller: asks until it is over. What is under way at the end of the time is waited for; at Ctrl-C it is not.
async fn call_on(question: Arc<Question>, over: CancellationToken, until: Instant) -> (Vec<Duration>, Vec<CallError>) {
    let (mut times, mut failures, mut in_a_row) = (Vec::new(), Vec::new(), 0);
    let mut connection = None;
    while Instant::now() < until && in_a_row < MOST_FAILURES {
        match over.run_until_cancelled(question.ask(&mut connection)).await {
            None => break,
            Some(Ok(took)) => {
                times.push(took);
                in_a_row = 0;
            }
            Some(Err(error)) => {
                failures.push(error);
                in_a_row += 1;
            }
        }
    }
    (times, failures)
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Ended {
    status: String,
    reason: String,
}

impl Question {
    /// Asks once, on a new connection if there is none, and answers how long it took.
    async fn ask(&self, connection: &mut Option<SendRequest<Full<Bytes>>>) -> Result<Duration, CallError> {
        let open = match connection.take().filter(|connection| !connection.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let open = connection.insert(open);
        let request = self.request(Method::POST, "/execute", self.body.clone())?;
        let begun = Instant::now();
        let answered = tokio::time::timeout(PATIENCE, exchange(open, request)).await;
        let took = begun.elapsed();
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                *connection = None;
                return Err(error);
            }
            Err(_) => {
                *connection = None;
                return Err(CallError::Late);
            }
        };
        if status != StatusCode::OK {
            return Err(CallError::Status(status, detail(&body)));
        }
        match serde_json::from_slice::<Ended>(&body) {
            Ok(ended) if ended.status == "success" => Ok(took),
            Ok(ended) => Err(CallError::Program(ended.reason)),
            Err(error) => Err(CallError::Connection(format!("what answers is no PyRunner: {error}"))),
        }
    }

    /// Asks whether the server can execute.
    async fn ready(&self) -> Result<(), CallError> {
        let mut connection = self.connect().await?;
        let (status, body) = exchange(&mut connection, self.request(Method::GET, "/ready", Bytes::new())?).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(CallError::Status(status, detail(&body))) }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let failed = |error: &dyn std::error::Error| CallError::Connection(error.to_string());
        let address = (self.authority.host().trim_matches(['[', ']']), self.authority.port_u16().unwrap_or(80));
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| CallError::Late)?.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        // It ends when its sender is dropped, and an error is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.authority.as_str());
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        request.body(Full::new(body)).map_err(|error| CallError::Connection(error.to_string()))
    }
}

async fn exchange(to: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CallError> {
    let failed = |error: hyper::Error| CallError::Connection(error.to_string());
    to.ready().await.map_err(failed)?;
    let answer = to.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await.map_err(failed)?.to_bytes()))
}

/// What a problem says (RFC 9457), or nothing.
fn detail(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = problem.as_ref().and_then(|problem| Some(problem.get("detail").or(problem.get("troubles"))?.to_string()));
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn servers_are_named_by_their_address() {
        for (url, authority) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://example.org/", "example.org"),
            ("localhost:8000", "localhost:8000"),
            ("http://[::1]:8000/", "[::1]:8000"),
        ] {
            assert_eq!(authority_of(&url.parse().unwrap()).unwrap().as_str(), authority, "{url}");
        }
        for url in ["https://example.org", "http://example.org/execute", "/execute", "http://user:secret@example.org"] {
            assert!(authority_of(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}

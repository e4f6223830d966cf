//! The API's process: connections in, answers out, until it is asked to stop.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use coracle_pyrunner_store::{Store, StoreError};
use http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower_service::Service;

use crate::api::{self, Peer};
use crate::body::Arriving;
use crate::context::Context;
use crate::head::{HEAD_DEADLINE, HeadClock, Timed};
use crate::history::SWEEP_PAUSE;
use crate::jobs;
use crate::peers::{Held, Peers};
use crate::problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemKind};
use crate::settings::Settings;
use crate::supervisor;

/// How long a connection may idle between requests.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of a request's head, and of what is read at once.
const BUFFER: usize = 64 << 10;

/// The pause after an accept that failed because something ran out (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often is looked whether the daemon is there.
const DAEMON_PAUSE: Duration = Duration::from_millis(20);

/// How long what is left may take to end when it has been cut off.
const CUT_DEADLINE: Duration = Duration::from_secs(2);

/// How long the last records may take to be written.
const HISTORY_DEADLINE: Duration = Duration::from_secs(3);

/// Why the API ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The supervisor's socket is not one.
    #[error("the listening socket cannot be taken over: {0}")]
    Listener(#[source] io::Error),
    /// The runtime or the signals cannot be had.
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[source] io::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ServeError {
    /// Whether it would end like this again however often it is started.
    pub fn is_hopeless(&self) -> bool {
        matches!(self, Self::Store(StoreError::Location(_) | StoreError::Newer { .. }))
    }
}

/// Serves on the listening socket that is this process's standard input, with the sandbox daemon at `socket`, until SIGTERM.
pub fn run(settings: Settings, socket: PathBuf) -> Result<(), ServeError> {
    let listener = take_listener().map_err(ServeError::Listener)?;
    let mut builder = if settings.threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(settings.threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().map_err(ServeError::Runtime)?;
    let served = runtime.block_on(serve(settings, socket, listener));
    runtime.shutdown_timeout(CUT_DEADLINE);
    served
}

/// The supervisor's socket is this process's standard input; nothing else shall find it there.
fn take_listener() -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails for whatever is no socket.
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(listener)
}

async fn serve(settings: Settings, socket: PathBuf, listener: std::net::TcpListener) -> Result<(), ServeError> {
    let listener = TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
    let store = Store::open_lazily(settings.database.expose()).await?;
    let drain = settings.drain;
    let context = Arc::new(Context::new(settings, socket, store));
    let connections = Connections::new(&context);
    let stop_jobs = CancellationToken::new();
    let jobs = AbortOnDropHandle::new(tokio::spawn(jobs::work(Arc::clone(&context), stop_jobs.clone())));
    let announcing = AbortOnDropHandle::new(tokio::spawn(announce(Arc::clone(&context))));
    let sweeping = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&context))));
    tokio::select! {
        () = connections.accept(&listener) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // From here on connections are refused, and their clients know it at once.
    drop(listener);
    context.drain();
    connections.end(drain).await;
    stop_jobs.cancel();
    if tokio::time::timeout(CUT_DEADLINE, jobs).await.is_err() {
        tracing::warn!("jobs did not stop in time; another process begins them again");
    }
    drop((announcing, sweeping));
    let lost = context.history.recorder.shutdown(HISTORY_DEADLINE).await;
    if lost > 0 {
        tracing::warn!(lost, "executions are not written down, because the database did not take them in time");
    }
    context.store.close().await;
    Ok(())
}

/// Says that the server is up, as soon as the daemon is there: it is when it has found a way to run programs.
async fn announce(context: Arc<Context>) {
    while context.sandbox().await.is_err() {
        tokio::time::sleep(DAEMON_PAUSE).await;
    }
    supervisor::say_up();
}

/// Deletes what is too old, now and then.
async fn sweep(context: Arc<Context>) {
    let mut round = tokio::time::interval(SWEEP_PAUSE);
    loop {
        round.tick().await;
        match context.store.sweep(&context.history.policy).await {
            Ok(swept) => tracing::debug!(?swept, "what is too old is deleted"),
            Err(error) => tracing::warn!(%error, "what is too old cannot be deleted"),
        }
    }
}

struct Connections {
    context: Arc<Context>,
    router: Router,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    peers: Peers,
    /// No new requests; answers that are under way are finished.
    stop: CancellationToken,
    /// Cuts off what is left.
    cut: CancellationToken,
}

impl Connections {
    fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            router: api::router(context),
            tasks: context.tasks.clone(),
            room: Arc::new(Semaphore::new(context.settings.connections)),
            // A quarter of all, so that it takes more than a few to keep everybody else out.
            peers: Peers::new(context.settings.connections.div_ceil(4), &context.settings.trusted_proxies),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        loop {
            // When there are too many, the next ones wait at the port.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => self.attend(stream, peer, room),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn attend(&self, stream: TcpStream, peer: SocketAddr, room: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke at once");
            return;
        }
        let Some(connected) = self.peers.enter(peer.ip()) else {
            tracing::debug!(%peer, "a client with too many connections is turned away");
            turn_away(&stream, &too_many_connections(self.peers.most()));
            return;
        };
        let held = Held::new((Open::new(&self.context), connected, room));
        let conversation =
            Conversation { peer: peer.ip(), router: self.router.clone(), context: Arc::clone(&self.context), held };
        let (stop, cut) = (self.stop.clone(), self.cut.clone());
        self.tasks.spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(conversation.hold(stream, stop)).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }

    /// Waits for what is under way, then cuts it off.
    async fn end(self, drain: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "requests did not end in time and are cut off");
            self.cut.cancel();
            tokio::time::timeout(CUT_DEADLINE, self.tasks.wait()).await.ok();
        }
    }
}

/// A connection that is counted while it is open.
struct Open(Arc<Context>);

impl Open {
    fn new(context: &Arc<Context>) -> Self {
        context.metrics.connected(1);
        Self(Arc::clone(context))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connected(-1);
    }
}

/// A connection and what answers on it.
struct Conversation {
    peer: IpAddr,
    router: Router,
    context: Arc<Context>,
    held: Held,
}

impl Conversation {
    /// Answers until the client leaves, takes too long, or `stop`.
    async fn hold(self, stream: TcpStream, stop: CancellationToken) -> hyper::Result<()> {
        let clock = HeadClock::start();
        let heads = clock.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            heads.arrived();
            let answering = self.answer(request);
            let heads = heads.clone();
            async move { Ok::<_, Infallible>(answering.await.map(|body| heads.until_sent(body))) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_DEADLINE)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(Timed::new(stream, clock.clone())), service)
            .with_upgrades();
        tokio::select! {
            ended = &mut connection => return ended,
            () = stop.cancelled() => {}
            () = clock.late() => {
                if let Some(parts) = connection.into_parts() {
                    let seconds = HEAD_DEADLINE.as_secs();
                    let problem = Problem::new(ProblemKind::TimedOut, format!("the request's head did not arrive within {seconds} s"));
                    turn_away(&parts.io.into_inner().into_inner(), &problem);
                }
                return Ok(());
            }
        }
        Pin::new(&mut connection).graceful_shutdown();
        connection.await
    }

    fn answer(&self, mut request: Request<Incoming>) -> impl Future<Output = Response> + use<> {
        request.extensions_mut().insert(Peer(self.peer));
        request.extensions_mut().insert(self.held.clone());
        let (head, body) = request.into_parts();
        let body = Body::new(Arriving::new(&head.headers, body));
        let (answering, context) = (self.router.clone().call(Request::from_parts(head, body)), Arc::clone(&self.context));
        async move {
            let Ok(answer) = answering.await;
            context.metrics.answered(answer.status().as_u16());
            answer
        }
    }
}

fn too_many_connections(most: usize) -> Problem {
    let detail = format!("{most} connections from one address are the most");
    Problem::new(ProblemKind::TooMany, detail).hint("end some of them, or use one for several requests").retry_after(1)
}

/// Tells a client why its connection is closed without more, as far as it takes that at once.
fn turn_away(stream: &TcpStream, problem: &Problem) {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let retry = problem.retry_after_s.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n{retry}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "a client was not told why it is turned away");
    }
}

//! The proxy's side of the control socket.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coracle_proxy_table::Table;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::fs::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::GRACE_MS;
use super::predecessors::{GRACE, News, Predecessors};
use super::{DrainRequest, Drained, ListenerStatus, PROTOCOL, Problem, Status, TargetStatus, Waiting};
use crate::listener::{Accepting, Listener};
use crate::options::ProxyOptions;
use crate::plane::{Plane, Prepared};
use crate::source::{ApplyError, Changes};
use crate::table_file::TableFile;
use crate::{drain, handover, scrape};

/// More is refused.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// Everything that can be asked for, by one method or another.
const PATHS: [&str; 13] = [
    "/v1/table",
    "/v1/status",
    "/v1/routes",
    "/v1/targets",
    "/v1/figures",
    "/v1/certificates",
    "/v1/certificates/renew",
    "/v1/certificates/authority",
    "/v1/drain",
    "/v1/stop",
    "/v1/follow",
    "/v1/handover",
    "/metrics",
];

/// What the control socket acts on.
pub(crate) struct Core {
    pub(crate) plane: Arc<Plane>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// In the same order.
    pub(crate) listeners: Vec<ListenerStatus>,
    /// What its options come to.
    pub(crate) settings: String,
    pub(crate) socket: PathBuf,
    pub(crate) accepting: watch::Sender<Accepting>,
    /// Where the last table is kept.
    pub(crate) file: TableFile,
    /// Held while the table changes, and during a hand-over, in which it must not.
    pub(crate) tables: Arc<tokio::sync::Mutex<Tables>>,
    /// Why the table that is served by is not on disk, if it is not.
    pub(crate) unkept: Mutex<Option<String>>,
    /// What a successor gets.
    pub(crate) estate: Mutex<Option<Estate>>,
    /// Where control connections come in; a hand-over adds one.
    pub(crate) doors: mpsc::UnboundedSender<Door>,
    /// The one at the control socket's path, while it is open.
    pub(crate) front_door: Mutex<Option<DropGuard>>,
    /// Those before this one that still serve their last connections.
    pub(crate) predecessors: Predecessors,
    /// The socket by which a successor reaches this one, once there is a successor.
    pub(crate) side_door: Mutex<Option<(PathBuf, DropGuard)>>,
}

/// A socket that control connections come in by, until it is closed; those that are there go on.
pub(crate) struct Door {
    listener: UnixListener,
    closed: CancellationToken,
}

/// Who may change the table.
pub(crate) struct Tables {
    /// This proxy keeps it. Not after a hand-over: then the file is the successor's.
    pub(crate) keeps: bool,
}

/// The listening sockets, in the order of their addresses, and the lock that makes this proxy the only one.
pub(crate) struct Estate {
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) lock: OwnedFd,
}

/// Opens a Unix socket that only the owner can open, in place of whatever was at `path`.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let socket = UnixSocket::new_stream()?;
    // Before it has a name: Linux gives the file this mode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&beside)?;
    let listener = socket.listen(64)?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

/// Answers on every socket that comes through `doors`, until it is dropped.
pub(crate) async fn serve(core: Arc<Core>, mut doors: mpsc::UnboundedReceiver<Door>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            door = doors.recv() => match door {
                Some(door) => drop(tasks.spawn(serve_door(Arc::clone(&core), door))),
                None => return,
            },
            Some(_ended) = tasks.join_next(), if !tasks.is_empty() => (),
        }
    }
}

async fn serve_door(core: Arc<Core>, Door { listener, closed }: Door) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = closed.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve_connection(Arc::clone(&core), stream))),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => (),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(core: Arc<Core>, stream: UnixStream) {
    let service = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { Ok::<_, Infallible>(answer(&core, request).await.unwrap_or_else(Refused::into_response)) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None).half_close(true);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a control connection broke");
    }
}

type Answer = Response<Full<Bytes>>;

/// What was asked for is not done.
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) String);

impl Refused {
    fn into_response(self) -> Answer {
        let mut response = json(&Problem { error: self.1 });
        *response.status_mut() = self.0;
        response
    }
}

fn json(value: &impl Serialize) -> Answer {
    let mut response = Response::new(Full::from(serde_json::to_vec(value).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer to whoever brought a table.
fn taken(table: &Table) -> Answer {
    json(&serde_json::json!({ "generation": table.generation }))
}

async fn answer(core: &Arc<Core>, request: Request<Incoming>) -> Result<Answer, Refused> {
    match (request.method(), request.uri().path()) {
        (&Method::PUT, "/v1/table") => core.replace_table(body(request).await?).await,
        (&Method::PUT, "/v1/follow") => {
            let grace = grace(&request);
            core.follow(Arc::new(read(request).await?), grace).await
        }
        (&Method::GET, "/v1/table") => Ok(json(&*core.plane.snapshot().table)),
        (&Method::GET, "/v1/status") => Ok(json(&core.status())),
        (&Method::GET, "/v1/routes") => Ok(json(&core.plane.routes())),
        (&Method::GET, "/v1/targets") => Ok(json(&core.targets())),
        (&Method::GET, "/v1/figures") => {
            let service = request.uri().query().and_then(|query| query.strip_prefix("service=")).unwrap_or_default();
            Ok(json(&core.plane.figures(service)))
        }
        (&Method::GET, "/v1/certificates") => {
            Ok(json(&core.plane.tls.as_ref().map_or_else(Vec::new, |tls| tls.certificates.status())))
        }
        (&Method::POST, "/v1/certificates/renew") => core.renew(request.uri().query().unwrap_or_default()),
        (&Method::GET, "/v1/certificates/authority") => core.local_authority(),
        (&Method::GET, "/metrics") => Ok(scrape::metrics(&core.plane)),
        (&Method::POST, "/v1/drain") => {
            let grace = grace(&request);
            core.drain(read(request).await?, grace).await
        }
        (&Method::POST, "/v1/stop") => {
            Accepting::stop(&core.accepting);
            Ok(json(&serde_json::json!({})))
        }
        (&Method::POST, "/v1/handover") => hand_over(core, request).await,
        (_, path) if PATHS.contains(&path) => {
            Err(Refused(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not know this method")))
        }
        (_, path) => Err(Refused(StatusCode::NOT_FOUND, format!("there is no {path}"))),
    }
}

/// How long the proxies before this one may take, as its successor says; it waits itself no longer than a bit more.
fn grace(request: &Request<Incoming>) -> Duration {
    let said = request.uri().query().and_then(|query| query.strip_prefix(GRACE_MS)?.parse().ok());
    said.map_or(GRACE, |said| GRACE.min(Duration::from_millis(said)))
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refused> {
    let body = Limited::new(request.into_body(), LARGEST_BODY).collect().await;
    Ok(body.map_err(|error| Refused(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?.to_bytes())
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    parse(&body(request).await?)
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(json).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}

impl Core {
    /// Of a proxy that begins: it accepts, keeps its table, and has nothing to hand over yet.
    pub(crate) fn new(
        plane: Arc<Plane>,
        options: &ProxyOptions,
        doorways: &[(TcpListener, Arc<Listener>)],
        file: TableFile,
        doors: mpsc::UnboundedSender<Door>,
    ) -> Self {
        Self {
            plane,
            addresses: doorways.iter().map(|(_, listener)| listener.address).collect(),
            listeners: doorways.iter().map(|(_, listener)| listener.status()).collect(),
            settings: options.digest(),
            socket: options.control_socket.clone(),
            accepting: watch::channel(Accepting::Yes).0,
            file,
            tables: Arc::new(tokio::sync::Mutex::new(Tables { keeps: true })),
            unkept: Mutex::default(),
            estate: Mutex::default(),
            doors,
            front_door: Mutex::default(),
            predecessors: Predecessors::default(),
            side_door: Mutex::default(),
        }
    }

    /// Notes why the table that is served by is not on disk, if it is not.
    pub(crate) fn note_unkept(&self, unkept: Option<String>) {
        *self.unkept.lock().unwrap_or_else(PoisonError::into_inner) = unkept;
    }

    /// Takes connections from there until what is returned is dropped.
    pub(crate) fn open_door(&self, listener: UnixListener) -> io::Result<DropGuard> {
        let closed = CancellationToken::new();
        let opened = self.doors.send(Door { listener, closed: closed.clone() });
        opened.map(|()| closed.drop_guard()).map_err(|_ended| io::Error::other("the proxy has ended"))
    }

    /// The same at the control socket's path, where one that was open is closed.
    pub(crate) fn open_front_door(&self, listener: UnixListener) -> io::Result<()> {
        let open = self.open_door(listener)?;
        *self.front_door.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(())
    }

    async fn replace_table(&self, json: Bytes) -> Result<Answer, Refused> {
        let table: Arc<Table> = Arc::new(parse(&json)?);
        let tables = self.tables.lock().await;
        if !tables.keeps {
            return Err(Refused(StatusCode::MISDIRECTED_REQUEST, "a successor has taken over".to_owned()));
        }
        let prepared = self.prepare(Arc::clone(&table))?;
        let file = self.file.clone();
        // As it came: what was written by somebody else need not be written anew.
        let stored = tokio::task::spawn_blocking(move || file.store_json(&json)).await.map_err(io::Error::other).flatten();
        self.note_unkept(unkept(stored));
        let news = self.install(prepared, &table);
        drop(tables);
        self.predecessors.follow(news, GRACE).await;
        Ok(taken(&table))
    }

    /// Serves by what a source says from now on.
    pub(crate) async fn apply(&self, changes: Changes) -> Result<(), ApplyError> {
        let tables = self.tables.lock().await;
        if !tables.keeps {
            return Err(ApplyError::Replaced);
        }
        let mut table = changes.table;
        table.generation = self.plane.snapshot().table.generation + 1;
        let table = Arc::new(table);
        let prepared = self.plane.prepare(Arc::clone(&table))?;
        let (file, kept) = (self.file.clone(), Arc::clone(&table));
        let stored = tokio::task::spawn_blocking(move || file.store(&kept)).await.map_err(io::Error::other).flatten();
        self.note_unkept(unkept(stored));
        if let Some(tls) = &self.plane.tls {
            tls.certificates.set_given(changes.given);
        }
        self.plane.believe(changes.trust);
        let news = self.install(prepared, &table);
        drop(tables);
        self.predecessors.follow(news, GRACE).await;
        Ok(())
    }

    fn renew(&self, query: &str) -> Result<Answer, Refused> {
        let name = query.strip_prefix("name=").unwrap_or_default();
        match &self.plane.tls {
            Some(tls) if tls.certificates.retry(name) => Ok(json(&serde_json::json!({}))),
            _ => Err(Refused(StatusCode::NOT_FOUND, format!("no route asks for a certificate for {name:?}"))),
        }
    }

    fn local_authority(&self) -> Result<Answer, Refused> {
        let Some(tls) = &self.plane.tls else {
            return Err(Refused(StatusCode::NOT_FOUND, "no listener speaks TLS".to_owned()));
        };
        let pem = tls.certificates.local_ca_pem();
        let mut pem = pem.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        if !pem.ends_with('\n') {
            // So that it can be appended to others.
            pem.push('\n');
        }
        let mut response = Response::new(Full::from(pem));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
        Ok(response)
    }

    /// Takes the table of the successor, who keeps it.
    async fn follow(&self, table: Arc<Table>, grace: Duration) -> Result<Answer, Refused> {
        let tables = self.tables.lock().await;
        if tables.keeps {
            return Err(Refused(StatusCode::CONFLICT, "this proxy has no successor".to_owned()));
        }
        let news = self.install(self.prepare(Arc::clone(&table))?, &table);
        drop(tables);
        self.predecessors.follow(news, grace).await;
        Ok(taken(&table))
    }

    fn prepare(&self, table: Arc<Table>) -> Result<Prepared, Refused> {
        self.plane.prepare(table).map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
    }

    /// For whoever holds the tables. The proxies before this one have to be told afterwards, when they are let go.
    fn install(&self, prepared: Prepared, table: &Arc<Table>) -> News {
        self.plane.install(prepared);
        self.predecessors.note(table)
    }

    async fn drain(&self, request: DrainRequest, grace: Duration) -> Result<Answer, Refused> {
        let deadline = Duration::from_millis(request.deadline_ms);
        let leaving = {
            let _none_is_brought_back_meanwhile = self.tables.lock().await;
            drain::take_leave(&self.plane, &request.targets)
        };
        let (here, before) = tokio::join!(
            drain::drain(&self.plane, &leaving, deadline),
            self.predecessors.drain(&request.targets, deadline, grace),
        );
        // A drained target that the table still has, because its service is held, begins anew.
        let _tables = self.tables.lock().await;
        let snapshot = self.plane.snapshot();
        if snapshot.targets().any(|target| leaving.iter().any(|left| Arc::ptr_eq(left, target))) {
            self.plane.install(self.prepare(Arc::clone(&snapshot.table))?);
        }
        Ok(json(&Drained { cut_off: here + before }))
    }

    fn targets(&self) -> Vec<TargetStatus> {
        let mut targets: Vec<TargetStatus> = self
            .plane
            .targets
            .all()
            .iter()
            .map(|target| TargetStatus {
                id: target.id.clone(),
                address: target.address,
                in_flight: target.in_flight(),
                upgraded: target.upgraded(),
                state: target.state(),
            })
            .collect();
        targets.sort_by(|a, b| (&a.id, a.address).cmp(&(&b.id, b.address)));
        targets
    }

    fn status(&self) -> Status {
        let snapshot = self.plane.snapshot();
        let waiting = self.plane.gates.waiting().into_iter().map(|(service, count)| Waiting { service, count }).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            protocol: PROTOCOL,
            generation: snapshot.table.generation,
            http: self.addresses.clone(),
            listeners: self.listeners.clone(),
            settings: self.settings.clone(),
            accepting: *self.accepting.borrow() == Accepting::Yes,
            targets: self.targets(),
            waiting,
            predecessors: self.predecessors.count(),
            unkept: self.unkept.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Why a table is not on disk, if it is not. A disk that is full is no reason to serve by one that is out of date: only a proxy that
/// is started alone before the next table comes would know no better.
pub(crate) fn unkept(stored: io::Result<()>) -> Option<String> {
    let error = stored.err()?.to_string();
    tracing::error!(error, "the routing table is served by, but could not be kept on disk");
    Some(error)
}

/// Lets a successor begin: the connection changes to the hand-over's own protocol.
async fn hand_over(core: &Arc<Core>, mut request: Request<Incoming>) -> Result<Answer, Refused> {
    if request.headers().get(UPGRADE).is_none_or(|protocol| protocol != handover::UPGRADE_TO) {
        return Err(Refused(StatusCode::UPGRADE_REQUIRED, format!("this is for {} only", handover::UPGRADE_TO)));
    }
    let Ok(tables) = Arc::clone(&core.tables).try_lock_owned() else {
        return Err(Refused(StatusCode::CONFLICT, "the table is changing, or another successor is taking over".to_owned()));
    };
    if *core.accepting.borrow() != Accepting::Yes {
        return Err(Refused(StatusCode::CONFLICT, "this proxy is stopping".to_owned()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    core.plane.spawn(handover::give(Arc::clone(core), tables, upgrade));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(handover::UPGRADE_TO));
    Ok(response)
}

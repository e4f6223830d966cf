//! A proxy's life: begin, serve, drain, end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_table::{Admission, Table};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::control::server::{Core, Estate, Tables};
use crate::control::{self, Client};
use crate::forwarded::RequestIds;
use crate::handover::{self, Beginning, HandoverError, Inheritance};
use crate::listener::{self, Accepting};
use crate::options::ProxyOptions;
use crate::plane::Plane;
use crate::table_file::TableFile;
use crate::{access_log, drain};

/// How long connections may take to end after everything on them was cut off.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says: in use, mostly, or a port below 1024 without the right to it.
        source: io::Error,
    },
    /// The control socket cannot be opened.
    #[error("cannot open the control socket {path}: {source}", path = path.display())]
    ControlSocket {
        /// Its path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}: {source}", path = path.display())]
    StateDir {
        /// Its path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(#[source] io::Error),
    /// A running proxy did not hand over.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The runtime, signals or randomness.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A running proxy. Dropping it ends it at once, with everything on it; see [`Proxy::shutdown`].
#[derive(Debug)]
pub struct Proxy {
    http: Vec<SocketAddr>,
    control_socket: PathBuf,
    accepting: watch::Sender<Accepting>,
    log: LogHandle,
    life: JoinHandle<()>,
}

#[derive(Clone)]
struct LogHandle(access_log::AccessLog);

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogHandle")
    }
}

/// The body of the proxy process: serves until it is told to stop or has handed over, drains, and returns.
///
/// SIGTERM and SIGINT stop it, a second one ends it at once; SIGHUP opens the access log again.
pub fn run(options: ProxyOptions) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.workers.max(1)).enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut proxy = Proxy::start(options).await?;
        loop {
            tokio::select! {
                () = proxy.ended() => return Ok(()),
                signal = signals.next() => match signal {
                    Signal::Reopen => proxy.log.0.reopen(),
                    Signal::Stop if proxy.stop() => tracing::info!("stopping: serving the last connections"),
                    Signal::Stop => return Ok(()),
                },
            }
        }
    })
}

enum Signal {
    Stop,
    Reopen,
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, hup: signal(SignalKind::hangup())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
            _ = self.hup.recv() => Signal::Reopen,
        }
    }
}

impl Proxy {
    /// Starts serving, alone or in place of the proxy that has the control socket.
    pub async fn start(options: ProxyOptions) -> Result<Self, StartError> {
        let file = TableFile::in_directory(&options.state_dir)
            .map_err(|source| StartError::StateDir { path: options.state_dir.clone(), source })?;
        let (log, log_writer) = access_log::open(&options.access_log).map_err(StartError::AccessLog)?;
        let ids = RequestIds::new().map_err(io::Error::other)?;
        let control_path = options.control_socket.clone();
        let beginning = tokio::task::spawn_blocking(move || handover::begin(&control_path)).await;
        let mut beginning = beginning.map_err(io::Error::other)??;
        let table =
            first_table(&file, &beginning).map_err(|source| StartError::StateDir { path: options.state_dir.clone(), source })?;
        let listeners = listen(&options.http, &mut beginning)?;
        let (accepting, _) = watch::channel(Accepting::Yes);
        let (doors, doors_opened) = mpsc::unbounded_channel();
        let plane = Plane::new(options.limits, log.clone(), ids, table);
        let core = Arc::new(Core {
            plane,
            http: addresses(&listeners)?,
            socket: options.control_socket.clone(),
            accepting: accepting.clone(),
            tables: Arc::new(tokio::sync::Mutex::new(Tables { file, keeps: true })),
            estate: Mutex::default(),
            doors,
            predecessors: Mutex::default(),
            side_door: Mutex::default(),
        });
        let sockets = listeners.iter().map(|listener| std::os::fd::AsFd::as_fd(listener).try_clone_to_owned());
        let sockets = sockets.collect::<io::Result<Vec<OwnedFd>>>()?;
        let life = Life { core: Arc::clone(&core), drain: options.drain, _log_writer: log_writer };
        let life = tokio::spawn(life.live(listeners, doors_opened));
        let mut proxy =
            Self { http: core.http.clone(), control_socket: options.control_socket, accepting, log: LogHandle(log), life };
        // From here on requests are accepted, and those that were are answered, whatever happens.
        if let Err(error) = proxy.take_control(&core, sockets, beginning).await {
            proxy.accepting.send_replace(Accepting::HandedOver);
            proxy.ended().await;
            return Err(error);
        }
        Ok(proxy)
    }

    /// Takes the control socket's path and, if there is a predecessor, its place.
    async fn take_control(&self, core: &Core, sockets: Vec<OwnedFd>, beginning: Beginning) -> Result<(), StartError> {
        let open = || {
            let failed = |source| StartError::ControlSocket { path: core.socket.clone(), source };
            let door: UnixListener = control::server::bind(&core.socket).map_err(failed)?;
            core.doors.send(door).map_err(|_ended| failed(io::Error::other("the proxy has ended")))
        };
        let lock = match beginning {
            Beginning::Alone(lock) => {
                open()?;
                lock
            }
            Beginning::Heir(inheritance) => {
                if !inheritance.in_time() {
                    return Err(HandoverError::Io(io::ErrorKind::TimedOut.into()).into());
                }
                let lock = inheritance.lock.try_clone()?;
                let predecessor = Client::new(&inheritance.offer.side_door);
                core.predecessors.lock().unwrap_or_else(PoisonError::into_inner).push(predecessor);
                let _no_table_before_it_is_done = core.tables.lock().await;
                open()?;
                let taken = tokio::task::spawn_blocking(move || inheritance.taken()).await.map_err(io::Error::other)?;
                taken.map_err(HandoverError::Io)?;
                lock
            }
        };
        *core.estate.lock().unwrap_or_else(PoisonError::into_inner) = Some(Estate { sockets, lock });
        Ok(())
    }

    /// Where it listens.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The control socket.
    pub fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    /// Speaks to it.
    pub fn client(&self) -> Client {
        Client::new(&self.control_socket)
    }

    /// Begins to stop. False if it is ending already, because it was told before or has handed over.
    pub fn stop(&self) -> bool {
        Accepting::stop(&self.accepting)
    }

    /// Waits until it has ended: told to stop or handed over, and drained. Cancel safe.
    pub async fn ended(&mut self) {
        if let Err(error) = (&mut self.life).await
            && error.is_panic()
        {
            tracing::error!(%error, "the proxy broke");
        }
    }

    /// Stops accepting, serves what is connected until it is through or the drain deadline passes, and ends.
    pub async fn shutdown(mut self) {
        self.stop();
        self.ended().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.life.abort();
    }
}

fn first_table(file: &TableFile, beginning: &Beginning) -> io::Result<Table> {
    match beginning {
        Beginning::Alone(_) => file.load(),
        Beginning::Heir(inheritance) => {
            // Its state directory may be another one.
            if file.load()? != inheritance.offer.table {
                file.store(&inheritance.offer.table)?;
            }
            Ok(inheritance.offer.table.clone())
        }
    }
}

fn listen(wanted: &[SocketAddr], beginning: &mut Beginning) -> Result<Vec<TcpListener>, StartError> {
    let mut one = |address: SocketAddr| match beginning {
        Beginning::Heir(inheritance) => match inheritance.take(address) {
            Some(socket) => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)
            }
            None => listener::bind(address),
        },
        Beginning::Alone(_) => listener::bind(address),
    };
    let listeners = wanted.iter().map(|address| one(*address).map_err(|source| StartError::Listen { address: *address, source }));
    let listeners = listeners.collect();
    // The rest is not listened on any more once the predecessor has let go, too.
    if let Beginning::Heir(Inheritance { sockets, .. }) = beginning {
        sockets.clear();
    }
    listeners
}

fn addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// What runs as long as the proxy does, and is ended by dropping it.
struct Life {
    core: Arc<Core>,
    drain: Duration,
    _log_writer: access_log::Writer,
}

impl Life {
    async fn live(self, listeners: Vec<TcpListener>, doors: mpsc::UnboundedReceiver<UnixListener>) {
        let core = &self.core;
        let mut accepting = core.accepting.subscribe();
        let mut control = JoinSet::new();
        control.spawn(control::server::serve(Arc::clone(core), doors));
        let (mut servers, mut all_closed) = (JoinSet::new(), Vec::new());
        for socket in listeners {
            let (closed, until_closed) = oneshot::channel();
            servers.spawn(listener::serve(socket, Arc::clone(&core.plane), core.accepting.subscribe(), closed));
            all_closed.push(until_closed);
        }
        // `core` holds a sender, so there is always one.
        drop(accepting.wait_for(|accepting| *accepting != Accepting::Yes).await);
        core.plane.close_connections();
        let estate = core.estate.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lock = estate.map(|Estate { sockets, lock }| {
            drop(sockets);
            lock
        });
        futures::future::join_all(all_closed).await;
        if *core.accepting.borrow() == Accepting::Stopped
            && let Err(error) = std::fs::remove_file(&core.socket)
        {
            tracing::debug!(%error, "the control socket is gone already");
        }
        // From here on another proxy can start.
        drop(lock);
        self.serve_the_last(servers).await;
        core.close_side_door();
        control.shutdown().await;
    }

    /// Serves what is connected, until it is through or the deadline passes.
    async fn serve_the_last(&self, mut servers: JoinSet<()>) {
        let plane = &self.core.plane;
        let through = timeout(self.drain, async {
            while servers.join_next().await.is_some() {}
            plane.until_tasks_end().await;
        });
        if through.await.is_ok() {
            return;
        }
        let mut table = plane.snapshot().table.clone();
        for service in table.services.values_mut() {
            service.targets.clear();
            service.admission = Admission::Closed { message: "The proxy is stopping.\n".to_owned(), retry_after_s: 1 };
        }
        plane.install(table);
        let cut_off = drain::cut_all(plane).await;
        tracing::info!(cut_off, "the drain deadline has passed");
        // What still has an answer to read gets it; those who wait for nothing are closed.
        drop(timeout(LAST_WORDS, async { while servers.join_next().await.is_some() {} }).await);
        servers.shutdown().await;
        plane.kill_tasks();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.core.plane.kill_tasks();
    }
}

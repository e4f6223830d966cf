//! A proxy's life: begin, serve, drain, end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use coracle_certs::CertError;
use coracle_proxy_table::Table;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::access_log;
use crate::control::server::{Core, Estate, unkept};
use crate::control::{self, Client, ListenerStatus};
use crate::handover::{self, Beginning, HandoverError, Inheritance};
use crate::life::Life;
use crate::listener::{self, Accepting, Listener};
use crate::options::{ListenerOptions, ProxyOptions};
use crate::plane::Plane;
use crate::program_pages;
use crate::request_id::RequestIds;
use crate::router::BadTable;
use crate::scrape;
use crate::source::{ApplyError, Changes, Nothing, Source};
use crate::table_file::TableFile;
use crate::tls::Tls;
use crate::worker::{Job, Threads};

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
    /// Certificates cannot be kept.
    #[error("certificates: {0}")]
    Certificates(#[from] CertError),
    /// The table that it was told to begin with cannot be served by.
    #[error("cannot serve by the table: {0}")]
    FirstTable(#[source] BadTable),
    /// The table of the proxy that it was to replace cannot be served by.
    #[error("cannot serve by the table of the running proxy: {0}")]
    Table(#[source] BadTable),
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
    addresses: Vec<SocketAddr>,
    control_socket: PathBuf,
    accepting: watch::Sender<Accepting>,
    log: LogHandle,
    core: CoreHandle,
    life: JoinHandle<()>,
}

struct CoreHandle(Weak<Core>);

impl std::fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CoreHandle")
    }
}

#[derive(Clone)]
struct LogHandle(access_log::AccessLog);

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogHandle")
    }
}

/// Whether a table can be served by, so far as that can be known without serving by it.
pub fn check(table: Table) -> Result<(), BadTable> {
    let options = ProxyOptions { workers: 1, ..ProxyOptions::new(Vec::new(), PathBuf::new(), PathBuf::new()) };
    let (plane, _jobs) = Plane::new(&options, access_log::AccessLog::default(), RequestIds::default(), None);
    plane.prepare(table).map(drop)
}

/// The body of the proxy process: serves until it is told to stop or has handed over, drains, and returns.
///
/// SIGTERM and SIGINT stop it, a second one ends it at once; SIGHUP opens the access log again.
pub fn run(options: ProxyOptions) -> Result<(), StartError> {
    run_with(options, Nothing)
}

/// The same for a proxy that serves by what a source says, whose first word is in the options already. SIGHUP asks the source
/// as well.
pub fn run_with(options: ProxyOptions, mut source: impl Source) -> Result<(), StartError> {
    // Connections are the workers' affair: what is left for this thread is to be told things.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut proxy = Proxy::start(options).await?;
        give_way();
        program_pages::let_go();
        loop {
            tokio::select! {
                () = proxy.ended() => return Ok(()),
                () = source.changed() => proxy.follow(&mut source).await,
                signal = signals.next() => match signal {
                    Signal::Reopen => {
                        proxy.log.0.reopen();
                        proxy.follow(&mut source).await;
                    }
                    Signal::Stop if proxy.stop() => tracing::info!("stopping: serving the last connections"),
                    Signal::Stop => return Ok(()),
                },
            }
        }
    })
}

/// By how much a processor that everybody wants goes to requests rather than to new tables, as a nice value (setpriority(2)):
/// about nine parts of ten.
const COURTESY: i32 = 10;

/// Has this thread, and those that it starts from now on, give way to the workers, which are there already. Where there are
/// few processors, a worker would otherwise wait for as long as it takes to make a table ready.
fn give_way() {
    // On Linux a priority is a thread's own; nobody is the caller.
    if let Err(error) = rustix::process::setpriority_process(None, COURTESY) {
        tracing::debug!(%error, "tables are made ready at the priority of requests");
    }
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

/// What a proxy has before it serves anybody.
struct Prelude {
    file: TableFile,
    log: access_log::AccessLog,
    log_writer: access_log::Writer,
    beginning: Beginning,
}

impl Prelude {
    /// Opens files, and takes the lock or what its holder hands over.
    async fn new(options: &ProxyOptions) -> Result<Self, StartError> {
        let file = TableFile::in_directory(&options.state_dir)
            .map_err(|source| StartError::StateDir { path: options.state_dir.clone(), source })?;
        let (log, log_writer) = access_log::open(&options.access_log).map_err(StartError::AccessLog)?;
        let control_path = options.control_socket.clone();
        let beginning = tokio::task::spawn_blocking(move || handover::begin(&control_path)).await;
        Ok(Self { file, log, log_writer, beginning: beginning.map_err(io::Error::other)?? })
    }

    /// Makes the plane, which serves by the first table. Answers why that is not on disk, if it could not be kept.
    async fn plane(&self, options: &ProxyOptions, told: Option<Table>) -> Result<(Arc<Plane>, Jobs, Option<String>), StartError> {
        let ids = RequestIds::new().map_err(io::Error::other)?;
        let (table, mut unkept) = first_table(&self.file, &self.beginning);
        let speaks_tls = options.listeners.iter().any(|listener| listener.tls);
        let tls = speaks_tls.then(|| Tls::start(options.certificates.clone())).transpose()?;
        let (plane, jobs) = Plane::new(options, self.log.clone(), ids, tls);
        match told {
            Some(told) => unkept = install_told(&plane, Table { generation: table.generation + 1, ..told }, &self.file)?,
            None => install_first(&plane, table, &self.file, &self.beginning)?,
        }
        if let Some(tls) = &plane.tls {
            tls.ready().await;
        }
        Ok((plane, jobs, unkept))
    }
}

/// What the workers are told their jobs by.
type Jobs = Vec<mpsc::UnboundedReceiver<Job>>;

impl Proxy {
    /// Starts serving, alone or in place of the proxy that has the control socket.
    pub async fn start(mut options: ProxyOptions) -> Result<Self, StartError> {
        let told = options.table.take();
        let mut prelude = Prelude::new(&options).await?;
        let (plane, jobs, unkept) = prelude.plane(&options, told).await?;
        let scrapes =
            options.metrics.map(|address| scrape::bind(address).map_err(|source| StartError::Listen { address, source }));
        let scrapes = scrapes.transpose()?;
        let doorways = listen(&options.listeners, &mut prelude.beginning)?;
        let sockets = doorways.iter().map(|(socket, _)| Ok(socket.try_clone()?.into()));
        let sockets = sockets.collect::<io::Result<Vec<OwnedFd>>>()?;
        let threads = Threads::start(&plane, jobs)?;
        let Prelude { file, log, log_writer, beginning } = prelude;
        let (doors, doors_opened) = mpsc::unbounded_channel();
        let core = Arc::new(Core::new(plane, &options, &doorways, file, doors));
        core.note_unkept(unkept);
        let life = Life::new(Arc::clone(&core), threads, options.drain, log_writer);
        let life = tokio::spawn(life.live(doorways, doors_opened, scrapes));
        let mut proxy = Self {
            addresses: core.addresses.clone(),
            control_socket: options.control_socket,
            accepting: core.accepting.clone(),
            log: LogHandle(log),
            core: CoreHandle(Arc::downgrade(&core)),
            life,
        };
        // From here on requests are accepted, and those that were are answered, whatever happens.
        if let Err(error) = proxy.take_control(&core, sockets, beginning).await {
            proxy.accepting.send_replace(Accepting::HandedOver);
            proxy.ended().await;
            return Err(error);
        }
        tell_where(&core, options.metrics);
        Ok(proxy)
    }

    /// Takes the control socket's path and, if there is a predecessor, its place.
    async fn take_control(&self, core: &Core, sockets: Vec<OwnedFd>, beginning: Beginning) -> Result<(), StartError> {
        let open = || {
            let failed = |source| StartError::ControlSocket { path: core.socket.clone(), source };
            let door: UnixListener = control::server::bind(&core.socket).map_err(failed)?;
            core.open_front_door(door).map_err(failed)
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
                core.predecessors.add(predecessor);
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

    /// Serves by something else from now on. When it returns, every request that arrives later goes by the new table; one that
    /// cannot be served by changes nothing.
    pub async fn apply(&self, changes: Changes) -> Result<(), ApplyError> {
        let core = self.core.0.upgrade().ok_or(ApplyError::Replaced)?;
        core.apply(changes).await
    }

    /// Serves by what a source says by now, if it says something new.
    async fn follow(&self, source: &mut impl Source) {
        let Some(changes) = source.read() else { return };
        match self.apply(changes).await {
            Ok(()) => tracing::info!("serving by the new configuration"),
            Err(ApplyError::Table(error)) => source.refused(&error),
            Err(error) => tracing::error!(%error, "the new configuration is not served by"),
        }
    }

    /// Where it listens, in the order of the options' listeners, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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

/// Says where it listens, a line for each.
fn tell_where(core: &Core, metrics: Option<SocketAddr>) {
    for ListenerStatus { name, address, tls } in &core.listeners {
        let speaks = if *tls { "https" } else { "http" };
        tracing::info!("listening on {speaks}://{address} ({name})");
    }
    if let Some(address) = metrics {
        tracing::info!("listening on http://{address}/metrics");
    }
    tracing::info!("listening on {} for control", core.socket.display());
}

/// The table to begin with, and why it is not on disk, if it could not be kept.
fn first_table(file: &TableFile, beginning: &Beginning) -> (Table, Option<String>) {
    match beginning {
        Beginning::Alone(_) => (file.load_alone(), None),
        Beginning::Heir(inheritance) => {
            let table = &inheritance.offer.table;
            // Its state directory may be another one.
            let stored = if file.load() == *table { Ok(()) } else { file.store(table) };
            (table.clone(), unkept(stored))
        }
    }
}

/// Serves by the table that it was told to begin with. Answers why it is not on disk, if it could not be kept.
fn install_told(plane: &Plane, table: Table, file: &TableFile) -> Result<Option<String>, StartError> {
    plane.install(plane.prepare(table.clone()).map_err(StartError::FirstTable)?);
    Ok(unkept(file.store(&table)))
}

/// Serves by the table that is there. One of our own that cannot be served by (it was written by another version) is put
/// aside; one that a predecessor serves by is a reason not to take its place.
fn install_first(plane: &Plane, table: Table, file: &TableFile, beginning: &Beginning) -> Result<(), StartError> {
    match (plane.prepare(table), beginning) {
        (Ok(prepared), _) => {
            plane.install(prepared);
            Ok(())
        }
        (Err(error), Beginning::Heir(_)) => Err(StartError::Table(error)),
        (Err(error), Beginning::Alone(_)) => {
            file.put_all_aside(&error.to_string());
            Ok(())
        }
    }
}

fn listen(wanted: &[ListenerOptions], beginning: &mut Beginning) -> Result<Vec<(TcpListener, Arc<Listener>)>, StartError> {
    let mut one = |options: &ListenerOptions| {
        let socket = match beginning {
            Beginning::Heir(inheritance) => match inheritance.take(options.address) {
                Some(socket) => {
                    let socket = TcpListener::from(socket);
                    socket.set_nonblocking(true)?;
                    socket
                }
                None => listener::bind(options.address)?,
            },
            Beginning::Alone(_) => listener::bind(options.address)?,
        };
        let address = socket.local_addr()?;
        Ok((socket, Arc::new(Listener::new(options, address))))
    };
    let doorways =
        wanted.iter().map(|options| one(options).map_err(|source| StartError::Listen { address: options.address, source }));
    let doorways = doorways.collect();
    // The rest is not listened on any more once the predecessor has let go, too.
    if let Beginning::Heir(Inheritance { sockets, .. }) = beginning {
        sockets.clear();
    }
    doorways
}

//! The server from its start to its end.

mod options;
mod start_error;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use coracle_api::SshDoor;
use coracle_api::dial::DIAL_COMMAND;
use coracle_engine::{Engine, Neighbours};
use coracle_engine_docker::DockerEngine;
use coracle_git_door::Door;
use coracle_labels::Entrance;
use coracle_model::{ByteSize, Cpus, EngineKind};
use coracle_orchestrator::{HostOrchestrator, Settings, TlsOffer, Traffic};
use coracle_policy::ServerPolicy;
use coracle_ssh_door::{HostKey, Listening};
use coracle_store::{Store, StoreError};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::access::Caller;
use crate::api_host::ApiHost;
use crate::context::Context;
use crate::deployments::Deployments;
use crate::discovery::Discovery;
use crate::engines::{EngineChoice, Search};
use crate::forges::{self, Forges};
use crate::people::People;
use crate::previews::Previews;
use crate::proxy_process::ProxyProcess;
use crate::published::Published;
use crate::source::Sources;
use crate::ssh::{self, Keeper};
use crate::state_dir;
use crate::succession::{self, Successions};
use crate::token::{self, TokenGuard};
use crate::{api, connections, farewell, gate, leftover};

pub use options::ServerOptions;
pub use start_error::StartError;

/// How long deployments and requests may take to end once the server is asked to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long what is left may take to end when it has been cut off.
const CUT_DEADLINE: Duration = Duration::from_secs(5);

/// What a server is made of, for those who bring their own engines or their own proxy.
pub struct Parts {
    /// The engines; those whose manifest names none get `default_engine`.
    pub engines: Vec<Engine>,
    /// The engine of apps that name none.
    pub default_engine: EngineKind,
    /// Who moves requests.
    pub traffic: Arc<dyn Traffic>,
    /// Where requests are taken, to tell people.
    pub http: Vec<SocketAddr>,
}

/// A running server. Dropping it without [`Server::run_until`] cuts everything off, as a crash would; apps and proxy go on.
pub struct Server {
    context: Arc<Context>,
    api_socket: PathBuf,
    api_tcp: Option<SocketAddr>,
    connections: TaskTracker,
    /// Cuts off what has not ended in time.
    cut: CancellationToken,
    /// Ends the tasks below, after deployments have ended.
    halt: CancellationToken,
    accepting: Vec<AbortOnDropHandle<()>>,
    background: Vec<AbortOnDropHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.context.stop.cancel();
        self.halt.cancel();
        self.cut.cancel();
    }
}

impl Server {
    /// Starts a server on this machine: state, engines, proxy, what was interrupted, then the API.
    pub async fn start(options: ServerOptions) -> Result<Self, StartError> {
        // First of all what can go wrong without having started anything.
        let doors = Doors::bind(&options).await?;
        let store = open_store(&options.state_dir, options.patience).await?;
        let search = Search {
            choice: options.engine,
            owner: store.owner().clone(),
            state_dir: &options.state_dir,
            program: &options.program,
            docker_socket: options.docker_socket.clone(),
        };
        let engines = search.run(&store).await?;
        let entrances = succession::entrances_of(&options.state_dir, &store).await;
        let proxy = ProxyProcess::start_with(options.proxy(), entrances).await?;
        let parts = Parts { engines: engines.all, default_engine: engines.default, traffic: proxy.clone(), http: proxy.http() };
        // Redirects name the real port.
        let options = ServerOptions { https: proxy.https(), ..options };
        let neighbours = engines.neighbours.filter(|_| options.discovery.on);
        let own = Own { docker: engines.docker, proxy: Some(proxy), neighbours };
        Self::assemble(options, store, doors, parts, own).await
    }

    /// Starts a server with these engines and this proxy instead of the machine's own.
    pub async fn with_parts(options: ServerOptions, parts: Parts) -> Result<Self, StartError> {
        let doors = Doors::bind(&options).await?;
        let store = open_store(&options.state_dir, options.patience).await?;
        Self::assemble(options, store, doors, parts, Own::default()).await
    }

    async fn assemble(options: ServerOptions, store: Store, doors: Doors, parts: Parts, own: Own) -> Result<Self, StartError> {
        let Own { docker, proxy, neighbours } = own;
        let incoming = options.state_dir.join("incoming");
        state_dir::create_emptied(&incoming)?;
        let Doors { api_tcp, ssh, hooks } = doors;
        let api_address = api_tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let own_host = options.api_host.clone().zip(api_address);
        let own_host = own_host.map(|(host, api)| ApiHost { host, api: reached(api), tls: options.tls_offer() });
        let api_url = own_host.as_ref().map(ApiHost::url);
        let published = Arc::new(Published::over(parts.traffic, own_host));
        let (tls, policy) = (options.tls_offer(), options.policy.clone());
        let settings = settings(parts.default_engine, tls, policy, options.state_dir.join("mounts"));
        let orchestrator = HostOrchestrator::new(store.clone(), parts.engines.clone(), published.clone(), settings);
        if neighbours.is_none() {
            orchestrator.without_guests();
        }
        orchestrator.recover().await.map_err(StartError::Recover)?;
        let entrance = Entrance { tls_port: options.tls_offer().port, acme: options.acme.is_some(), redirect: true };
        let discovery = neighbours.map(|neighbours| {
            let (discovery, orchestrator) = (options.discovery.clone(), orchestrator.clone());
            Arc::new(Discovery::new(neighbours, discovery, entrance, orchestrator, published.clone()))
        });

        let (stop, halt, cut) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let predecessors = docker.as_ref().map(|docker| (docker.predecessors(), docker.facts().containers_reachable));
        let successions = Successions::new(&options.state_dir, store.clone(), predecessors, proxy.clone())?;
        let sources = Sources {
            store: store.clone(),
            default_engine: parts.default_engine,
            incoming,
            limits: options.intake,
            successions: successions.clone(),
        };
        let tasks = TaskTracker::new();
        let (git, program) = (options.state_dir.join("git"), &options.program);
        let door = Door::open(&git, program, &options.api_socket, tasks.clone(), stop.clone())?;
        let (on, http) = ((sources.clone(), door.clone()), parts.http.clone());
        let deployments = Deployments::new(orchestrator.clone(), on, http, stop.clone(), cut.clone());
        farewell::settle(&store, &door).await;
        let previews = Previews::new(store.clone(), orchestrator.clone(), deployments.clone(), door.clone());
        gate::settle(&door, &store).await;
        let forges = Forges::new(forges::Means {
            store: store.clone(),
            door: door.clone(),
            deployments: deployments.clone(),
            previews: previews.clone(),
            public_url: options.public_url.or_else(|| api_url.clone()),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let ssh = ssh.map(|listener| ssh_door(listener, &options.state_dir)).transpose()?;
        let context = Arc::new(Context {
            orchestrator,
            people: People::new(store.clone()),
            store,
            engines: parts.engines,
            default_engine: parts.default_engine,
            docker,
            docker_declined: options.engine == EngineChoice::Process,
            docker_socket: options.docker_socket,
            deployments,
            previews,
            published,
            discovery,
            proxy,
            http: parts.http,
            api_tcp: api_address,
            hooks: hooks.as_ref().and_then(|listener| listener.local_addr().ok()),
            api_url,
            ssh: ssh.as_ref().map(|(.., described)| described.clone()),
            state_dir: options.state_dir.clone(),
            sources,
            door,
            forges,
            tasks,
            stop,
        });
        let mut server = Self {
            context,
            api_socket: options.api_socket,
            api_tcp: None,
            connections: TaskTracker::new(),
            cut,
            halt,
            accepting: Vec::new(),
            background: Vec::new(),
        };
        server.look_after(successions);
        let api = api::router(server.context.clone());
        server.listen(api.clone(), api_tcp, &options.state_dir.join("token"))?;
        server.context.forges.resume().await;
        if let Some(listener) = hooks {
            server.listen_for_hooks(listener);
        }
        if let Some((listener, host_key, _)) = ssh {
            server.listen_ssh(listener, host_key, api);
        }
        Ok(server)
    }

    /// Begins what goes on until the server ends, whether anybody asks or not.
    fn look_after(&mut self, successions: Successions) {
        let Context { orchestrator, previews, discovery, proxy, .. } = &*self.context;
        let (orchestrator, halt) = (orchestrator.clone(), self.halt.clone());
        let mut tasks = vec![owned(previews.clone().keep(halt.clone()))];
        if let Some(discovery) = discovery.clone() {
            let halt = halt.clone();
            tasks.push(owned(async move { discovery.run(halt).await }));
        }
        if let Some(proxy) = proxy.clone() {
            tasks.push(owned(proxy.watch(orchestrator.clone(), halt.clone())));
        }
        tasks.push(owned({
            let orchestrator = orchestrator.clone();
            async move {
                successions.recover(&orchestrator).await;
                successions.settle_entrances().await;
            }
        }));
        tasks.push(owned(async move { orchestrator.reconcile_forever(halt).await }));
        self.background.extend(tasks);
    }

    fn listen(&mut self, router: Router, api_tcp: Option<TcpListener>, token_file: &Path) -> Result<(), StartError> {
        let (tasks, stop, cut) = (self.connections.clone(), self.context.stop.clone(), self.cut.clone());
        if let Some(listener) = api_tcp {
            let token =
                token::read_or_create(token_file).map_err(|source| StartError::Token { path: token_file.to_owned(), source })?;
            self.api_tcp = listener.local_addr().ok();
            let guarded = router.clone().layer(axum::middleware::from_fn_with_state(
                TokenGuard::new(&token, self.context.people.clone()),
                token::require,
            ));
            // Who sends a webhook shows no token: it is signed.
            let guarded = guarded.merge(api::hooks::of_forges(self.context.clone()));
            let guarded = guarded.layer(axum::middleware::from_fn(leftover::read));
            let owner = connections::Owner { tasks: tasks.clone(), stop: stop.clone(), cut: cut.clone() };
            self.accepting.push(owned(connections::serve_tcp(listener, guarded, owner)));
        }
        let router = router.merge(api::of_hooks(self.context.clone())).layer(axum::Extension(Caller::Administrator));
        let router = router.layer(axum::middleware::from_fn(leftover::read));
        let listener: UnixListener = connections::bind_private(&self.api_socket)
            .map_err(|source| StartError::Listen { place: self.api_socket.display().to_string(), source })?;
        self.accepting.push(owned(connections::serve_unix(listener, router, connections::Owner { tasks, stop, cut })));
        Ok(())
    }

    /// Takes webhooks, and nothing else, where anybody may come.
    fn listen_for_hooks(&mut self, listener: TcpListener) {
        let router = api::hooks::of_forges(self.context.clone()).layer(axum::middleware::from_fn(leftover::read));
        let (tasks, stop, cut) = (self.connections.clone(), self.context.stop.clone(), self.cut.clone());
        self.accepting.push(owned(connections::serve_tcp(listener, router, connections::Owner { tasks, stop, cut })));
    }

    fn listen_ssh(&mut self, listener: TcpListener, host_key: HostKey, api: Router) {
        let Context { people, store, door, stop, .. } = &*self.context;
        let api = api.layer(axum::middleware::from_fn(leftover::read));
        let listening = Listening {
            keeper: Arc::new(Keeper { people: people.clone(), store: store.clone(), api, stop: stop.clone() }),
            door: door.clone(),
            host_key,
            api_command: DIAL_COMMAND,
            tasks: self.connections.clone(),
            stop: stop.clone(),
            cut: self.cut.clone(),
        };
        self.accepting.push(owned(listening.serve(listener)));
    }

    /// Where git is served over SSH, and how to know that it is this server.
    pub fn ssh(&self) -> Option<&SshDoor> {
        self.context.ssh.as_ref()
    }

    /// The API's Unix socket.
    pub fn api_socket(&self) -> &Path {
        &self.api_socket
    }

    /// Where the API listens over TCP.
    pub fn api_tcp(&self) -> Option<SocketAddr> {
        self.api_tcp
    }

    /// Where webhooks are taken beside the API's own address.
    pub fn hooks(&self) -> Option<SocketAddr> {
        self.context.hooks
    }

    /// Where requests to apps are taken.
    pub fn http(&self) -> &[SocketAddr] {
        &self.context.http
    }

    /// Where the API is reached through the proxy.
    pub fn api_url(&self) -> Option<&str> {
        self.context.api_url.as_deref()
    }

    /// The engine of apps that name none.
    pub fn default_engine(&self) -> EngineKind {
        self.context.default_engine
    }

    /// Serves until `signal` comes, then stops: no new requests, deployments called off as far as they still can be, open
    /// requests answered, all within a deadline. Instances and proxy go on.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) {
        signal.await;
        tracing::info!("stopping; apps and proxy go on");
        self.context.stop.cancel();
        for task in self.accepting.drain(..) {
            finished(task).await;
        }
        // Removed before anything else may take its place: the lock on the state is still ours.
        if let Err(error) = std::fs::remove_file(&self.api_socket) {
            tracing::debug!(%error, "the API's socket is gone already");
        }
        let ending = async {
            self.context.deployments.ended().await;
            self.context.tasks.close();
            self.context.tasks.wait().await;
            self.connections.close();
            self.connections.wait().await;
        };
        if tokio::time::timeout(DRAIN_DEADLINE, ending).await.is_err() {
            tracing::warn!("some requests or deployments did not end in time and are cut off; the next start settles them");
        }
        self.halt.cancel();
        self.cut.cancel();
        for task in self.background.drain(..) {
            finished(task).await;
        }
    }
}

async fn finished(task: AbortOnDropHandle<()>) {
    match tokio::time::timeout(CUT_DEADLINE, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "a task of the server broke off"),
        Err(_) => tracing::warn!("a task of the server did not end in time"),
    }
}

fn owned(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// What only a server has that looks after its own machine.
#[derive(Default)]
struct Own {
    docker: Option<DockerEngine>,
    proxy: Option<Arc<ProxyProcess>>,
    neighbours: Option<Arc<dyn Neighbours>>,
}

/// What is listened on besides the Unix socket.
struct Doors {
    api_tcp: Option<TcpListener>,
    ssh: Option<TcpListener>,
    hooks: Option<TcpListener>,
}

impl Doors {
    async fn bind(options: &ServerOptions) -> Result<Self, StartError> {
        let bind = async |address: Option<SocketAddr>| match address {
            Some(address) => TcpListener::bind(address).await.map(Some).map_err(|source| (address, source)),
            None => Ok(None),
        };
        let loopback = options.api_host.as_ref().map(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let api_tcp = bind(options.api_tcp.or(loopback)).await;
        let ssh = bind(options.ssh).await;
        let hooks = bind(options.hooks).await;
        Ok(Self {
            api_tcp: api_tcp.map_err(|(address, source)| StartError::Listen { place: address.to_string(), source })?,
            ssh: ssh.map_err(|(address, source)| StartError::ListenSsh { address, source })?,
            hooks: hooks.map_err(|(address, source)| StartError::Listen { place: address.to_string(), source })?,
        })
    }
}

/// Where the proxy, on the same machine, reaches what listens there.
fn reached(listens: SocketAddr) -> SocketAddr {
    match listens {
        SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        other => other,
    }
}

/// The SSH door with its key, which is made when it is first wanted.
fn ssh_door(listener: TcpListener, state_dir: &Path) -> Result<(TcpListener, HostKey, SshDoor), StartError> {
    let failed = |source| StartError::HostKey { path: state_dir.join(ssh::HOST_KEY), source };
    let key = ssh::host_key(state_dir).map_err(failed)?;
    let described = ssh::described(listener.local_addr().map_err(failed)?, &key);
    Ok((listener, key, described))
}

/// Opens the state; a predecessor that is just ending is waited for.
async fn open_store(dir: &Path, patience: Duration) -> Result<Store, StartError> {
    state_dir::create(dir)?;
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        // The store itself waits a moment before it says that it is locked.
        match Store::open(dir).await {
            Err(StoreError::Locked { .. }) if tokio::time::Instant::now() < give_up => {}
            decided => return Ok(decided?),
        }
    }
}

/// Builds leave the running apps at least half of the machine.
fn settings(default_engine: EngineKind, tls: TlsOffer, policy: ServerPolicy, mounts: PathBuf) -> Settings {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text)).unwrap_or(2 << 30);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Settings {
        default_engine,
        build_memory: ByteSize::bytes(memory / 2),
        build_cpus: Cpus::milli(u32::try_from(cores).unwrap_or(1).saturating_mul(500).max(500)),
        tls,
        policy,
        mounts,
    }
}

/// The bytes of memory that `/proc/meminfo` tells.
fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}

//! What every handler of the API works with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_api::SshDoor;
use coracle_engine::Engine;
use coracle_engine_docker::DockerEngine;
use coracle_git_door::Door;
use coracle_model::EngineKind;
use coracle_orchestrator::HostOrchestrator;
use coracle_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deployments::Deployments;
use crate::discovery::Discovery;
use crate::forges::Forges;
use crate::people::People;
use crate::previews::Previews;
use crate::proxy_process::ProxyProcess;
use crate::published::Published;
use crate::source::Sources;

/// Shared by all handlers; never changed after the start.
pub(crate) struct Context {
    pub orchestrator: HostOrchestrator,
    pub store: Store,
    /// Who may use the server besides its administrator.
    pub people: People,
    pub engines: Vec<Engine>,
    pub default_engine: EngineKind,
    pub deployments: Deployments,
    /// Branches that have an app of their own.
    pub previews: Previews,
    pub published: Arc<Published>,
    /// What is discovered, if anything is to be.
    pub discovery: Option<Arc<Discovery>>,
    /// The proxy, if this server looks after one.
    pub proxy: Option<Arc<ProxyProcess>>,
    /// Where the proxy takes requests.
    pub http: Vec<SocketAddr>,
    /// Where the API listens over TCP, if it does.
    pub api_tcp: Option<SocketAddr>,
    /// Where webhooks are taken beside that, if they are.
    pub hooks: Option<SocketAddr>,
    /// Where the API is reached through the proxy, if it is.
    pub api_url: Option<String>,
    /// Where git is reached over SSH, if it is.
    pub ssh: Option<SshDoor>,
    pub state_dir: PathBuf,
    /// Where source trees are unpacked and read.
    pub sources: Sources,
    /// Where git comes in.
    pub door: Door,
    /// Repositories elsewhere that apps are deployed from.
    pub forges: Forges,
    /// The connection behind the docker engine.
    pub docker: Option<DockerEngine>,
    /// Whether Docker is not to be used.
    pub docker_declined: bool,
    /// Where Docker was to be looked for, if that was told.
    pub docker_socket: Option<String>,
    /// Work begun by a request that must not end with it.
    pub tasks: TaskTracker,
    /// Fires when the server stops; streams end then.
    pub stop: CancellationToken,
}

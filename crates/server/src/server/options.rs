//! What a server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coracle_orchestrator::TlsOffer;
use coracle_policy::ServerPolicy;

use crate::discovery::DiscoveryOptions;
use crate::engines::EngineChoice;
use crate::intake::IntakeLimits;
use crate::proxy_process::{AcmeOptions, ProxyOptions};

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where everything is kept; made if it is not there.
    pub state_dir: PathBuf,
    /// Where the proxy takes requests.
    pub http: Vec<SocketAddr>,
    /// Where the proxy takes requests over TLS.
    pub https: Vec<SocketAddr>,
    /// How certificates are ordered; `None`: they are not.
    pub acme: Option<AcmeOptions>,
    /// The API's Unix socket; being able to open it is the permission to use it.
    pub api_socket: PathBuf,
    /// Where the API listens beside it, for those who know the token in `state_dir/token`.
    pub api_tcp: Option<SocketAddr>,
    /// The host name under which the proxy hands requests over TLS to the API, if it does. Then the API listens over TCP as well,
    /// on the loopback if nothing else is said.
    pub api_host: Option<String>,
    /// Where git is served over SSH, if it is.
    pub ssh: Option<SocketAddr>,
    /// Where webhooks are taken, and nothing else, beside the API's own address.
    pub hooks: Option<SocketAddr>,
    /// Where webhooks' address is reached from outside, without a slash at the end: only told.
    pub public_url: Option<String>,
    /// The `coracle` binary, to start the proxy and the process engine's shims with.
    pub program: PathBuf,
    /// Which engine runs apps that name none.
    pub engine: EngineChoice,
    /// Where Docker listens; `None`: `DOCKER_HOST`, or the usual places.
    pub docker_socket: Option<String>,
    /// Whether containers that others started get routes by their labels, and how.
    pub discovery: DiscoveryOptions,
    /// What source trees may cost.
    pub intake: IntakeLimits,
    /// What the administrator says of the rules that releases may break.
    pub policy: ServerPolicy,
    /// How long to wait for a predecessor that is just ending and still has the state.
    pub patience: Duration,
}

impl ServerOptions {
    /// Usual values for everything else: requests on port 8080, no API over TCP.
    pub fn new(state_dir: PathBuf, program: PathBuf) -> Self {
        Self {
            api_socket: state_dir.join("api.sock"),
            http: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            https: Vec::new(),
            acme: None,
            api_tcp: None,
            api_host: None,
            ssh: None,
            hooks: None,
            public_url: None,
            program,
            engine: EngineChoice::Auto,
            docker_socket: None,
            discovery: DiscoveryOptions { on: true, ..DiscoveryOptions::default() },
            intake: IntakeLimits::default(),
            policy: ServerPolicy::default(),
            patience: Duration::from_secs(20),
            state_dir,
        }
    }

    /// How its proxy is started and reached.
    pub fn proxy(&self) -> ProxyOptions {
        let mut options = ProxyOptions::new(self.program.clone(), self.http.clone(), &self.state_dir);
        options.https.clone_from(&self.https);
        options.acme.clone_from(&self.acme);
        options
    }

    pub(super) fn tls_offer(&self) -> TlsOffer {
        TlsOffer { port: self.https.first().map(SocketAddr::port), acme: self.acme.is_some() }
    }
}

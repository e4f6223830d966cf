//! What a proxy is started with.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coracle_certs::CertOptions;
pub use coracle_proxy_http::Trust;
use coracle_proxy_http::{EncodedCharacters, Forwarding};
use coracle_proxy_table::Table;

/// What a proxy is started with.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Where to listen.
    pub listeners: Vec<ListenerOptions>,
    /// The control socket (mode 0600). Beside it lies a lock file of the same name with `.lock` added.
    pub control_socket: PathBuf,
    /// Holds the last table, in files named `table*`, and `certificates`, unless those are kept elsewhere.
    pub state_dir: PathBuf,
    /// How long clients that are still connected are served when the proxy stops or has been replaced.
    pub drain: Duration,
    /// Where the line per request goes.
    pub access_log: AccessLog,
    /// Threads that serve connections, each with a runtime and upstream connections of its own.
    pub workers: usize,
    /// What targets are told about clients, and which proxies before this one are believed about them.
    pub forwarding: Forwarding,
    /// Fields that are passed on to targets although a client's `Connection` names them. Usually none.
    pub connection_fields: Vec<String>,
    /// Which percent-encoded characters a path may have; others are answered by 400.
    pub encoded_characters: EncodedCharacters,
    /// How many connections one client address (of IPv6, one /64) may have at once; further ones are closed.
    pub max_connections_per_client: Option<usize>,
    /// How long and how much a request may take.
    pub limits: Limits,
    /// Where metrics are served, in plain HTTP and to everybody who can connect; the control socket has them as well.
    pub metrics: Option<SocketAddr>,
    /// Served by from the beginning, instead of the last table. Its generation is the proxy's to count.
    pub table: Option<Table>,
    /// How certificates are had. Nothing is done about them as long as no listener speaks TLS.
    pub certificates: CertOptions,
}

impl ProxyOptions {
    /// Listens for plain HTTP on these addresses, with usual values for everything else.
    pub fn new(http: Vec<SocketAddr>, control_socket: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            certificates: CertOptions::new(state_dir.join("certificates")),
            listeners: http.into_iter().map(ListenerOptions::http).collect(),
            control_socket,
            state_dir,
            drain: Duration::from_secs(30),
            access_log: AccessLog::Off,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            forwarding: Forwarding::default(),
            connection_fields: Vec::new(),
            encoded_characters: EncodedCharacters::default(),
            max_connections_per_client: None,
            limits: Limits::default(),
            metrics: None,
            table: None,
        }
    }

    /// A short text that differs where options differ that a running proxy would have to be replaced for: how it listens (not
    /// where, which its status tells), whom it believes, how it orders certificates, its limits. Comparable within one build.
    pub fn digest(&self) -> String {
        let listeners: Vec<_> = self.listeners.iter().map(|it| (&it.name, it.tls, &it.proxy_protocol)).collect();
        let acme = &self.certificates.acme;
        let options = (listeners, &self.forwarding, acme, &self.certificates.given, &self.limits);
        let mut hasher = std::hash::DefaultHasher::new();
        let others = (&self.access_log, self.max_connections_per_client, self.workers, self.drain, self.metrics);
        let paths = (&self.connection_fields, &self.encoded_characters);
        format!("{options:?} {others:?} {paths:?}").hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// One listening socket. Several may have the same name: to routes they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// By which routes name it.
    pub name: String,
    /// Port 0 takes any free port, or the one that a predecessor has on the same address.
    pub address: SocketAddr,
    /// Whether clients speak TLS here.
    pub tls: bool,
    /// From whom the PROXY header (v1 or v2) is expected: connections from them must begin with it, others must not.
    pub proxy_protocol: Option<Trust>,
}

impl ListenerOptions {
    /// Plain HTTP, named `http`.
    pub fn http(address: SocketAddr) -> Self {
        Self { name: "http".to_owned(), address, tls: false, proxy_protocol: None }
    }

    /// HTTP over TLS, named `https`.
    pub fn https(address: SocketAddr) -> Self {
        Self { name: "https".to_owned(), address, tls: true, proxy_protocol: None }
    }
}

/// Where the line per request goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To the end of a file, which SIGHUP opens again.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

/// How long and how much a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request to the end of its headers, and for a TLS handshake; then the connection is closed.
    pub header_read: Duration,
    /// Between two requests on a connection, and before the first one; then the connection is closed.
    pub idle: Duration,
    /// Opening a connection to one target.
    pub connect: Duration,
    /// From the last byte of a request to the headers of its answer; then 504. Between two pieces of a request's body; then
    /// 408.
    pub response_header: Duration,
    /// Bytes a second at which a request's body has to come, counting the time that it is waited for; 0 for any rate. Then 408.
    /// Once the answer has begun, the body may come as slowly as it likes for as long as that goes on.
    pub body_rate: u64,
    /// How much longer than that it may take.
    pub body_grace: Duration,
    /// How long a client may leave an answer unread; then the connection is closed.
    pub stall: Duration,
    /// How long an unused connection to a target is kept. Below the keep-alive of what usually answers: gunicorn has 2 s,
    /// Node 5 s.
    pub upstream_idle: Duration,
    /// How many unused connections are kept per target, by each worker.
    pub upstream_idle_count: usize,
    /// Request and response headers together with their start line, in bytes; at least 8192. More is answered by 431.
    pub header_bytes: usize,
    /// How many header fields a request or an answer may have. More is answered by 431.
    pub header_fields: usize,
    /// How many requests a client may have under way at once on one connection of HTTP/2.
    pub http2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(2),
            response_header: Duration::from_secs(60),
            body_rate: 240,
            body_grace: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(1),
            upstream_idle_count: 256,
            header_bytes: 64 * 1024,
            header_fields: 100,
            http2_streams: 128,
        }
    }
}

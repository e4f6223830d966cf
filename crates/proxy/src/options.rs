//! What a proxy is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a proxy is started with.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Where to listen for HTTP. Port 0 takes any free port, or the one that a predecessor has on the same address.
    pub http: Vec<SocketAddr>,
    /// The control socket (mode 0600). Beside it lies a lock file of the same name with `.lock` added.
    pub control_socket: PathBuf,
    /// Holds `table.json`, the last table.
    pub state_dir: PathBuf,
    /// How long clients that are still connected are served when the proxy stops or has been replaced.
    pub drain: Duration,
    /// Where the line per request goes.
    pub access_log: AccessLog,
    /// Threads that serve requests ([`crate::run`] only; [`crate::Proxy::start`] uses the runtime it is called in).
    pub workers: usize,
    /// How long and how much a request may take.
    pub limits: Limits,
}

impl ProxyOptions {
    /// Usual values for everything else.
    pub fn new(http: Vec<SocketAddr>, control_socket: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            http,
            control_socket,
            state_dir,
            drain: Duration::from_secs(30),
            access_log: AccessLog::Off,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
        }
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
    /// From the first byte of a request to the end of its headers; then the connection is closed.
    pub header_read: Duration,
    /// Between two requests on a connection, and before the first one; then the connection is closed.
    pub idle: Duration,
    /// Opening a connection to one target.
    pub connect: Duration,
    /// From the last byte of a request to the headers of its answer; then 504.
    pub response_header: Duration,
    /// How long an unused connection to a target is kept. Below the keep-alive of what usually answers: gunicorn has 2 s,
    /// Node 5 s.
    pub upstream_idle: Duration,
    /// How many unused connections are kept per target.
    pub upstream_idle_count: usize,
    /// Request and response headers together with their start line, in bytes; at least 8192. More is answered by 431.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(2),
            response_header: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(1),
            upstream_idle_count: 256,
            header_bytes: 64 * 1024,
        }
    }
}

//! What a file says, checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_proxy_table::Table;
use coracle_toml_reading::{Mistake, Mistakes, Place, Values};
use ipnet::IpNet;

use crate::mistake::ConfigError;
use crate::reading::Reader;
use crate::table;

/// What such a file is usually called.
const FILE: &str = "proxy.toml";
/// A file may be this large, in bytes. Thousands of sites fit.
const LARGEST: u64 = 4 << 20;

/// Characters that may stand in paths percent-encoded, or not: `%2F`, `%5C`, `%00`, `%3B`, `%25`, `%3F`, `%23`.
pub const ENCODED_CHARACTERS: [&str; 7] = ["slash", "backslash", "nul", "semicolon", "percent", "question-mark", "hash"];

/// What a proxy is started with, as its file says. What the file leaves out is `None` where the proxy has values of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to listen; never empty.
    pub listeners: Vec<Listener>,
    /// Whose forwarded headers are believed: proxies before this one.
    pub trusted_proxies: Vec<IpNet>,
    /// What targets are told in `X-Forwarded-Server`.
    pub forwarded_server: Option<String>,
    /// Whether the client is added to the `X-Forwarded-For` of a proxy that is believed.
    pub forwarded_append: Option<bool>,
    /// Whether targets are told the client's scheme in `X-Scheme` and `X-Forwarded-Scheme` as well.
    pub forwarded_scheme: Option<bool>,
    /// Fields that are passed on to targets although a client's `Connection` names them, in lower case.
    pub connection_fields: Vec<String>,
    /// The percent-encoded characters that paths may have: some of [`ENCODED_CHARACTERS`].
    pub encoded_characters: Option<Vec<&'static str>>,
    /// How long and how much a request may take.
    pub limits: Limits,
    /// Where certificates are ordered; without one, none are.
    pub acme: Option<Acme>,
    /// Certificates of one's own.
    pub certificates: Vec<CertificateFiles>,
    /// Where the line per request goes.
    pub access_log: AccessLog,
    /// Threads that serve connections.
    pub workers: Option<usize>,
    /// How long clients that are still connected are served when the proxy stops or is replaced.
    pub drain: Option<Duration>,
    /// Where metrics are served, in plain HTTP and to everybody who can connect.
    pub metrics: Option<SocketAddr>,
    /// The Unix socket of the admin interface.
    pub control_socket: Option<PathBuf>,
    /// Where the proxy keeps what has to outlive it: accounts, keys, certificates.
    pub state_dir: Option<PathBuf>,
    /// Who is led where. Its generation is 0.
    pub table: Table,
    /// Where things stand in the file, by what they are called there: `routes.NAME`, `services.NAME`, `middlewares.NAME`,
    /// `sites.NAME`, `tls.certificates[0]`. Routes, services and middlewares that a site became have the site's place.
    pub places: BTreeMap<String, Place>,
}

/// One listening socket. Several may have the same name: to routes they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// By which routes name it.
    pub name: String,
    /// `[::]` takes IPv4 as well; where there is no IPv6, it means all IPv4 addresses.
    pub address: SocketAddr,
    /// Whether clients speak TLS here.
    pub tls: bool,
    /// From whom the PROXY header (v1 or v2) is expected; nobody sends it without this.
    pub proxy_protocol: Option<Vec<IpNet>>,
}

/// How long and how much a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// From the first byte of a request to the end of its headers, and for a TLS handshake.
    pub header_read: Option<Duration>,
    /// Between two requests on a connection, and before the first one.
    pub idle: Option<Duration>,
    /// Opening a connection to one target.
    pub connect: Option<Duration>,
    /// From the last byte of a request to the headers of its answer.
    pub response: Option<Duration>,
    /// Bytes a second at which a request's body has to come, after some grace; 0 for any rate.
    pub body_rate: Option<u64>,
    /// How long a client may leave an answer unread.
    pub stall: Option<Duration>,
    /// How long an unused connection to a target is kept.
    pub upstream_idle: Option<Duration>,
    /// How many unused connections are kept per target, by each worker.
    pub upstream_idle_connections: Option<usize>,
    /// A head with its start line, in bytes.
    pub header_bytes: Option<usize>,
    /// Header fields of a head.
    pub header_fields: Option<usize>,
    /// Requests that a client may have under way at once on one connection of HTTP/2.
    pub http2_streams: Option<u32>,
    /// Connections that one client address may have at once.
    pub connections_per_client: Option<usize>,
}

/// The authority that certificates are ordered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The account's contact.
    pub email: Option<String>,
    /// The URL of its directory; without one, Let's Encrypt.
    pub directory: Option<String>,
    /// PEM roots to trust, besides the system's, for its own HTTPS: for private authorities.
    pub ca_file: Option<PathBuf>,
    /// Ways to prove control over a name, the preferred first; empty for the usual ones.
    pub challenges: Vec<AcmeChallenge>,
    /// Whether names have to resolve here and so on before an order is placed.
    pub preflight: bool,
}

/// A way to prove control over a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// An answer on port 80 (RFC 8555, 8.3).
    Http01,
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

/// A certificate of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// Whether clients that ask for an unknown name, or for none, get it.
    pub default: bool,
}

/// Where the line per request goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

impl Config {
    /// Reads a file. Paths in it are relative to the folder that it lies in.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let unreadable = |error: std::io::Error| ConfigError::Unreadable { file: file.clone(), reason: error.to_string() };
        let mut bytes = Vec::new();
        File::open(path).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(&unreadable)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| ConfigError::Unreadable { file: file.clone(), reason: "it is not UTF-8 text".to_owned() })?;
        // `proxy.toml` lies somewhere, too: what is made of the file works wherever it is read.
        let folder = std::path::absolute(path).map_err(unreadable)?;
        Self::parse(&text, folder.parent().unwrap_or(Path::new("/"))).map_err(|mistakes| ConfigError::Mistaken { file, mistakes })
    }

    /// Reads the text of a file that lies in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Mistakes> {
        if text.len() as u64 > LARGEST {
            let message = format!("the file is larger than {} MB", LARGEST >> 20);
            return Err(Mistakes { file: FILE, all: vec![Mistake::placeless("", message, None)] });
        }
        let document = coracle_toml_reading::parse(FILE, text)?;
        let mut reader = Reader::new(Values::new(FILE, text), folder);
        let config = table::document(&mut reader, &document);
        reader.finish(config)
    }
}

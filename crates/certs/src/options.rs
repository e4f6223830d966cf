//! What [`Certificates`](crate::Certificates) is told at its start, and which names it is to have certificates for.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The directory of Let's Encrypt's production environment.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How certificates are had.
#[derive(Debug, Clone)]
pub struct CertOptions {
    /// Where accounts, keys, certificates and the history of attempts are kept; made with mode 0700.
    pub directory: PathBuf,
    /// The ACME authority; without one, names with [`Source::Acme`] get no certificate, and their status says so.
    pub acme: Option<AcmeOptions>,
    /// Certificates of one's own. They go before any other: a name that one of them covers is not ordered.
    pub given: Vec<GivenFiles>,
    /// How often the given files are looked at for changes.
    pub poll: Duration,
}

impl CertOptions {
    /// Keeps state in `directory`; no ACME, nothing given.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), acme: None, given: Vec::new(), poll: Duration::from_secs(10) }
    }
}

/// A certificate of one's own, as two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Whether clients that ask for an unknown name, or for none, get this one. Otherwise they are refused.
    #[serde(default)]
    pub default: bool,
}

/// An ACME authority (RFC 8555) and how it is dealt with.
#[derive(Debug, Clone)]
pub struct AcmeOptions {
    /// Its directory.
    pub directory_url: String,
    /// PEM roots to trust, besides the system's, for the authority's own HTTPS.
    pub ca_file: Option<PathBuf>,
    /// Told to the authority as the account's contact.
    pub email: Option<String>,
    /// Ways to prove control over a name, the preferred first.
    pub challenges: Vec<ChallengeKind>,
    /// What is looked at before an order is placed.
    pub preflight: PreflightOptions,
    /// Distances between attempts at one name.
    pub backoff: Backoff,
    /// Orders under way at the same time.
    pub concurrent: usize,
    /// How long one order may take from its preflight to its certificate.
    pub deadline: Duration,
}

impl Default for AcmeOptions {
    fn default() -> Self {
        Self {
            directory_url: LETS_ENCRYPT.to_owned(),
            ca_file: None,
            email: None,
            challenges: vec![ChallengeKind::Http01, ChallengeKind::TlsAlpn01],
            preflight: PreflightOptions::default(),
            backoff: Backoff::default(),
            concurrent: 4,
            deadline: Duration::from_secs(180),
        }
    }
}

/// A way to prove control over a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengeKind {
    /// RFC 8555, section 8.3: an answer on port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737: a handshake on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// Its name in RFC 8555's registry, as CAA's `validationmethods` (RFC 8657) says it too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// What is looked at before an order is placed. A name that does not pass costs no order.
#[derive(Debug, Clone)]
pub struct PreflightOptions {
    /// Refuse names that no public authority certifies: single labels, `.local`, `.internal` and so on. Off for private authorities.
    pub public_names: bool,
    /// The name has to resolve.
    pub dns: bool,
    /// Each address it resolves to has to answer with our token. Off where a server cannot reach itself under its public address.
    pub reachable: bool,
    /// CAA records (RFC 8659) have to allow the authority.
    pub caa: bool,
    /// What the authority calls itself in CAA records, if its directory does not say (`meta.caaIdentities`).
    pub caa_identities: Vec<String>,
    /// Asked instead of the system's name servers.
    pub name_servers: Vec<SocketAddr>,
    /// Where HTTP-01 is answered, as seen from outside.
    pub http_port: u16,
    /// Where TLS-ALPN-01 is answered, as seen from outside.
    pub tls_port: u16,
    /// This server's public addresses, for messages; none to have them found out.
    pub own_addresses: Vec<IpAddr>,
    /// How long one look-up or one probe may take.
    pub timeout: Duration,
}

impl Default for PreflightOptions {
    fn default() -> Self {
        Self {
            public_names: true,
            dns: true,
            reachable: true,
            caa: true,
            caa_identities: Vec::new(),
            name_servers: Vec::new(),
            http_port: 80,
            tls_port: 443,
            own_addresses: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Distances between attempts: doubled after each failure, with jitter.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer than this after a failed order.
    pub longest: Duration,
    /// Never longer than this after a failed preflight, or while the authority does not answer: neither costs it anything.
    pub longest_without_order: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(60),
            longest: Duration::from_secs(24 * 3600),
            longest_without_order: Duration::from_secs(3600),
        }
    }
}

/// A name that is to have a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// A DNS name, in any case; a wildcard only from the local authority.
    pub name: String,
    /// Who is to certify it. `localhost` and names under it are always [`Source::Local`].
    pub source: Source,
}

/// Who certifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The ACME authority.
    Acme,
    /// The local authority, which clients trust only if told to.
    Local,
    /// Files of one's own.
    Given,
}

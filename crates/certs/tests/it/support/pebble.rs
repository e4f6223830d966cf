//! The test authority `pebble` and its name server `pebble-challtestsrv`, on a loopback address of their own, so that tests that run at the
//! same time cannot get into each other's way.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use coracle_certs::{AcmeOptions, Backoff, CertOptions, Certificates, PreflightOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{clients, edge::Edge, eventually};

pub const HTTP_PORT: u16 = 5002;
pub const TLS_PORT: u16 = 5001;
const PEBBLE_PORT: u16 = 14000;
const PEBBLE_MANAGEMENT: u16 = 15000;
const DNS_PORT: u16 = 8053;
const DNS_MANAGEMENT: u16 = 8055;

/// How pebble is to behave.
#[derive(Clone, Copy)]
pub struct Manners {
    /// Per cent of good nonces that it refuses.
    pub bad_nonces: u8,
    /// Per cent of valid authorizations that it uses again.
    pub reuse: u8,
    /// Seconds that its certificates are valid.
    pub validity: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self { bad_nonces: 0, reuse: 0, validity: 86400 * 90 }
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An authority, its name server, and a loopback address where the edge is.
pub struct Lab {
    pub home: TempDir,
    pub address: Ipv4Addr,
    /// Somewhere else: a loopback address where nobody answers, unless the test has somebody do it.
    pub elsewhere: Ipv4Addr,
    manners: Manners,
    /// Certifies pebble's own HTTPS.
    https: CertifiedIssuer<'static, KeyPair>,
    pebble: Option<Process>,
    _dns: Process,
}

/// Whether a test can use pebble; says so loudly if it cannot, and fails where everything has to be there.
pub fn is_missing() -> bool {
    let found = |name: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|path| path.join(name).is_file())
    };
    let missing = !found("pebble") || !found("pebble-challtestsrv");
    if missing {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "pebble is missing, so ACME is not tested: apt-get install pebble (scripts/setup-test does it)");
        eprintln!("SKIPPED: pebble is missing, so ACME is not tested; apt-get install pebble");
    }
    missing
}

impl Lab {
    pub async fn start(manners: Manners) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (address, elsewhere) = addresses();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let https = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(home.path().join("https-root.pem"), https.pem()).unwrap();
        let dns = name_server(home.path(), address);
        let mut lab = Self { home, address, elsewhere, manners, https, pebble: None, _dns: dns };
        eventually("the name server", || async { TcpStream::connect((address, DNS_MANAGEMENT)).await.ok() }).await;
        lab.start_pebble().await;
        lab
    }

    /// Starts pebble anew: it forgets everything.
    pub async fn start_pebble(&mut self) {
        self.stop_pebble();
        let (cert, key) = self.https_certificate();
        let config = json!({ "pebble": {
            "listenAddress": format!("{}:{PEBBLE_PORT}", self.address),
            "managementListenAddress": format!("{}:{PEBBLE_MANAGEMENT}", self.address),
            "certificate": cert,
            "privateKey": key,
            "httpPort": HTTP_PORT,
            "tlsPort": TLS_PORT,
            "domainBlocklist": ["blocked.example"],
            "certificateValidityPeriod": self.manners.validity,
        }});
        let path = self.home.path().join("pebble.json");
        fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new("pebble");
        command.arg("-strict").arg("-config").arg(&path).arg("-dnsserver").arg(format!("{}:{DNS_PORT}", self.address));
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", self.manners.bad_nonces.to_string());
        command.env("PEBBLE_AUTHZREUSE", self.manners.reuse.to_string());
        self.pebble = Some(spawn(command, &self.log()));
        let address = self.address;
        eventually("pebble", || async { TcpStream::connect((address, PEBBLE_PORT)).await.ok() }).await;
    }

    pub fn stop_pebble(&mut self) {
        self.pebble = None;
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("pebble.log")
    }

    /// Certificate and key for HTTPS on this lab's address.
    pub fn https_certificate(&self) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![self.address.to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.https).unwrap();
        let paths = (self.home.path().join("https.pem"), self.home.path().join("https.key"));
        fs::write(&paths.0, certificate.pem()).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    pub fn pebble(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), PEBBLE_PORT)
    }

    /// How often pebble was asked for a path, all restarts together.
    pub fn asked(&self, path: &str) -> usize {
        fs::read_to_string(self.log()).unwrap().matches(path).count()
    }

    pub fn orders(&self) -> usize {
        self.asked("POST /order-plz")
    }

    pub fn accounts(&self) -> usize {
        self.asked("POST /sign-me-up")
    }

    /// Options for this lab: everything real but the distances, which are short.
    pub fn options(&self) -> AcmeOptions {
        AcmeOptions {
            directory_url: format!("https://{}:{PEBBLE_PORT}/dir", self.address),
            ca_file: Some(self.home.path().join("https-root.pem")),
            email: Some("admin@shop.example".to_owned()),
            preflight: PreflightOptions {
                caa_identities: vec!["pebble.example".to_owned()],
                name_servers: vec![SocketAddr::new(self.address.into(), DNS_PORT)],
                http_port: HTTP_PORT,
                tls_port: TLS_PORT,
                own_addresses: vec![IpAddr::V4(self.address)],
                timeout: Duration::from_secs(5),
                ..PreflightOptions::default()
            },
            backoff: Backoff {
                first: Duration::from_millis(300),
                longest: Duration::from_secs(2),
                longest_without_order: Duration::from_secs(1),
            },
            ..AcmeOptions::default()
        }
    }

    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn certificates(&self, acme: AcmeOptions) -> Arc<Certificates> {
        let options = CertOptions { acme: Some(acme), poll: Duration::from_millis(200), ..CertOptions::new(self.state()) };
        Certificates::start(options).unwrap()
    }

    /// An edge where names lead to, with both of its ports.
    pub async fn edge(&self, certificates: &Arc<Certificates>) -> Edge {
        let edge = self.edge_without_http(certificates).await;
        edge.with_http(self.bind(HTTP_PORT).await, certificates.clone())
    }

    pub async fn edge_without_http(&self, certificates: &Arc<Certificates>) -> Edge {
        Edge::on(self.bind(TLS_PORT).await, certificates)
    }

    /// The edge before may not have gone quite yet.
    async fn bind(&self, port: u16) -> TcpListener {
        eventually("a free port", || async { TcpListener::bind((self.address, port)).await.ok() }).await
    }

    /// Says to the name server where a name leads to.
    pub async fn point(&self, name: &str, to: Ipv4Addr) {
        self.tell_dns("clear-a", &json!({ "host": format!("{name}.") })).await;
        self.tell_dns("add-a", &json!({ "host": format!("{name}."), "addresses": [to] })).await;
    }

    /// Tells the name server something; its paths are in its documentation.
    pub async fn tell_dns(&self, what: &str, body: &Value) {
        let mut stream = TcpStream::connect((self.address, DNS_MANAGEMENT)).await.unwrap();
        let body = body.to_string();
        let request = format!("POST /{what} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(" 200 "), "{what} {body}: {answer}");
    }

    /// The root that pebble's certificates lead to; a new one after each of its starts.
    pub async fn root(&self) -> String {
        let config = clients::looker(rustls::ALL_VERSIONS, &[]);
        let to = SocketAddr::new(self.address.into(), PEBBLE_MANAGEMENT);
        let mut stream = clients::connect(config, to, &self.address.to_string()).await.unwrap();
        stream.write_all(b"GET /roots/0 HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // Some servers forget to say goodbye.
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

/// Two addresses of this test's own, out of sixteen million: whoever is unlucky fails to bind, and is tried again by the test runner.
fn addresses() -> (Ipv4Addr, Ipv4Addr) {
    let [_, a, b, c] = getrandom::u32().unwrap().to_be_bytes();
    let (a, c) = (a.max(1), (c & 0xfc) + 1);
    (Ipv4Addr::new(127, a, b, c), Ipv4Addr::new(127, a, b, c + 1))
}

fn name_server(home: &Path, address: Ipv4Addr) -> Process {
    let mut command = Command::new("pebble-challtestsrv");
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4"]).arg(address.to_string());
    command.arg("-dns01").arg(format!("{address}:{DNS_PORT}")).arg("-management").arg(format!("{address}:{DNS_MANAGEMENT}"));
    spawn(command, &home.join("dns.log"))
}

fn spawn(mut command: Command, log: &Path) -> Process {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

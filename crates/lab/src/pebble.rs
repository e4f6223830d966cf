//! The test authority `pebble` and its name server `pebble-challtestsrv`, on a loopback address of their own, so that tests that run at the
//! same time cannot get into each other's way.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_certs::{AcmeOptions, Backoff, PreflightOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients;

/// Where it looks for answers to challenges over HTTP.
pub const HTTP_PORT: u16 = 5002;
/// Where it looks for answers to challenges by handshakes.
pub const TLS_PORT: u16 = 5001;
const PEBBLE_PORT: u16 = 14000;
const PEBBLE_MANAGEMENT: u16 = 15000;
const DNS_PORT: u16 = 8053;
const DNS_MANAGEMENT: u16 = 8055;

/// How pebble is to behave.
#[derive(Debug, Clone, Copy)]
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
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An authority, its name server, and a loopback address where the edge is.
#[derive(Debug)]
pub struct Lab {
    /// Where its files are.
    pub home: TempDir,
    /// Its own loopback address, where all names lead to unless told otherwise.
    pub address: Ipv4Addr,
    /// Somewhere else: a loopback address where nobody answers, unless the test has somebody do it.
    pub elsewhere: Ipv4Addr,
    manners: Manners,
    /// Certifies pebble's own HTTPS.
    https: CertifiedIssuer<'static, KeyPair>,
    pebble: Option<Process>,
    _dns: Process,
}

/// Whether a test cannot use pebble; says so loudly if it cannot, and fails where everything has to be there.
#[allow(clippy::print_stderr, reason = "told to a person, not to a program")]
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
    /// Starts both.
    pub async fn start(manners: Manners) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (address, elsewhere) = addresses();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let https = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(home.path().join("https-root.pem"), https.pem()).unwrap();
        let dns = name_server(home.path(), address);
        let mut lab = Self { home, address, elsewhere, manners, https, pebble: None, _dns: dns };
        answers((address, DNS_MANAGEMENT).into()).await;
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
        for port in [PEBBLE_PORT, PEBBLE_MANAGEMENT] {
            answers((self.address, port).into()).await;
        }
    }

    /// Ends pebble; the name server goes on.
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

    /// Where its directory is.
    pub fn pebble(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), PEBBLE_PORT)
    }

    /// How often pebble's log says something, all restarts together. It has a line like `POST /order-plz` for every request, also for
    /// those that it refuses.
    pub fn asked(&self, text: &str) -> usize {
        fs::read_to_string(self.log()).unwrap().matches(text).count()
    }

    /// How many orders were placed. Requests that pebble turned away because of their nonces are none.
    pub fn orders(&self) -> usize {
        self.asked("Added order ")
    }

    /// How many accounts were opened; the ones that were merely looked up are none.
    pub fn accounts(&self) -> usize {
        self.asked(" accounts in memory")
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}:{PEBBLE_PORT}/dir", self.address)
    }

    /// The root that its own HTTPS is to be trusted by, as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.home.path().join("https-root.pem")
    }

    /// Options for this lab: everything real but the distances, which are short.
    pub fn options(&self) -> AcmeOptions {
        AcmeOptions {
            directory_url: self.directory(),
            ca_file: Some(self.ca_file()),
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

    /// A folder that is not there yet, for whoever orders.
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
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

/// Waits until somebody takes connections there.
async fn answers(address: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < end, "nobody answers on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
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

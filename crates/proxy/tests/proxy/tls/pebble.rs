//! The test authority `pebble` and its name server, on a loopback address of the test's own.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_proxy::certs::{AcmeOptions, Backoff, ChallengeKind, PreflightOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clients::{connect, looker};
use crate::env::until;

pub const HTTP_PORT: u16 = 5002;
pub const TLS_PORT: u16 = 5001;
const PEBBLE_PORT: u16 = 14000;
const PEBBLE_MANAGEMENT: u16 = 15000;
const DNS_PORT: u16 = 8053;
const DNS_MANAGEMENT: u16 = 8055;

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An authority; all names lead to `address`.
pub struct Lab {
    home: TempDir,
    pub address: Ipv4Addr,
    _processes: [Process; 2],
}

/// Whether pebble is not installed; fails where everything has to be.
#[allow(clippy::print_stderr, reason = "told to a person, not to a program")]
pub fn is_missing() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&paths).any(|path| path.join(name).is_file());
    let missing = !found("pebble") || !found("pebble-challtestsrv");
    if missing {
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "pebble is missing: apt-get install pebble");
        eprintln!("SKIPPED: pebble is missing, so ACME is not tested; apt-get install pebble");
    }
    missing
}

impl Lab {
    /// With certificates that are valid for so many seconds.
    pub async fn start(validity: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let [_, a, b, c] = getrandom::u32().unwrap().to_be_bytes();
        let address = Ipv4Addr::new(127, a.max(1), b, c | 1);
        let https = https(home.path(), address);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("{address}:{PEBBLE_PORT}"),
            "managementListenAddress": format!("{address}:{PEBBLE_MANAGEMENT}"),
            "certificate": https.0,
            "privateKey": https.1,
            "httpPort": HTTP_PORT,
            "tlsPort": TLS_PORT,
            "certificateValidityPeriod": validity,
        }});
        let path = home.path().join("pebble.json");
        fs::write(&path, config.to_string()).unwrap();
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4"]).arg(address.to_string());
        dns.arg("-dns01").arg(format!("{address}:{DNS_PORT}")).arg("-management").arg(format!("{address}:{DNS_MANAGEMENT}"));
        let dns = spawn(dns, &home.path().join("dns.log"));
        let mut pebble = Command::new("pebble");
        pebble.arg("-strict").arg("-config").arg(&path).arg("-dnsserver").arg(format!("{address}:{DNS_PORT}"));
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "5").env("PEBBLE_AUTHZREUSE", "0");
        let pebble = spawn(pebble, &home.path().join("pebble.log"));
        for port in [DNS_MANAGEMENT, PEBBLE_PORT, PEBBLE_MANAGEMENT] {
            until("the authority answers", async || TcpStream::connect((address, port)).await.is_ok()).await;
        }
        Self { home, address, _processes: [dns, pebble] }
    }

    /// Everything real but the distances between attempts, which are short.
    pub fn options(&self, challenge: ChallengeKind) -> AcmeOptions {
        AcmeOptions {
            directory_url: format!("https://{}:{PEBBLE_PORT}/dir", self.address),
            ca_file: Some(self.home.path().join("https-root.pem")),
            email: Some("admin@shop.example".to_owned()),
            challenges: vec![challenge],
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

    /// How many orders were placed.
    pub fn orders(&self) -> usize {
        fs::read_to_string(self.home.path().join("pebble.log")).unwrap().matches("POST /order-plz").count()
    }

    /// The root that its certificates lead to.
    pub async fn root(&self) -> String {
        let to = SocketAddr::new(self.address.into(), PEBBLE_MANAGEMENT);
        let mut wire = connect(looker(&[]), to, &self.address.to_string()).await.unwrap();
        wire.stream.write_all(b"GET /roots/0 HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // Some servers forget to say goodbye.
        drop(wire.stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

/// A certificate and a key for pebble's own HTTPS.
fn https(home: &Path, address: Ipv4Addr) -> (std::path::PathBuf, std::path::PathBuf) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![address.to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
    let paths = (home.join("https.pem"), home.join("https.key"));
    fs::write(home.join("https-root.pem"), issuer.pem()).unwrap();
    fs::write(&paths.0, certificate.pem()).unwrap();
    fs::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}

fn spawn(mut command: Command, log: &Path) -> Process {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

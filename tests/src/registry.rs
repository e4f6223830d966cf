//! A real registry, Debian's `docker-registry`, with TLS by an authority of the test's own and a password. It listens on the
//! bridge of the container engine and not on loopback, whose registries engines do not hold to TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::engine::{docker, docker_answers, is_root, skip};
use crate::env::eventually;
use crate::program::Ran;

/// Whom the registry knows.
pub const USER: &str = "ana";

/// By what.
pub const PASSWORD: &str = "sesame-street-42";

/// The same as the registry keeps it: bcrypt, made by `htpasswd -Bbn -C 4`.
const HTPASSWD: &str = "ana:$2y$04$YP1h1eg1gHTCZV5QvXZIiuPt/9NVlGIhMdLjCz4Fh2006CxgqzuCe\n";

/// A registry. It goes when this is dropped, and with it the engine's trust in it.
#[derive(Debug)]
pub struct Registry {
    /// Where it is: an address and a port.
    pub host: String,
    directory: TempDir,
    trust: PathBuf,
    _child: Child,
}

/// This machine's address on Docker's own bridge.
async fn gateway() -> String {
    const PLACE: &str = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}}{{end}}";
    let place = docker(&["network", "inspect", "bridge", "-f", PLACE]).await.unwrap();
    let (subnet, gateway) = place.split_once(' ').unwrap_or((&place, ""));
    match gateway.trim() {
        // An engine that has been started for the first time does not say; it takes the first address.
        "" | "<no value>" => subnet.split_once("0/").map(|(first, _)| format!("{first}1")).unwrap(),
        said => said.to_owned(),
    }
}

impl Registry {
    /// A running registry that the engine trusts; `None` where there cannot be one, which is said.
    pub async fn start(story: &str) -> Option<Self> {
        let there = Path::new("/usr/bin/docker-registry").exists();
        if !docker_answers() || !is_root() || !there {
            skip(story, "needs Docker, root and docker-registry (apt-get install docker-registry)");
            return None;
        }
        let gateway = gateway().await;
        let port = TcpListener::bind((gateway.as_str(), 0)).unwrap().local_addr().unwrap().port();
        let host = format!("{gateway}:{port}");
        let directory = tempfile::Builder::new().prefix("coracle-registry-").tempdir().unwrap();
        let authority = certificates(directory.path(), &gateway);
        let trust = Path::new("/etc/docker/certs.d").join(&host);
        std::fs::create_dir_all(&trust).unwrap();
        std::fs::write(trust.join("ca.crt"), authority).unwrap();
        let child = serve(directory.path(), &host);
        let registry = Self { host, directory, trust, _child: child };
        eventually("the registry answers", Duration::from_secs(30), async || {
            let connected = tokio::net::TcpStream::connect(&registry.host).await;
            connected.map(drop).map_err(|error| format!("{error}\n{}", registry.log()))
        })
        .await;
        Some(registry)
    }

    /// From here on the engine trusts it no more.
    pub fn lose_trust(&self) {
        std::fs::write(self.trust.join("ca.crt"), "").unwrap();
    }

    /// The digest that a tag means now.
    pub fn digest_of(&self, repository: &str, tag: &str) -> Option<String> {
        let tags = self.directory.path().join("data/docker/registry/v2/repositories").join(repository).join("_manifests/tags");
        std::fs::read_to_string(tags.join(tag).join("current/link")).ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.trust) {
            eprintln!("{} is left behind: {error}", self.trust.display());
        }
    }
}

/// Makes an authority and a certificate of it for the address; answers the authority's.
fn certificates(directory: &Path, address: &str) -> String {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::from_params(&authority, &key);
    let own = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![address.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    std::fs::write(directory.join("crt"), leaf.pem()).unwrap();
    std::fs::write(directory.join("key"), own.serialize_pem()).unwrap();
    certificate.pem()
}

fn serve(directory: &Path, host: &str) -> Child {
    let place = directory.display();
    let settings = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\nhttp:\n  addr: {host}\n  \
         tls: {{certificate: {place}/crt, key: {place}/key}}\nauth: {{htpasswd: {{realm: shop, path: {place}/htpasswd}}}}\n"
    );
    std::fs::write(directory.join("settings.yml"), settings).unwrap();
    std::fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let mut command = Command::new("/usr/bin/docker-registry");
    command.arg("serve").arg(directory.join("settings.yml")).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Runs the program with something on its standard input.
pub async fn typed(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { line: "coracle".to_owned(), code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

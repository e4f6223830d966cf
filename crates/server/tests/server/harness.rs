//! One server per test, in a directory of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::{ChangeOptions, Client, ClientError, DeployOptions, DeploymentEvent, Endpoint, EventStream, Outcome, Source};
use coracle_engine::fake::FakeEngine;
use coracle_model::{AppName, EngineKind};
use coracle_orchestrator::{Drained, Traffic, TrafficError};
use coracle_proxy_table::{Table, TargetId};
use coracle_server::{IntakeLimits, Parts, Server, ServerOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A manifest that wastes no time.
pub(crate) const QUICK: &str = "[deploy]\nwatch = \"0\"\ndrain = \"1s\"\ngrace = \"1s\"\ntimeout = \"20s\"\n";

/// Takes every table and drains at once.
struct NoTraffic;

#[async_trait]
impl Traffic for NoTraffic {
    async fn publish(&self, table: Table) -> Result<(), TrafficError> {
        table.check().map_err(|error| TrafficError(error.to_string()))
    }

    async fn current(&self) -> Result<Table, TrafficError> {
        Ok(Table::default())
    }

    async fn drain(&self, _targets: &[TargetId], _deadline: Duration) -> Result<Drained, TrafficError> {
        Ok(Drained { cut_off: 0 })
    }
}

/// Nobody who moves requests.
pub(crate) fn no_traffic() -> Arc<dyn Traffic> {
    Arc::new(NoTraffic)
}

/// A server, and the machine it is on.
pub(crate) struct Env {
    pub(crate) dir: TempDir,
    pub(crate) machine: FakeEngine,
    pub(crate) client: Client,
    pub(crate) api_tcp: Option<SocketAddr>,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

pub(crate) fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

impl Env {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// On a machine whose engine claims to be of this kind.
    pub(crate) async fn start_on(kind: EngineKind) -> Self {
        Self::start_on_with(kind, |_| ()).await
    }

    /// On such a machine, with other options.
    pub(crate) async fn start_on_with(kind: EngineKind, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut env = Self { machine: FakeEngine::new(kind), ..Self::unserved() };
        env.serve(change).await;
        env
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut env = Self::unserved();
        env.serve(change).await;
        env
    }

    fn unserved() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            machine: FakeEngine::new(EngineKind::Process),
            client: Client::new(Endpoint::Unix("/nowhere".into())),
            api_tcp: None,
            stop: CancellationToken::new(),
            serving: None,
        }
    }

    /// Starts the server of this directory and machine.
    pub(crate) async fn serve(&mut self, change: impl FnOnce(&mut ServerOptions)) {
        let mut options = ServerOptions::new(self.state_dir(), "/nowhere/coracle".into());
        options.intake = IntakeLimits { archive_bytes: 4 << 20, kept_bytes: 1 << 20, ..IntakeLimits::default() };
        options.intake.unpacked.entries = 1_000;
        change(&mut options);
        let parts = Parts {
            engines: vec![self.machine.engine()],
            default_engine: self.machine.engine().kind,
            traffic: no_traffic(),
            http: vec!["127.0.0.1:8080".parse().unwrap()],
        };
        let server = Server::with_parts(options, parts).await.unwrap();
        self.client = Client::new(Endpoint::Unix(server.api_socket().to_owned()));
        self.api_tcp = server.api_tcp();
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.serving = Some(tokio::spawn(async move { server.run_until(stop.cancelled()).await }));
    }

    pub(crate) fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            tokio::time::timeout(PATIENCE * 2, serving).await.expect("the server does not stop").unwrap();
        }
    }

    /// Begins a deployment of a web app and leaves the events to the caller.
    pub(crate) async fn begin(&self, name: &str, manifest: &str, options: &DeployOptions) -> Result<EventStream, ClientError> {
        let tree = tree(&[("Procfile", "web: serve\n"), ("coracle.toml", manifest)]);
        self.client.deploy(&app(name), options, Source::from_bytes(tree)).await
    }

    /// Deploys and expects it to succeed.
    pub(crate) async fn deploy(&self, name: &str) -> Vec<DeploymentEvent> {
        let events = all(self.begin(name, QUICK, &DeployOptions::default()).await.unwrap()).await;
        assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
        events
    }

    /// Waits until `found` finds something.
    pub(crate) async fn eventually<T>(&self, what: &str, mut found: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(it) = found(self).await {
                    return it;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Sends a request byte by byte as given, and reads the status and the whole answer.
    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let socket = UnixStream::connect(self.state_dir().join("api.sock")).await.unwrap();
        raw_over(socket, method, path, headers, body).await
    }

    pub(crate) fn incoming_is_empty(&self) -> bool {
        std::fs::read_dir(self.state_dir().join("incoming")).unwrap().next().is_none()
    }
}

pub(crate) async fn raw_over(
    mut socket: impl AsyncReadExt + AsyncWriteExt + Unpin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
    (status, answer)
}

/// A source tree as it is sent.
pub(crate) fn tree(files: &[(&str, &str)]) -> Bytes {
    archive(|tar| {
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    })
}

/// An archive with whatever is put into it.
pub(crate) fn archive(fill: impl FnOnce(&mut tar::Builder<flate2::write::GzEncoder<Vec<u8>>>)) -> Bytes {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    fill(&mut tar);
    tar.into_inner().unwrap().finish().unwrap().into()
}

/// Every event of a stream.
pub(crate) async fn all(mut events: EventStream) -> Vec<DeploymentEvent> {
    let mut found = Vec::new();
    let reading = async {
        while let Some(event) = events.next().await {
            found.push(event.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the events do not end");
    found
}

/// Reads on until an event that is wanted comes.
pub(crate) async fn until<T>(events: &mut EventStream, mut wanted: impl FnMut(&DeploymentEvent) -> Option<T>) -> T {
    let reading = async {
        loop {
            let event = events.next().await.expect("the events ended early").unwrap();
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it never came")
}

/// How the deployment that told these events ended.
pub(crate) fn outcome(events: &[DeploymentEvent]) -> Option<&Outcome> {
    match events.last() {
        Some(DeploymentEvent::Ended { outcome, .. }) => outcome.as_ref(),
        other => panic!("the last event is {other:?}"),
    }
}

pub(crate) fn began(event: &DeploymentEvent) -> Option<coracle_model::DeploymentId> {
    match event {
        DeploymentEvent::Began { deployment } => Some(deployment.id),
        _ => None,
    }
}

pub(crate) fn detached() -> DeployOptions {
    DeployOptions { detach: true, ..DeployOptions::default() }
}

pub(crate) fn attached() -> ChangeOptions {
    ChangeOptions::default()
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

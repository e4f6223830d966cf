//! Looks after the proxy: adopts the one that runs, starts one if there is none, replaces one of another build without a
//! refused connection, and starts it again if it dies. It never ends it: the proxy outlives the server on purpose.

mod launch;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_model::AdoptedPort;
use coracle_orchestrator::{Drained, Figures, HostOrchestrator, Traffic, TrafficError};
use coracle_proxy::control::{Client, ControlError, ListenerStatus, PROTOCOL, Status};
use coracle_proxy_table::{Table, TargetId};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use launch::ProxyError;

/// How long a question after the proxy's state may take.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);

/// How long a proxy that is stopping may take to go: its own drain and a little.
const GONE_DEADLINE: Duration = Duration::from_secs(40);

/// Between two starts of a proxy that dies at once. Short, as every request of every app is refused meanwhile, and a start
/// costs a few milliseconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A proxy that has run for so long did not die at once.
const STABLE: Duration = Duration::from_secs(3);

/// How often a process is looked at that cannot be waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How the proxy is started and reached.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The `coracle` binary.
    pub program: PathBuf,
    /// Where it takes requests.
    pub http: Vec<SocketAddr>,
    /// Where it takes requests over TLS.
    pub https: Vec<SocketAddr>,
    /// Where else it takes requests, by the names that routes ask for.
    pub entrances: Vec<Entrance>,
    /// How it orders certificates; `None`: it does not.
    pub acme: Option<AcmeOptions>,
    /// Where it is told its table.
    pub control_socket: PathBuf,
    /// Where it keeps its table.
    pub state_dir: PathBuf,
    /// Where its messages go.
    pub log: PathBuf,
}

/// A further place where the proxy takes requests: only routes that ask for it by its name lead from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entrance {
    /// By what routes name it; begins with [`AdoptedPort::LISTENER`].
    pub name: String,
    /// Where.
    pub address: SocketAddr,
}

/// How certificates are ordered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcmeOptions {
    /// Where the authority can write to; some ask for it.
    pub email: Option<String>,
    /// The authority's directory; `None`: Let's Encrypt.
    pub directory: Option<String>,
    /// A file with the root that the authority's own certificate comes from, if the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// Nothing is looked at before an order is placed: for authorities of one's own.
    pub skips_preflight: bool,
}

/// The arguments by which `coracle proxy` and `coracle server run` are told where to listen and how to get certificates.
pub(crate) fn listening_arguments(http: &[SocketAddr], https: &[SocketAddr], acme: Option<&AcmeOptions>) -> Vec<OsString> {
    let listens = |option: &'static str, addresses: &[SocketAddr]| -> Vec<OsString> {
        addresses.iter().flat_map(|address| [option.into(), address.to_string().into()]).collect()
    };
    let mut arguments = listens("--http", http);
    arguments.extend(listens("--https", https));
    if let Some(AcmeOptions { email, directory, ca_file, skips_preflight }) = acme {
        arguments.push("--acme".into());
        let ca_file = ca_file.as_ref().map(|path| path.as_os_str());
        let named = [
            ("--acme-email", email.as_ref().map(OsStr::new)),
            ("--acme-directory", directory.as_ref().map(OsStr::new)),
            ("--acme-ca", ca_file),
        ];
        arguments.extend(named.iter().filter_map(|(name, value)| Some([name.into(), (*value)?.to_owned()])).flatten());
        if *skips_preflight {
            arguments.push("--acme-no-preflight".into());
        }
    }
    arguments
}

impl ProxyOptions {
    /// The usual places in a server's state directory.
    pub fn new(program: PathBuf, http: Vec<SocketAddr>, server_state_dir: &Path) -> Self {
        let state_dir = server_state_dir.join("proxy");
        Self {
            program,
            http,
            https: Vec::new(),
            entrances: Vec::new(),
            acme: None,
            control_socket: state_dir.join("control.sock"),
            log: server_state_dir.join("proxy.log"),
            state_dir,
        }
    }
}

/// The proxy of this server.
pub(crate) struct ProxyProcess {
    options: ProxyOptions,
    client: Client,
    status: Mutex<Status>,
    entrances: Mutex<BTreeSet<Entrance>>,
    /// Held while one proxy takes another's place.
    replacing: tokio::sync::Mutex<()>,
}

impl ProxyProcess {
    /// Adopts the proxy that runs, replaces it if it is of another build, or starts one.
    pub(crate) async fn start(options: ProxyOptions) -> Result<Arc<Self>, ProxyError> {
        let client = Client::new(&options.control_socket);
        let status = established(&options, &client).await?;
        tracing::info!(pid = status.pid, version = status.version, "the proxy takes requests");
        let entrances = Mutex::new(options.entrances.iter().cloned().collect());
        Ok(Arc::new(Self { options, client, status: Mutex::new(status), entrances, replacing: tokio::sync::Mutex::default() }))
    }

    /// The same with further entrances. Without them, if another program has one of them: everything else must not have to
    /// wait for that.
    pub(crate) async fn start_with(options: ProxyOptions, entrances: Vec<Entrance>) -> Result<Arc<Self>, ProxyError> {
        let with = ProxyOptions { entrances, ..options.clone() };
        let is_more = with.entrances != options.entrances;
        match Self::start(with).await {
            Err(error) if is_more => {
                tracing::error!(%error, "going on without the ports that apps have taken over");
                Self::start(options).await
            }
            decided => decided,
        }
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where requests are taken without TLS, with real ports.
    pub(crate) fn http(&self) -> Vec<SocketAddr> {
        addresses(&self.status(), false)
    }

    /// The same with TLS.
    pub(crate) fn https(&self) -> Vec<SocketAddr> {
        addresses(&self.status(), true)
    }

    /// Whom to ask.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The version of the proxy, if it answers.
    pub(crate) async fn version(&self) -> Option<String> {
        answering(&self.client).await.map(|status| status.version)
    }

    /// Starts the proxy again whenever it dies, and publishes the table anew, until `halt` fires.
    pub(crate) async fn watch(self: Arc<Self>, orchestrator: HostOrchestrator, halt: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            let pid = self.status().pid;
            if halt.run_until_cancelled(gone(pid)).await.is_none() {
                return;
            }
            let was_replaced = {
                // One that is just being replaced has ended on purpose.
                let _until_the_other_is_known = self.replacing.lock().await;
                self.status().pid != pid
            };
            if was_replaced {
                continue;
            }
            pause = pause_after(since.elapsed(), pause);
            tracing::warn!(pid, ?pause, "the proxy has ended; starting it again");
            // Until it has succeeded there is nobody to wait for: the old pid may be somebody else's by now.
            loop {
                if halt.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = longer(pause);
                if self.revive(&orchestrator).await {
                    break;
                }
            }
        }
    }

    /// Takes requests at these entrances as well, and no longer at those: a proxy that listens so takes over from the one that
    /// runs, without a refused connection. What cannot be listened at is an error, and everything is as it was.
    pub(crate) async fn change_entrances(&self, add: &[Entrance], drop: &[Entrance]) -> Result<(), ProxyError> {
        let _one_at_a_time = self.replacing.lock().await;
        let mut wanted = self.entrances();
        wanted.retain(|entrance| !drop.contains(entrance));
        wanted.extend(add.iter().cloned());
        if wanted == self.entrances() {
            return Ok(());
        }
        let status = established(&self.options_with(&wanted), &self.client).await?;
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        *self.entrances.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        Ok(())
    }

    /// Where else than for all apps it takes requests.
    pub(crate) fn entrances(&self) -> BTreeSet<Entrance> {
        self.entrances.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ports stay the same, also where any free one was good enough at first: people know them by now.
    fn options_with(&self, entrances: &BTreeSet<Entrance>) -> ProxyOptions {
        let entrances = entrances.iter().cloned().collect();
        ProxyOptions { http: self.http(), https: self.https(), entrances, ..self.options.clone() }
    }

    /// Whether it runs again.
    async fn revive(&self, orchestrator: &HostOrchestrator) -> bool {
        let _one_at_a_time = self.replacing.lock().await;
        let options = self.options_with(&self.entrances());
        match established(&options, &self.client).await {
            Ok(status) => {
                tracing::info!(pid = status.pid, "the proxy takes requests again");
                *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
            }
            Err(error) => {
                tracing::error!(%error, "the proxy cannot be started");
                return false;
            }
        }
        // It serves by the table it has kept on disk already; this one is newer if something changed meanwhile.
        if let Err(error) = orchestrator.republish().await {
            tracing::error!(%error, "the proxy could not be told the table");
        }
        true
    }
}

#[async_trait]
impl Traffic for ProxyProcess {
    async fn publish(&self, table: Table) -> Result<(), TrafficError> {
        self.client.publish(&table).await.map_err(refused)
    }

    async fn current(&self) -> Result<Table, TrafficError> {
        self.client.table().await.map_err(refused)
    }

    async fn drain(&self, targets: &[TargetId], deadline: Duration) -> Result<Drained, TrafficError> {
        let drained = self.client.drain(targets, deadline).await.map_err(refused)?;
        Ok(Drained { cut_off: drained.cut_off })
    }

    async fn figures(&self, service: &str) -> Result<Option<Figures>, TrafficError> {
        let told = self.client.figures(service).await.map_err(refused)?;
        let coracle_proxy::control::Figures { answered, errors, others, durations, in_flight } = told;
        Ok(Some(Figures { answered, errors, others, durations, in_flight }))
    }
}

fn refused(error: ControlError) -> TrafficError {
    TrafficError(error.to_string())
}

/// Stops the proxy of this state directory and waits until it is gone; `false` if there was none. Instances stay. For
/// `coracle server stop --all`, and for demonstrations and tests that clean up after themselves.
pub async fn stop_everything(options: &ProxyOptions) -> Result<bool, ProxyError> {
    let client = Client::new(&options.control_socket);
    let Some(status) = answering(&client).await else { return Ok(false) };
    client.stop().await.map_err(ProxyError::Control)?;
    tokio::time::timeout(GONE_DEADLINE, gone(status.pid)).await.map_err(|_| ProxyError::DoesNotEnd { pid: status.pid })?;
    Ok(true)
}

/// How long to wait before a proxy is started again that has run for `ran`, where the last wait made the next one `pause`.
fn pause_after(ran: Duration, pause: Duration) -> Duration {
    if ran > STABLE { Duration::ZERO } else { pause }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(250), LONGEST_PAUSE)
}

/// A proxy of this build at these addresses, whatever it takes.
async fn established(options: &ProxyOptions, client: &Client) -> Result<Status, ProxyError> {
    match answering(client).await {
        Some(status) if !status.accepting => {
            tokio::time::timeout(GONE_DEADLINE, gone(status.pid))
                .await
                .map_err(|_| ProxyError::DoesNotEnd { pid: status.pid })?;
        }
        Some(status) if is_ours(options, &status) => return Ok(status),
        Some(status) => tracing::info!(pid = status.pid, version = status.version, "replacing the proxy by one of this build"),
        None => {}
    }
    launch::launch(options, client).await
}

async fn answering(client: &Client) -> Option<Status> {
    tokio::time::timeout(STATUS_DEADLINE, client.status()).await.ok()?.ok()
}

/// Where a proxy listens for all apps, with or without TLS.
fn addresses(status: &Status, tls: bool) -> Vec<SocketAddr> {
    let of_all = |listener: &&ListenerStatus| listener.tls == tls && !is_entrance(listener);
    status.listeners.iter().filter(of_all).map(|listener| listener.address).collect()
}

fn is_entrance(listener: &ListenerStatus) -> bool {
    listener.name.starts_with(AdoptedPort::LISTENER)
}

/// Where else it listens.
fn entrances(status: &Status) -> BTreeSet<Entrance> {
    let further = status.listeners.iter().filter(|listener| is_entrance(listener));
    further.map(|listener| Entrance { name: listener.name.clone(), address: listener.address }).collect()
}

/// Whether a running proxy is what would be started now.
fn is_ours(options: &ProxyOptions, status: &Status) -> bool {
    let same = |wanted: &[SocketAddr], tls: bool| {
        let has = addresses(status, tls);
        let is_there = |wanted: &SocketAddr| {
            has.iter().any(|has| has.ip() == wanted.ip() && (wanted.port() == 0 || has.port() == wanted.port()))
        };
        wanted.len() == has.len() && wanted.iter().all(is_there)
    };
    status.protocol == PROTOCOL
        && status.version == env!("CARGO_PKG_VERSION")
        && same(&options.http, false)
        && same(&options.https, true)
        && entrances(status) == options.entrances.iter().cloned().collect()
        && orders_alike(options.acme.as_ref(), status.pid).unwrap_or(true)
        && is_same_file(&options.program, status.pid).unwrap_or(true)
}

/// Whether the process was told to order certificates like this: its arguments tell.
fn orders_alike(acme: Option<&AcmeOptions>, pid: u32) -> std::io::Result<bool> {
    let told = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let told: Vec<&[u8]> = told.split(|byte| *byte == 0).collect();
    let wanted = listening_arguments(&[], &[], acme);
    let begin = told.iter().position(|argument| argument.starts_with(b"--acme")).unwrap_or(told.len());
    let mut told = told[begin..].iter();
    let same = wanted.iter().all(|wanted| told.next() == Some(&wanted.as_bytes()));
    Ok(same && !told.any(|argument| argument.starts_with(b"--acme")))
}

/// Whether the process runs this very file: an upgrade within one version puts another file in its place.
fn is_same_file(program: &Path, pid: u32) -> std::io::Result<bool> {
    let running = std::fs::metadata(format!("/proc/{pid}/exe"))?;
    let program = std::fs::metadata(program)?;
    Ok((running.dev(), running.ino()) == (program.dev(), program.ino()))
}

/// Waits until a process is gone, whoever its parent is.
async fn gone(pid: u32) {
    let Some(id) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
    match rustix::process::pidfd_open(id, rustix::process::PidfdFlags::NONBLOCK).map(watched) {
        // The process is gone when its descriptor becomes readable.
        Ok(Ok(descriptor)) => {
            if let Err(error) = descriptor.readable().await {
                tracing::warn!(%error, "cannot wait for the proxy to end");
            }
        }
        Err(rustix::io::Errno::SRCH) => {}
        // Too old a kernel, or a sandbox that does not know the call.
        Ok(Err(_)) | Err(_) => {
            while rustix::process::test_kill_process(id).is_ok() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

/// Becomes readable when the descriptor is.
#[allow(deprecated, reason = "its successor is unsafe, for types that may change their descriptor; this one cannot")]
fn watched(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        let waiting = tokio::spawn(gone(pid));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        child.start_kill().unwrap();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        child.wait().await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), gone(pid)).await.unwrap();
    }

    #[test]
    fn only_a_proxy_that_dies_at_once_is_waited_for() {
        let now_and_then = (0..10).fold(Duration::ZERO, |pause, _| longer(pause_after(Duration::from_secs(5), pause)));
        assert_eq!(pause_after(Duration::from_secs(5), now_and_then), Duration::ZERO);
        let at_once = (0..10).fold(Duration::ZERO, |pause, _| longer(pause_after(Duration::from_millis(50), pause)));
        assert_eq!(pause_after(Duration::from_millis(50), at_once), LONGEST_PAUSE);
        assert_eq!(pause_after(Duration::from_millis(50), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn how_to_listen_is_told_in_arguments() {
        let acme = AcmeOptions {
            email: Some("me@shop.example".into()),
            directory: None,
            ca_file: Some("/ca.pem".into()),
            skips_preflight: false,
        };
        let address = |port| [SocketAddr::from(([0, 0, 0, 0], port))];
        assert_eq!(
            listening_arguments(&address(80), &address(443), Some(&acme)).join(OsStr::new(" ")),
            "--http 0.0.0.0:80 --https 0.0.0.0:443 --acme --acme-email me@shop.example --acme-ca /ca.pem"
        );
        assert_eq!(listening_arguments(&address(80), &[], None), ["--http", "0.0.0.0:80"]);
    }

    #[test]
    fn another_file_at_the_same_path_is_another_build() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        assert!(is_same_file(&own, std::process::id()).unwrap());
        let other = dir.path().join("coracle");
        std::fs::write(&other, "x").unwrap();
        assert!(!is_same_file(&other, std::process::id()).unwrap());
    }

    #[test]
    fn a_proxy_at_other_addresses_is_not_adopted() {
        let listener = |address: &str, tls| ListenerStatus { name: "http".to_owned(), address: address.parse().unwrap(), tls };
        let status = |http: &str| Status {
            listeners: vec![listener(http, false)],
            settings: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            protocol: PROTOCOL,
            generation: 1,
            http: vec![http.parse().unwrap()],
            accepting: true,
            targets: Vec::new(),
            waiting: Vec::new(),
            predecessors: 0,
            unkept: None,
        };
        let program = std::env::current_exe().unwrap();
        let options = |http: &str| ProxyOptions::new(program.clone(), vec![http.parse().unwrap()], Path::new("/x"));
        assert!(is_ours(&options("127.0.0.1:80"), &status("127.0.0.1:80")));
        assert!(is_ours(&options("127.0.0.1:0"), &status("127.0.0.1:41234")));
        let both = Status {
            listeners: vec![listener("127.0.0.1:80", false), listener("127.0.0.1:443", true)],
            ..status("127.0.0.1:80")
        };
        assert!(!is_ours(&options("127.0.0.1:80"), &both));
        assert!(is_ours(&ProxyOptions { https: vec!["127.0.0.1:443".parse().unwrap()], ..options("127.0.0.1:80") }, &both));
        let orders = ProxyOptions { acme: Some(AcmeOptions::default()), ..options("127.0.0.1:80") };
        assert!(!is_ours(&orders, &status("127.0.0.1:80")));
        assert!(!is_ours(&options("127.0.0.1:81"), &status("127.0.0.1:80")));
        assert!(!is_ours(&options("0.0.0.0:80"), &status("127.0.0.1:80")));
        assert!(!is_ours(&options("127.0.0.1:80"), &Status { protocol: PROTOCOL + 1, ..status("127.0.0.1:80") }));
    }
}

//! A server of its own for every story: state directory, proxy, ports, home. When the story ends, however it ends,
//! everything of it is gone again, and nothing else.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_api::{Client, Endpoint};
use coracle_model::EngineKind;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::belongings::{self, Belongings};
use crate::program::{self, Ran};

/// How long a server may take to come up or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine of its apps.
    pub engine: EngineKind,
    /// Where its state lies, if not in a directory of its own.
    pub state: Option<PathBuf>,
    /// Where its proxy listens, if not on a free port.
    pub http: Option<SocketAddr>,
    /// Additions to its environment.
    pub env: Vec<(String, String)>,
    /// Additions to `server run`.
    pub arguments: Vec<String>,
}

impl Settings {
    /// A server on this engine.
    pub fn of(engine: EngineKind) -> Self {
        Self { engine, state: None, http: None, env: Vec::new(), arguments: Vec::new() }
    }
}

/// A server and everything around it. Cheap to clone; the last clone that goes cleans up.
#[derive(Debug, Clone)]
pub struct Env {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    directory: TempDir,
    state: PathBuf,
    program: Mutex<PathBuf>,
    server: Mutex<Option<Child>>,
    address: Mutex<Option<SocketAddr>>,
}

impl Env {
    /// A running server on this engine.
    pub async fn start(engine: EngineKind) -> Self {
        let env = Self::prepare(Settings::of(engine));
        env.start_server().await;
        env
    }

    /// Everything but the server itself.
    pub fn prepare(settings: Settings) -> Self {
        let directory = tempfile::Builder::new().prefix("coracle-story-").tempdir().unwrap();
        // As `/var/lib` is: apps that run under users of their own pass through it.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        let state = settings.state.clone().unwrap_or_else(|| directory.path().join("state"));
        let (server, address, program) = (Mutex::default(), Mutex::default(), Mutex::new(program::path()));
        Self { inner: Arc::new(Inner { settings, directory, state, program, server, address }) }
    }

    /// The engine its apps run on.
    pub fn engine(&self) -> EngineKind {
        self.inner.settings.engine
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.inner.state
    }

    /// A path in the story's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.inner.directory.path().join(name)
    }

    /// Where the proxy listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.inner.address.lock().unwrap_or_else(PoisonError::into_inner).expect("the server is running")
    }

    /// A developer's copy of an example.
    pub fn app(&self, example: &str) -> App {
        App::new(self.clone(), example)
    }

    /// A client of the server's API.
    pub fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.state().join("api.sock")))
    }

    /// The program with the options that lead to this server, and these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let program = self.inner.program.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut command = program::command(&program, &self.path("home"));
        command.arg("--state").arg(self.state()).args(words);
        for (name, value) in &self.inner.settings.env {
            command.env(name, value);
        }
        command
    }

    /// Runs `coracle` with these words.
    pub async fn coracle(&self, words: &[&str]) -> Ran {
        Ran::to_its_end(self.command(words)).await
    }

    /// Starts the server and waits until it and its proxy answer. Panics with its log if it does not come up.
    pub async fn start_server(&self) {
        if let Err(why) = self.try_start_server().await {
            panic!("{why}\n{}", self.server_log());
        }
    }

    /// Starts the server and waits until it and its proxy answer.
    pub async fn try_start_server(&self) -> Result<(), String> {
        let http = self.inner.settings.http.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let engine = self.engine().as_str();
        let mut command = self.command(&["server", "run", "--http", &http, "--engine", engine]);
        command.args(&self.inner.settings.arguments);
        command.stdin(Stdio::null()).stdout(self.log_file()).stderr(self.log_file());
        let child = command.spawn().unwrap();
        *self.server() = Some(child);
        let client = self.client();
        let give_up = Instant::now() + PATIENCE;
        loop {
            let ended = self.server().as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                self.server().take();
                return Err(format!("the server ended with {status}"));
            }
            if let Ok(version) = client.version().await
                && let Some(address) = version.http.first()
            {
                *self.inner.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address.parse().unwrap());
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(format!("the server does not answer within {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From here on another build is used: the same program in another file, which is what an upgrade looks like.
    pub fn install_another_build(&self) {
        let other = self.path("coracle-of-tomorrow");
        std::fs::copy(program::path(), &other).unwrap();
        *self.inner.program.lock().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// SIGKILL, in the middle of whatever it does.
    pub async fn kill_server(&self) {
        self.end_server(Signal::KILL).await;
    }

    /// SIGTERM, and waits until it has gone. Its proxy and its instances stay.
    pub async fn stop_server(&self) {
        let status = self.end_server(Signal::TERM).await;
        assert!(status.success(), "the server ended with {status}\n{}", self.server_log());
    }

    /// Stops and starts the server.
    pub async fn restart_server(&self) {
        self.stop_server().await;
        self.start_server().await;
    }

    async fn end_server(&self, signal: Signal) -> ExitStatus {
        let mut child = self.server().take().expect("the server is running");
        belongings::signal(pid_of(&child), signal);
        let ended = timeout(PATIENCE, child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the server does not end\n{}", self.server_log())).unwrap()
    }

    /// The process id of the server.
    pub fn server_pid(&self) -> Pid {
        pid_of(self.server().as_ref().expect("the server is running"))
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.inner.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.path("server.log")).unwrap()
    }

    /// What the server has written so far.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Everything on this machine that belongs to this server, right now.
    pub fn belongings(&self) -> Belongings {
        Belongings::of(self.state())
    }

    /// Destroys every app, and panics unless nothing is left of them: no container, network, volume, image, process,
    /// cgroup, mount or directory. Stories end with it.
    pub async fn leaves_nothing(&self) {
        for app in self.client().apps().await.unwrap() {
            self.coracle(&["-y", "destroy", "-a", app.name.as_str()]).await.succeeds();
        }
        let keep = [self.server_pid()];
        eventually("nothing is left", Duration::from_secs(30), async || {
            let left = self.belongings().of_apps(&keep);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}\n{}", self.server_log())) }
        })
        .await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(child) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Before anything else, or it would put back what is taken away.
            belongings::signal(pid_of(&child), Signal::KILL);
        }
        Belongings::of(&self.state).remove();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
            let from = log.len().saturating_sub(20_000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("the server's log:\n{}", &log[from..]);
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    let pid = child.id().expect("nobody has waited for it");
    Pid::from_raw(pid.cast_signed()).expect("a process id is not zero")
}

/// Looks until `check` is content; panics with its last complaint if that does not happen in time.
pub async fn eventually<T>(what: &str, patience: Duration, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let give_up = Instant::now() + patience;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > give_up => panic!("{what}: not within {patience:?}: {complaint}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

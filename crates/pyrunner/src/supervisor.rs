//! The process that was started: it binds the port, starts the sandbox daemon (privileged) and the API (not), and starts
//! again whichever of them ends. It reads nothing that comes from outside.
//!
//! Requests that come while the API is being started again wait at the port, which this process holds open.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, make_state_dir};
use crate::settings::Settings;

/// The exit code of a part that would end again however often it is started.
pub const HOPELESS: u8 = 78;

/// One that ended sooner than this waits before it is started again, longer each time.
const STEADY: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often a part may end before the server has ever been up. Later on it is started again however often it ends: then it can
/// work here, and what stands in its way may pass.
const MOST_STARTS: u32 = 5;

/// How long a part that is asked to end may take, beside what draining may take.
const ENDING: Duration = Duration::from_secs(5);

/// What is taken over from this process's environment into the daemon's: nothing that could be a secret.
const DAEMON_ENVIRONMENT: &[&str] = &["PATH", "RUST_LOG", "PORT", "NO_COLOR", "RUST_BACKTRACE"];

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory cannot be made.
    #[error("the directory {path} cannot be made, or not be given to the API's user: {source}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A part cannot be started.
    #[error("cannot start the {part}: {source}")]
    Start {
        /// Which.
        part: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A part ends again and again, and the server has never been up.
    #[error("the {part} ended {times} times before the server was up, at last with {how}; what it said is above")]
    NeverUp {
        /// Which.
        part: &'static str,
        /// How often.
        times: u32,
        /// Its end.
        how: String,
    },
    /// A part says that it cannot work here.
    #[error("the {0} cannot work here; it says why above")]
    Hopeless(&'static str),
}

/// Runs the server until SIGTERM or SIGINT. `again` starts this program with the same arguments, as one of its parts. Called
/// once it answers and has found a way to run programs: `ready`.
pub fn run(settings: &Settings, again: &Again, ready: impl FnOnce(std::net::SocketAddr)) -> Result<(), SuperviseError> {
    let listen = |source| SuperviseError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let place = Place::of(address.port());
    let directory = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| SuperviseError::Directory { path, source }
    };
    let privileged = rustix::process::geteuid().is_root();
    make_state_dir(&settings.state_dir, privileged.then_some(settings.user)).map_err(directory(&settings.state_dir))?;
    let watch = Watch::start().map_err(|source| SuperviseError::Start { part: "watch over signals", source })?;
    place.make().map_err(directory(place.directory()))?;
    let mut parts = [Part::new(PartName::Daemon), Part::new(PartName::Api)];
    let start = Start { settings, again, place: &place, listener: &listener, privileged };
    let outcome = keep_running(&start, &mut parts, &watch, || ready(address));
    drop(listener);
    let [daemon, api] = &mut parts;
    // The API first: what it has under way needs the daemon.
    api.end(settings.drain + ENDING, &watch);
    daemon.end(ENDING, &watch);
    place.remove();
    outcome
}

fn keep_running(start: &Start<'_>, parts: &mut [Part; 2], watch: &Watch, ready: impl FnOnce()) -> Result<(), SuperviseError> {
    let mut ready = Some(ready);
    while !watch.stopped() {
        if watch.is_up()
            && let Some(ready) = ready.take()
        {
            ready();
        }
        let mut next = None;
        for part in parts.iter_mut() {
            part.look(watch.is_up())?;
            let due = part.tend(start, watch)?;
            next = [next, due].into_iter().flatten().min();
        }
        watch.wait(next);
    }
    Ok(())
}

/// How this program is started again.
#[derive(Debug, Clone)]
pub struct Again {
    /// The arguments that this process was started with.
    pub arguments: Vec<OsString>,
    /// What is put behind them to start one of the parts.
    pub part: fn(PartName, &Place) -> Vec<OsString>,
}

/// A part of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartName {
    /// The sandbox daemon.
    Daemon,
    /// The API.
    Api,
}

impl PartName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "sandbox daemon",
            Self::Api => "API",
        }
    }
}

struct Start<'a> {
    settings: &'a Settings,
    again: &'a Again,
    place: &'a Place,
    listener: &'a TcpListener,
    privileged: bool,
}

impl Start<'_> {
    fn command(&self, part: PartName) -> io::Result<Command> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pyrunner").args(&self.again.arguments).args((self.again.part)(part, self.place));
        match part {
            PartName::Daemon => {
                command.stdin(Stdio::null()).env_clear();
                let own = std::env::vars_os().filter(|(name, _)| {
                    let name = name.to_string_lossy();
                    DAEMON_ENVIRONMENT.contains(&&*name) || name.starts_with("PYRUNNER_")
                });
                command.envs(own);
            }
            PartName::Api => {
                command.stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)));
                // There it says that it is up.
                command.stdout(Stdio::piped());
                // What it would think of by itself is another place, once it is another user.
                command.env("PYRUNNER_STATE", &self.settings.state_dir);
                if self.privileged {
                    // What is looked for at home, such as PostgreSQL's `.pgpass`, is not looked for at root's.
                    command.env("HOME", &self.settings.state_dir);
                    // Setting the user drops root's supplementary groups too.
                    command.uid(self.settings.user.uid).gid(self.settings.user.gid);
                }
            }
        }
        // Signals of the terminal are for this process, which tells the others when it is their time.
        command.process_group(0);
        Ok(command)
    }
}

struct Part {
    name: PartName,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    /// How often it has ended.
    ends: u32,
}

impl Part {
    fn new(name: PartName) -> Self {
        Self { name, child: None, started: Instant::now(), pause: Duration::ZERO, ends: 0 }
    }

    /// Notices its end. `up`: whether the server has ever been.
    fn look(&mut self, up: bool) -> Result<(), SuperviseError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Ok(Some(status)) = child.try_wait() else { return Ok(()) };
        self.child = None;
        if status.code() == Some(i32::from(HOPELESS)) {
            return Err(SuperviseError::Hopeless(self.name.as_str()));
        }
        self.ends += 1;
        if !up && self.ends >= MOST_STARTS {
            return Err(SuperviseError::NeverUp { part: self.name.as_str(), times: self.ends, how: told(status) });
        }
        let short = self.started.elapsed() < STEADY;
        self.pause = if short { (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) } else { Duration::ZERO };
        tracing::warn!(part = self.name.as_str(), how = told(status), "a part has ended and is started again");
        self.started = Instant::now();
        Ok(())
    }

    /// Starts it if it is time; answers when it will be.
    fn tend(&mut self, start: &Start<'_>, watch: &Watch) -> Result<Option<Instant>, SuperviseError> {
        let due = self.started + self.pause;
        if self.child.is_some() {
            return Ok(None);
        }
        if Instant::now() < due {
            return Ok(Some(due));
        }
        let part = self.name.as_str();
        let spawned = start.command(self.name).and_then(|mut command| command.spawn());
        self.started = Instant::now();
        match spawned {
            Ok(mut child) => {
                let said = child.stdout.take();
                self.child = Some(child);
                if let Some(said) = said {
                    watch.hear(said).map_err(|source| SuperviseError::Start { part: "watch over the API", source })?;
                }
            }
            // The machine has run out of something; later it may not.
            Err(source) if watch.is_up() || self.ends + 1 < MOST_STARTS => {
                self.ends += 1;
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                tracing::warn!(part, %source, "a part cannot be started yet");
                return Ok(Some(self.started + self.pause));
            }
            Err(source) => return Err(SuperviseError::Start { part, source }),
        }
        Ok(None)
    }

    /// Asks it to end, and ends it if it does not.
    fn end(&mut self, patience: Duration, watch: &Watch) {
        let Some(mut child) = self.child.take() else { return };
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
        kill_process(pid, Signal::TERM).ok();
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            watch.wait(Some(until));
        }
        tracing::warn!(part = self.name.as_str(), "a part does not end and is killed");
        child.kill().and_then(|()| child.wait()).map(drop).unwrap_or_else(|error| {
            tracing::warn!(%error, "a part cannot be killed");
        });
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => crate::answer::signal_name(signal),
        (None, None) => "unknown".to_owned(),
    }
}

/// What wakes this process: a child's end, its word that the server is up, or the wish that it stop.
struct Watch {
    stop: Arc<AtomicBool>,
    up: Arc<AtomicBool>,
    news: Arc<(Mutex<bool>, Condvar)>,
}

impl Watch {
    fn start() -> io::Result<Self> {
        let watch = Self { stop: Arc::default(), up: Arc::default(), news: Arc::default() };
        let (stop, news) = (Arc::clone(&watch.stop), Arc::clone(&watch.news));
        // Signals are heard on a thread of their own, in tokio's way, so that nothing here has to be async-signal-safe.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        use tokio::signal::unix::{SignalKind, signal};
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        drop(guard);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = children.recv() => {}
                        _ = terminate.recv() => stop.store(true, Ordering::Release),
                        _ = interrupt.recv() => stop.store(true, Ordering::Release),
                    }
                    tell(&news);
                }
            });
        })?;
        Ok(watch)
    }

    /// Waits, on a thread of its own that ends with the API, for its word that the server is up.
    fn hear(&self, mut said: ChildStdout) -> io::Result<()> {
        if self.is_up() {
            return Ok(());
        }
        let (up, news) = (Arc::clone(&self.up), Arc::clone(&self.news));
        let hearing = move || {
            if matches!(said.read(&mut [0]), Ok(1)) {
                up.store(true, Ordering::Release);
                tell(&news);
            }
        };
        std::thread::Builder::new().name("up".to_owned()).spawn(hearing).map(drop)
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for news, or until then.
    fn wait(&self, until: Option<Instant>) {
        let (news, changed) = &*self.news;
        let mut fresh = news.lock().unwrap_or_else(PoisonError::into_inner);
        while !*fresh {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => break,
                Some(left) => fresh = changed.wait_timeout(fresh, left).unwrap_or_else(PoisonError::into_inner).0,
                None => fresh = changed.wait(fresh).unwrap_or_else(PoisonError::into_inner),
            }
        }
        *fresh = false;
    }
}

/// Says that there is something to look at.
fn tell(news: &(Mutex<bool>, Condvar)) {
    *news.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    news.1.notify_all();
}

/// Called by the API when it answers and the daemon has found a way to run programs: its standard output is for this word.
pub(crate) fn say_up() {
    if let Err(error) = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush()) {
        tracing::debug!(%error, "nobody hears that the server is up");
    }
}

/// Called by a part at its start: it does not outlive the process that started it.
pub fn end_with_parent(signal: Signal) -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // It may have ended in between.
    if rustix::process::getppid() != parent { Err(io::Error::other("the supervisor is gone")) } else { Ok(()) }
}

//! `pyrunner serve`: the supervisor, and under a hidden option its two parts.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use coracle_pyrunner::place::{Place, sweep};
use coracle_pyrunner::settings::{DatabaseUrl, Settings, User, UserError, database};
use coracle_pyrunner::supervisor::{self, Again, HOPELESS, PartName, SuperviseError};
use coracle_pyrunner::{HistoryMode, QueueLimits, server};
use coracle_pyrunner_store::Policy;
use coracle_sandbox::daemon::{self, DaemonError};
use coracle_sandbox::{Image, ImageError, Limits, Permitted, Source, Wanted};
use ipnet::IpNet;
use rustix::process::Signal;

use super::settings::{Homeless, bytes, cores, duration, interpreter, memory, some, some_time};
use crate::output;

/// The port when neither `--listen` nor `PORT` names one.
const USUAL_PORT: u16 = 8000;

/// The image of programs that name none.
const DEFAULT_IMAGE: &str = "default";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on [default: 127.0.0.1:8000, or 0.0.0.0 and the port in PORT]
    #[arg(long, env = "PYRUNNER_LISTEN")]
    listen: Option<SocketAddr>,
    /// Port to listen on, on all addresses; --listen goes before
    #[arg(long, env = "PORT")]
    port: Option<u16>,
    /// Directory of history, keys and jobs [default: /var/lib/pyrunner for root, else ~/.local/state/pyrunner]
    #[arg(long, env = "PYRUNNER_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// User that the API becomes when root starts it [default: the user pyrunner, or a number that nobody else has]
    #[arg(long, env = "PYRUNNER_USER", value_name = "NAME|UID")]
    user: Option<String>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    sandbox: SandboxArguments,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    history: HistoryArguments,
    /// Threads of the API
    #[arg(long, env = "PYRUNNER_THREADS", default_value_t = 1, value_parser = some::<usize>(), value_name = "N")]
    threads: usize,
    /// Connections at the same time; more wait
    #[arg(long, env = "PYRUNNER_CONNECTIONS", default_value_t = 1024, value_parser = some::<usize>(), value_name = "N")]
    connections: usize,
    /// Largest body of a request, such as 8MiB
    #[arg(long, env = "PYRUNNER_MAX_BODY", default_value = "8MiB", value_parser = bytes, value_name = "SIZE")]
    max_body: u64,
    /// How long a request's body may take to arrive
    #[arg(long, env = "PYRUNNER_BODY_TIMEOUT", default_value = "30s", value_parser = some_time, value_name = "TIME")]
    body_timeout: Duration,
    /// How long requests under way may take to end when the server is stopped
    #[arg(long, env = "PYRUNNER_DRAIN", default_value = "25s", value_parser = duration, value_name = "TIME")]
    drain: Duration,
    /// Which part of the server this process is
    #[arg(long, hide = true, default_value = "supervisor")]
    part: PartArgument,
    /// Where the parts meet
    #[arg(long, hide = true)]
    place: Option<PathBuf>,
    /// The port that the supervisor has
    #[arg(long, hide = true, default_value_t = 0)]
    bound_port: u32,
}

/// Limits of each execution. A request can only lower them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of an execution")]
pub(super) struct LimitArguments {
    /// Time from start to end
    #[arg(long, env = "PYRUNNER_WALL", default_value = "10s", value_parser = some_time, value_name = "TIME")]
    wall: Duration,
    /// Processor time of all its processes
    #[arg(long, env = "PYRUNNER_CPU", default_value = "10s", value_parser = some_time, value_name = "TIME")]
    cpu: Duration,
    /// Memory, files in the sandbox included
    #[arg(long, env = "PYRUNNER_MEMORY", default_value = "256MiB", value_parser = memory, value_name = "SIZE")]
    memory: u64,
    /// Processes and threads
    #[arg(long, env = "PYRUNNER_PIDS", default_value_t = 64, value_parser = some::<u32>(), value_name = "N")]
    pids: u32,
    /// Output kept of each of the two streams
    #[arg(long, env = "PYRUNNER_OUTPUT", default_value = "1MiB", value_parser = bytes, value_name = "SIZE")]
    output: u64,
    /// Share of the processor, in cores
    #[arg(long, env = "PYRUNNER_CORES", default_value_t = 0.5, value_parser = cores, value_name = "CORES")]
    cores: f64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sandboxes")]
struct SandboxArguments {
    /// Directory of images that `pyrunner image build` made [default: as there]
    #[arg(long, env = "PYRUNNER_IMAGES", value_name = "DIR")]
    images: Option<PathBuf>,
    /// Interpreter of the default image [default: the machine's]
    #[arg(long, env = "PYRUNNER_PYTHON", value_parser = interpreter, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Sandboxes of the default image that wait ready at any time
    #[arg(long, env = "PYRUNNER_SLOTS", default_value_t = 8, value_parser = some::<usize>(), value_name = "N")]
    slots: usize,
    /// Modules that the default image has imported ahead
    #[arg(long, env = "PYRUNNER_PRELOAD", value_delimiter = ',', value_name = "MODULE,…")]
    preload: Vec<String>,
    /// Directories with packages for the default image, such as `pip install --target` makes
    #[arg(long, env = "PYRUNNER_PACKAGES", value_delimiter = ':', value_name = "DIR:…")]
    packages: Vec<PathBuf>,
    /// How programs are isolated: auto takes the best way that the machine allows
    #[arg(long, env = "PYRUNNER_ISOLATION", default_value = "auto", value_name = "auto|zygote|exec|docker")]
    isolation: Wanted,
    /// Put up with limits of each process alone, where there are no cgroups
    #[arg(long, env = "PYRUNNER_ALLOW_WEAK_LIMITS")]
    allow_weak_limits: bool,
    /// Execute programs without any sandbox where none can be made: they can do whatever this user can
    #[arg(long)]
    unsafe_no_sandbox: bool,
    /// The Docker engine's socket, for --isolation docker
    #[arg(long, env = "PYRUNNER_DOCKER_SOCKET", value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Executions at the same time
    #[arg(long, env = "PYRUNNER_CONCURRENCY", default_value_t = 64, value_parser = some::<usize>(), value_name = "N")]
    concurrency: usize,
    /// Executions of one client at the same time [default: half of --concurrency]
    #[arg(long, env = "PYRUNNER_CLIENT_CONCURRENCY", value_parser = some::<usize>(), value_name = "N")]
    client_concurrency: Option<usize>,
    /// Executions that wait for their turn; more are refused
    #[arg(long, env = "PYRUNNER_QUEUE", default_value_t = 256, value_name = "N")]
    queue: usize,
    /// Executions of one client that wait
    #[arg(long, env = "PYRUNNER_CLIENT_QUEUE", default_value_t = 64, value_name = "N")]
    client_queue: usize,
    /// How long one waits
    #[arg(long, env = "PYRUNNER_PATIENCE", default_value = "10s", value_parser = duration, value_name = "TIME")]
    patience: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Who may call")]
struct AccessArguments {
    /// Whether whoever has no key may execute
    #[arg(long, env = "PYRUNNER_ANONYMOUS", default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
    anonymous: bool,
    /// Calls an hour of a client without a key; 0: as many as it likes
    #[arg(long, env = "PYRUNNER_RATE", default_value_t = 100, value_name = "N")]
    rate: u32,
    /// Networks of proxies whose X-Forwarded-For is believed
    #[arg(long, env = "PYRUNNER_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, value_name = "CIDR,…")]
    trusted_proxies: Vec<IpNet>,
    /// Names that a server without keys on a loopback address is called by, beside localhost; * is any
    #[arg(long, env = "PYRUNNER_HOSTS", value_delimiter = ',', value_name = "NAME,…")]
    hosts: Vec<String>,
    /// Origins whose pages may call, beside the server's own
    #[arg(long, env = "PYRUNNER_ORIGINS", value_delimiter = ',', value_name = "URL,…")]
    origins: Vec<String>,
    /// Private networks that callbacks may go to
    #[arg(long, env = "PYRUNNER_CALLBACK_NETWORKS", value_delimiter = ',', value_parser = network, value_name = "CIDR,…")]
    callback_networks: Vec<IpNet>,
    /// Modules that programs may not import: a policy to tell people early, not a protection
    #[arg(long, env = "PYRUNNER_FORBID_IMPORTS", value_delimiter = ',', value_name = "MODULE,…")]
    forbid_imports: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "History and jobs (the database is SQLite in --state, or DATABASE_URL)")]
struct HistoryArguments {
    /// Whether executions are written down: relaxed drops and counts what the database cannot keep up with, strict answers
    /// when it is on the disk
    #[arg(long, env = "PYRUNNER_HISTORY", default_value = "relaxed", value_name = "off|relaxed|strict")]
    history: HistoryArgument,
    /// How long executions are kept
    #[arg(long, env = "PYRUNNER_HISTORY_AGE", default_value = "30d", value_parser = duration, value_name = "TIME")]
    history_age: Duration,
    /// How many executions are kept
    #[arg(long, env = "PYRUNNER_HISTORY_RECORDS", default_value_t = 1_000_000, value_name = "N")]
    history_records: u64,
    /// How much of them is kept
    #[arg(long, env = "PYRUNNER_HISTORY_SIZE", default_value = "2GiB", value_parser = bytes, value_name = "SIZE")]
    history_size: u64,
    /// How long ended jobs are kept
    #[arg(long, env = "PYRUNNER_JOB_AGE", default_value = "7d", value_parser = duration, value_name = "TIME")]
    job_age: Duration,
    /// Jobs at the same time; more wait
    #[arg(long, env = "PYRUNNER_JOBS", default_value_t = 4, value_parser = some::<usize>(), value_name = "N")]
    jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HistoryArgument {
    Off,
    Relaxed,
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PartArgument {
    Supervisor,
    Sandbox,
    Api,
}

/// Why the settings are none.
#[derive(Debug, thiserror::Error)]
enum SettingsError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Homeless(#[from] Homeless),
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("{text:?} is no network such as 10.0.0.0/8 and no address"))
}

pub(crate) fn run(serve: &Serve) -> ExitCode {
    output::start_log();
    match serve.part {
        PartArgument::Supervisor => supervise(serve),
        PartArgument::Sandbox => sandbox(serve),
        PartArgument::Api => api(serve),
    }
}

fn supervise(serve: &Serve) -> ExitCode {
    let settings = match serve.settings() {
        Ok(settings) => settings,
        Err(error) => return output::failure(&error, None),
    };
    sweep();
    let again = Again { arguments: std::env::args_os().skip(1).collect(), part };
    let ready = |address| output::note(format_args!("pyrunner listens on http://{address}"));
    match supervisor::run(&settings, &again, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = match &error {
                SuperviseError::Directory { path, .. } if *path == settings.state_dir => {
                    Some("`--state` names another directory")
                }
                SuperviseError::Listen { .. } => Some("`--listen` names another address"),
                SuperviseError::NeverUp { .. } => Some("RUST_LOG=debug says more"),
                _ => None,
            };
            output::failure(&error, hint)
        }
    }
}

fn part(name: PartName, place: &Place) -> Vec<OsString> {
    let part = if name == PartName::Daemon { "sandbox" } else { "api" };
    let port = format!("--bound-port={}", place.number());
    vec![format!("--part={part}").into(), port.into(), "--place".into(), place.directory().into()]
}

fn sandbox(serve: &Serve) -> ExitCode {
    if supervisor::end_with_parent(Signal::TERM).is_err() {
        return ExitCode::FAILURE;
    }
    let options = match serve.daemon_options() {
        Ok(options) => options,
        Err(error) => {
            output::failure(&error, Some("`--python` names an interpreter"));
            return ExitCode::from(HOPELESS);
        }
    };
    match daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hopeless = matches!(error, DaemonError::Missing { .. } | DaemonError::Seccomp(_));
            output::failure(&error, None);
            if matches!(error, DaemonError::Missing { .. }) {
                output::note(super::doctor::WAYS_OUT);
            }
            if hopeless { ExitCode::from(HOPELESS) } else { ExitCode::FAILURE }
        }
    }
}

fn api(serve: &Serve) -> ExitCode {
    if supervisor::end_with_parent(Signal::TERM).is_err() {
        return ExitCode::FAILURE;
    }
    let settings = match serve.settings() {
        Ok(settings) => settings,
        Err(error) => return output::failure(&error, None),
    };
    match server::run(settings, serve.place().socket()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hopeless = error.is_hopeless();
            output::failure(&error, None);
            if hopeless { ExitCode::from(HOPELESS) } else { ExitCode::FAILURE }
        }
    }
}

impl LimitArguments {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            wall: self.wall,
            cpu: self.cpu,
            memory_bytes: self.memory,
            pids: self.pids,
            output_bytes: self.output,
            cpu_milli: (self.cores * 1000.0).round().clamp(1.0, 1e6) as u32,
        }
    }

    /// The same limits, for another process to read.
    pub(super) fn as_typed(&self) -> [String; 6] {
        [
            format!("--wall={}ms", self.wall.as_millis()),
            format!("--cpu={}ms", self.cpu.as_millis()),
            format!("--memory={}", self.memory),
            format!("--pids={}", self.pids),
            format!("--output={}", self.output),
            format!("--cores={}", self.cores),
        ]
    }
}

/// An image that cannot be used, and why.
type Broken = (String, String);

impl Serve {
    fn place(&self) -> Place {
        match &self.place {
            Some(directory) => Place::at(self.bound_port, directory.clone()),
            None => Place::of(u16::try_from(self.bound_port).unwrap_or_default()),
        }
    }

    fn listen(&self) -> SocketAddr {
        match (self.listen, self.port) {
            (Some(address), _) => address,
            (None, Some(port)) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT)),
        }
    }

    fn settings(&self) -> Result<Settings, SettingsError> {
        let (sandbox, access) = (&self.sandbox, &self.access);
        let queue = QueueLimits {
            running: sandbox.concurrency,
            running_per_client: sandbox.client_concurrency.unwrap_or(sandbox.concurrency.div_ceil(2)),
            waiting: sandbox.queue,
            waiting_per_client: sandbox.client_queue,
            patience: sandbox.patience,
        };
        let state_dir = self.state.clone().map_or_else(super::settings::state_dir, Ok)?;
        Ok(Settings {
            listen: self.listen(),
            database: DatabaseUrl::new(database(&state_dir)),
            state_dir,
            user: User::find(self.user.as_deref())?,
            limits: self.limits.limits(),
            default_image: DEFAULT_IMAGE.to_owned(),
            queue,
            rate: access.rate,
            anonymous: access.anonymous,
            trusted_proxies: access.trusted_proxies.clone(),
            hosts: access.hosts.clone(),
            origins: access.origins.clone(),
            callback_networks: access.callback_networks.clone(),
            most_body: usize::try_from(self.max_body).unwrap_or(usize::MAX),
            body_deadline: self.body_timeout,
            connections: self.connections,
            drain: self.drain,
            threads: self.threads,
            history: match self.history.history {
                HistoryArgument::Off => HistoryMode::Off,
                HistoryArgument::Relaxed => HistoryMode::Relaxed,
                HistoryArgument::Strict => HistoryMode::Strict,
            },
            retention: Policy {
                history_age: Some(self.history.history_age),
                history_records: Some(self.history.history_records),
                history_bytes: Some(self.history.history_size),
                job_age: Some(self.history.job_age),
            },
            job_workers: self.history.jobs,
            forbidden_imports: access.forbid_imports.clone(),
        })
    }

    /// Those that were built, and the machine's own Python as the default if none of them is. Then those that cannot be used, with
    /// the reason: whoever asks for one is told.
    fn images(&self) -> Result<(Vec<Image>, Vec<Broken>), ImageError> {
        let sandbox = &self.sandbox;
        let given = sandbox.python.is_some() || !sandbox.packages.is_empty() || !sandbox.preload.is_empty();
        let opened = super::image::library(sandbox.images.as_deref())
            .map_err(|error| error.to_string())
            .and_then(|library| library.open_all(sandbox.slots).map_err(|error| error.to_string()));
        let (mut images, broken) = opened.unwrap_or_else(|error| {
            tracing::warn!(error, "there are no images but the machine's own");
            Default::default()
        });
        for (name, why) in &broken {
            tracing::warn!(image = name, why, "an image cannot be used");
        }
        if given {
            images.retain(|image| image.name != DEFAULT_IMAGE);
        }
        if !images.iter().any(|image| image.name == DEFAULT_IMAGE) {
            let mut image = Image::find(DEFAULT_IMAGE, Source::Host { python: sandbox.python.clone() }, sandbox.slots)?;
            image.preload.clone_from(&sandbox.preload);
            image.packages.clone_from(&sandbox.packages);
            images.insert(0, image);
        }
        Ok((images, broken))
    }

    fn daemon_options(&self) -> Result<daemon::Options, ImageError> {
        let place = self.place();
        let (images, broken) = self.images()?;
        let mut options = daemon::Options::new(place.socket(), images);
        options.broken = broken;
        options.limits = self.limits.limits();
        options.most_running = u32::try_from(self.sandbox.concurrency).unwrap_or(u32::MAX);
        options.patience = self.sandbox.patience;
        options.first_uid = place.first_uid();
        options.isolation = self.sandbox.isolation;
        options.permitted = Permitted { weak_limits: self.sandbox.allow_weak_limits, no_sandbox: self.sandbox.unsafe_no_sandbox };
        options.docker.clone_from(&self.sandbox.docker_socket);
        options.client_uid = User::find(self.user.as_deref()).ok().map(|user| user.uid);
        Ok(options)
    }
}

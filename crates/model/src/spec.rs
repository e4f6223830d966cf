//! What an app is, fully resolved: the manifest with every default filled in. Releases keep a copy of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use coracle_proxy_table::Middleware;
use serde::{Deserialize, Serialize};

use crate::adopted::Adopted;
use crate::command::CommandLine;
use crate::container::ContainerSettings;
use crate::names::{AppName, EnvName, HostPattern, ProcessName, VolumeName};
use crate::preview::PreviewPolicy;
use crate::quantity::{ByteSize, Cpus, Span};
use crate::registry::RegistrySpec;
use crate::stack::{Dependency, Exposure, ProcessSource};

/// What runs the instances of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Supervised Linux processes; needs nothing installed.
    Process,
    /// Docker Engine, or Podman behind the same interface.
    Docker,
}

impl EngineKind {
    /// The word for it in the manifest and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EngineKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "process" => Ok(Self::Process),
            "docker" => Ok(Self::Docker),
            _ => Err(format!("engine {text:?} is not known; use \"docker\" or \"process\"")),
        }
    }
}

/// An app, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Its name.
    pub app: AppName,
    /// The engine the manifest asks for; `None` leaves the choice to the server.
    pub engine: Option<EngineKind>,
    /// How it is built.
    pub build: BuildSpec,
    /// How it is reached.
    pub http: HttpSpec,
    /// How a release replaces another.
    pub deploy: DeployPolicy,
    /// What it runs, as far as the manifest says; the build may add processes that it found (Procfile, image).
    pub processes: BTreeMap<ProcessName, ProcessSpec>,
    /// Its stateful services: created once, kept across releases, changed only on purpose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ProcessName, ProcessSpec>,
    /// Whether its stateful services are all there is of it: no process, and nothing that is built for the app as a whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub services_only: bool,
    /// Plain environment variables from the manifest; `config set` overrides them.
    pub env: BTreeMap<EnvName, String>,
    /// Names that must be set by `config set` or `secrets set` before a deploy.
    pub secrets: Vec<EnvName>,
    /// Where the images of its releases are pushed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySpec>,
    /// What it has taken over from a compose project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Box<Adopted>>,
    /// Which other branches get apps of their own, if any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previews: Option<Box<PreviewPolicy>>,
}

impl AppSpec {
    /// An app about which nothing is known but its name.
    pub fn named(app: AppName) -> Self {
        Self {
            http: HttpSpec::default_for(&app),
            app,
            engine: None,
            build: BuildSpec::default(),
            deploy: DeployPolicy::default(),
            processes: BTreeMap::new(),
            services: BTreeMap::new(),
            services_only: false,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            registry: None,
            adopted: None,
            previews: None,
        }
    }

    /// Whether any process writes to a volume, which forbids that two releases run at once.
    pub fn has_writable_volume(&self) -> bool {
        self.processes.values().any(ProcessSpec::keeps_data)
    }

    /// The strategy a deployment will use, and why.
    pub fn strategy(&self) -> (Strategy, &'static str) {
        match self.deploy.strategy {
            Some(strategy) => (strategy, "the manifest asks for it"),
            None if self.has_writable_volume() => {
                (Strategy::Recreate, "a process has a writable volume, which two releases must not share")
            }
            None if self.processes.values().any(|process| process.container.holds_host_port()) => {
                (Strategy::Recreate, "a process keeps a port of the machine to itself, which two releases cannot share")
            }
            None => (Strategy::BlueGreen, "no process has a writable volume"),
        }
    }
}

/// How the app is built: the `[build]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Which way to build; `Auto` looks at the tree.
    pub builder: BuilderChoice,
    /// The Dockerfile, relative to the root of the tree. `None`: `Dockerfile`, if there is one.
    pub dockerfile: Option<String>,
    /// The stage of the Dockerfile to build.
    pub target: Option<String>,
    /// Build arguments. They end up in the image's history, so they must not be secret.
    pub args: BTreeMap<String, String>,
    /// Names of the configuration whose values `RUN --mount=type=secret,id=NAME` sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<EnvName>,
    /// A ready image to run instead of building one.
    pub image: Option<String>,
    /// The folder that a static site is served from, relative to the root. `None`: `public`, `dist`, `_site` or the root.
    pub root: Option<String>,
    /// Memory that a build may use. `None`: half of the machine.
    pub memory: Option<ByteSize>,
    /// Processor time that a build may use. `None`: half of the machine's cores, at least half a core.
    pub cpus: Option<Cpus>,
}

/// The `builder` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuilderChoice {
    /// Dockerfile (docker engine), else Procfile and detection.
    #[default]
    Auto,
    /// The Dockerfile, or fail.
    Dockerfile,
    /// Files served as they are, by Coracle itself.
    Static,
}

/// How the app is reached: the `[http]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSpec {
    /// The hosts whose requests it gets. Default: `<app>.localhost`.
    pub hosts: Vec<HostPattern>,
    /// Only requests whose path begins with this, by whole segments; `/` is every request.
    pub path_prefix: String,
    /// Whether the prefix is taken off before the app sees the path.
    pub strip_prefix: bool,
    /// The port the app listens on inside its container. `None`: the image's exposed port, else 8080. It is told as `$PORT`.
    pub port: Option<u16>,
    /// A path that answers 2xx or 3xx when the app is ready. `None`: the image's HEALTHCHECK, else any answer to
    /// `OPTIONS /`.
    pub health: Option<String>,
    /// Whether it is reached over TLS as well, on servers that listen for it.
    #[serde(default)]
    pub tls: TlsMode,
    /// Whether requests without TLS are sent on to `https`. `None`: if its certificates come by ACME.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// The one of its hosts that requests to the others are sent on to.
    #[serde(default)]
    pub canonical_host: Option<HostPattern>,
    /// What else is done with requests on their way to it, in this order: after redirects, before the prefix is taken off.
    #[serde(default)]
    pub middlewares: Vec<NamedMiddleware>,
}

/// A middleware that an app's manifest has in `[middlewares]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedMiddleware {
    /// What it is called there.
    pub name: String,
    /// What it does. It names no file of the server's machine and no service.
    pub middleware: Middleware,
}

/// Where an app's certificates come from: the `tls` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// By ACME for public names if the server is set up for it, from the server's own authority for `localhost` and below.
    #[default]
    Auto,
    /// By ACME.
    Acme,
    /// From the server's own authority, which browsers have to be told to trust.
    Local,
    /// Not reached over TLS.
    Off,
}

/// What happens to requests without TLS: the `redirect` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// They are sent on to `https`.
    Https,
    /// They are answered.
    Off,
}

impl HttpSpec {
    /// Reached at `<app>.localhost`.
    pub fn default_for(app: &AppName) -> Self {
        let host = format!("{app}.localhost").parse().unwrap_or_else(|_| unreachable!("an app name is a label"));
        Self {
            hosts: vec![host],
            path_prefix: "/".to_owned(),
            strip_prefix: false,
            port: None,
            health: None,
            tls: TlsMode::Auto,
            redirect: None,
            canonical_host: None,
            middlewares: Vec::new(),
        }
    }
}

/// How a release replaces another: the `[deploy]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPolicy {
    /// The strategy; `None`: chosen by whether there is a writable volume.
    pub strategy: Option<Strategy>,
    /// Run to completion with the new release's code and configuration before any of its instances starts.
    pub release_command: Option<CommandLine>,
    /// How long requests on old instances may take to end.
    pub drain: Span,
    /// How long the new instances may take to become healthy; also the limit of the release command.
    pub timeout: Span,
    /// How long new instances are watched after the switch, while the old ones still stand ready to take over again.
    pub watch: Span,
    /// How long an instance may take to end after SIGTERM before it is killed.
    pub grace: Span,
    /// How many releases to keep.
    pub keep: u32,
}

impl Default for DeployPolicy {
    fn default() -> Self {
        Self {
            strategy: None,
            release_command: None,
            drain: Span::seconds(30),
            timeout: Span::seconds(60),
            watch: Span::seconds(2),
            grace: Span::seconds(10),
            keep: 10,
        }
    }
}

/// How the new release takes the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// New beside old, switch, drain.
    BlueGreen,
    /// Stop old, start new, while the proxy holds requests.
    Recreate,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BlueGreen => "blue-green",
            Self::Recreate => "recreate",
        })
    }
}

/// One kind of process: a `[processes.NAME]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// What to run. `None`: what the Procfile, the detection or the image says.
    pub command: Option<CommandLine>,
    /// How many instances, until `ps scale` says otherwise.
    pub replicas: u16,
    /// Limits of each instance.
    pub limits: Limits,
    /// Directories that outlive the release.
    pub volumes: Vec<VolumeMount>,
    /// What it is made from. `None`: what the app as a whole is built into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ProcessSource>,
    /// What it asks of its container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub container: Box<ContainerSettings>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<ProcessName, Dependency>,
    /// Who sends requests to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exposure: Exposure,
    /// Whether it runs to its end once per release, before what waits for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub task: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for ProcessSpec {
    fn default() -> Self {
        Self {
            command: None,
            replicas: 1,
            limits: Limits::default(),
            volumes: Vec::new(),
            source: None,
            container: Box::default(),
            depends_on: BTreeMap::new(),
            exposure: Exposure::default(),
            task: false,
        }
    }
}

impl ProcessSpec {
    /// Whether it writes to what outlives it, so that no second one may run beside it.
    pub fn keeps_data(&self) -> bool {
        self.volumes.iter().any(|volume| !volume.read_only) || self.container.writes_to_kept_directory()
    }

    /// The port on which it receives requests, if that is said; `app` is how the app as a whole is reached.
    pub fn port(&self, app: &HttpSpec) -> Option<u16> {
        match &self.exposure {
            Exposure::ByName => app.port,
            Exposure::Http(http) => http.port,
            Exposure::Labels { port } => *port,
            Exposure::Hidden | Exposure::Inside { .. } => None,
        }
    }

    /// Whether it receives requests under this name.
    pub fn serves(&self, name: &ProcessName) -> bool {
        match self.exposure {
            Exposure::ByName => name.is_web(),
            Exposure::Hidden | Exposure::Inside { .. } => false,
            Exposure::Http(_) | Exposure::Labels { .. } => true,
        }
    }
}

/// What one instance may use at most; `None` is no limit, except for processes, which always have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Resident memory; beyond it the kernel kills the instance.
    pub memory: Option<ByteSize>,
    /// Processor time.
    pub cpus: Option<Cpus>,
    /// Processes and threads.
    pub pids: u32,
    /// Whether the instance may divide what it has among processes of its own: its cgroup is delegated to it. Only as a process
    /// of the machine.
    #[serde(default)]
    pub delegate_cgroup: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: None, cpus: None, pids: 4096, delegate_cgroup: false }
    }
}

/// A volume and where the process sees it. Written `data:/var/lib/shop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume.
    pub name: VolumeName,
    /// The absolute path inside the instance.
    pub path: String,
    /// Whether it cannot be written to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// The name of a volume on the machine that somebody else made and removes; `None`: the app's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
}

impl FromStr for VolumeMount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once(':').ok_or_else(|| format!("volume {text:?} must be written name:/path"))?;
        let name = name.parse().map_err(|error: crate::names::NameError| error.to_string())?;
        let clean = path.starts_with('/')
            && path.len() > 1
            && !path.contains(':')
            && path.split('/').all(|piece| piece != ".." && piece != ".");
        if clean {
            Ok(Self { name, path: path.to_owned(), read_only: false, external: None })
        } else {
            Err(format!("volume path {path:?} must be absolute and must not contain `..`"))
        }
    }
}

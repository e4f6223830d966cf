//! What a process asks of its container beyond a program, limits and volumes: the settings that compose files know. The
//! default is a container as Coracle makes it for an app of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::names::EnvName;
use crate::quantity::{ByteSize, Span};

/// A text that may hold a password: it is kept with the release, sealed, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateText(String);

impl PrivateText {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<private>")
    }
}

impl From<&str> for PrivateText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// The settings of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// Which hardening it begins with.
    pub confinement: Confinement,
    /// Takes the place of the image's ENTRYPOINT; an empty list leaves none.
    pub entrypoint: Option<Vec<String>>,
    /// Takes the place of the image's CMD; an empty list leaves none. Taken as it is: nothing in it is expanded.
    pub arguments: Option<Vec<String>>,
    /// Its own variables, over those of the app and the configuration. Names are the container's own affair
    /// (`discovery.type`), so they are not held to the shell's rule.
    pub env: BTreeMap<String, PrivateText>,
    /// Names of the app's configuration that a stateful service sees. Processes see all of it.
    pub config: Vec<EnvName>,
    /// `user`, `user:group`, names or numbers.
    pub user: Option<String>,
    /// The directory it starts in.
    pub working_dir: Option<String>,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Whether it is not kept apart from the machine at all.
    pub privileged: bool,
    /// Capabilities on top.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// As Docker takes them: `no-new-privileges`, `seccomp=…`, `apparmor=…`.
    pub security_opt: Vec<String>,
    /// By name without `RLIMIT_`: `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Size of `/dev/shm`.
    pub shm_size: Option<ByteSize>,
    /// Whether a small init reaps and passes signals on. `None`: as the confinement has it.
    pub init: Option<bool>,
    /// The signal that asks it to end: `SIGQUIT`. `None`: what the image says, else SIGTERM.
    pub stop_signal: Option<String>,
    /// How long it may take to end. `None`: `deploy.grace`.
    pub stop_grace_period: Option<Span>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Paths at which it keeps what it writes for as long as the container lives, outside of its own file system.
    pub anonymous_volumes: Vec<String>,
    /// Files and directories of the machine or the source tree that it sees.
    pub binds: Vec<BindMount>,
    /// Files whose content comes with the release or from the configuration.
    pub files: Vec<FileMount>,
    /// What it calls itself.
    pub hostname: Option<String>,
    /// The domain it believes to be in.
    pub domainname: Option<String>,
    /// Further names under which others of its release reach it.
    pub aliases: Vec<String>,
    /// Lines of its hosts file: `name:address`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains that names are looked up in.
    pub dns_search: Vec<String>,
    /// Options of the resolver.
    pub dns_opt: Vec<String>,
    /// Labels for others to read. Coracle's own cannot be set.
    pub labels: BTreeMap<String, String>,
    /// Its health check. `None`: the image's own.
    pub health: Option<HealthCheck>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Ports of the machine that lead to it.
    pub ports: Vec<PublishedPort>,
    /// Networks that exist outside of Coracle.
    pub networks: Vec<ExternalNetwork>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Devices, as Docker takes them: `/dev/x:/dev/y:rwm`.
    pub devices: Vec<String>,
    /// Groups on top.
    pub group_add: Vec<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin_open: bool,
    /// Where its output goes. `None`: to files of 10 MB that Coracle reads.
    pub logging: Option<Logging>,
    /// Memory that it is left when the machine runs short.
    pub memory_reservation: Option<ByteSize>,
    /// Memory and swap together; as Docker takes it, -1 is no limit.
    pub memory_swap: Option<i64>,
    /// Weight of its processor time among others; 1024 is usual.
    pub cpu_shares: Option<i64>,
    /// The processors it may run on: `0-3`.
    pub cpuset: Option<String>,
    /// How readily the kernel kills it for memory, -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// `host`, or `None` for its own.
    pub pid: Option<String>,
    /// `host`, `shareable`, `private`.
    pub ipc: Option<String>,
    /// `host`, or `None` for the engine's own choice.
    pub userns: Option<String>,
    /// The program that runs it: `runc`.
    pub runtime: Option<String>,
}

impl ContainerSettings {
    /// The names of everything that is not as the default has it, for engines that cannot honour it.
    pub fn asked_for(&self) -> Vec<&'static str> {
        let default = Self::default();
        let mut names = Vec::new();
        macro_rules! differs {
            ($($field:ident),+ $(,)?) => { $(if self.$field != default.$field { names.push(stringify!($field)); })+ };
        }
        differs!(
            entrypoint,
            arguments,
            env,
            config,
            user,
            working_dir,
            read_only,
            privileged,
            cap_add,
            cap_drop,
            security_opt,
            ulimits,
            shm_size,
            init,
            stop_signal,
            stop_grace_period,
            tmpfs,
            anonymous_volumes,
            binds,
            files,
            hostname,
            domainname,
            aliases,
            extra_hosts,
            dns,
            dns_search,
            dns_opt,
            labels,
            health,
            restart,
            ports,
            networks,
            sysctls,
            devices,
            group_add,
            tty,
            stdin_open,
            logging,
            memory_reservation,
            memory_swap,
            cpu_shares,
            cpuset,
            oom_score_adj,
            pid,
            ipc,
            userns,
            runtime,
        );
        names
    }

    /// Whether it keeps a port of the machine to itself, so that no second one of its kind can run.
    pub fn holds_host_port(&self) -> bool {
        self.ports.iter().any(|port| port.host.is_some())
    }

    /// Whether it writes to directories that outlive it.
    pub fn writes_to_kept_directory(&self) -> bool {
        self.binds.iter().any(|bind| !bind.read_only && !matches!(bind.source, BindSource::Tree(_)))
    }
}

/// What a container may do before anything is said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// As Coracle holds containers: fewer capabilities, no new privileges, an init.
    #[default]
    Tight,
    /// As Docker holds them: what a compose file counts on.
    Engine,
}

/// A limit as `setrlimit` takes it; -1 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is enforced.
    pub soft: i64,
    /// What the process may raise it to.
    pub hard: i64,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where.
    pub path: String,
    /// Options of the mount: `size=64m,mode=1777`.
    #[serde(default)]
    pub options: String,
}

/// A directory or file seen inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// What.
    pub source: BindSource,
    /// Where, absolute.
    pub path: String,
    /// Whether it cannot be written to.
    #[serde(default)]
    pub read_only: bool,
    /// `rprivate`, `rshared`, `rslave` and so on.
    #[serde(default)]
    pub propagation: Option<String>,
}

/// Where a bind mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindSource {
    /// A path of the source tree, as the release was deployed with it. What is written there goes with the release.
    Tree(String),
    /// A directory that the server keeps for the app, under this path; it outlives releases and begins as the tree has it.
    Kept(String),
    /// An absolute path of the machine that the engine runs on.
    Host(String),
}

/// A file that is put into the container before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Where, absolute.
    pub path: String,
    /// What stands in it.
    pub content: FileContent,
    /// Its owner's number.
    #[serde(default)]
    pub uid: u32,
    /// Its group's number.
    #[serde(default)]
    pub gid: u32,
    /// Its permissions: 0o444.
    pub mode: u32,
}

/// What stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileContent {
    /// This text.
    Inline(PrivateText),
    /// The value of this name of the app's configuration.
    Config(EnvName),
}

/// How a container is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What to run.
    pub test: HealthTest,
    /// Time between checks. `None`: 30 s.
    #[serde(default)]
    pub interval: Option<Span>,
    /// How long one may take. `None`: 30 s.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// How many must fail in a row. `None`: 3.
    #[serde(default)]
    pub retries: Option<u32>,
    /// How long failures do not count.
    #[serde(default)]
    pub start_period: Option<Span>,
    /// Time between checks during that time.
    #[serde(default)]
    pub start_interval: Option<Span>,
}

impl HealthCheck {
    /// Nothing is asked, whatever the image says.
    pub fn none() -> Self {
        let (interval, timeout, retries, start_period, start_interval) = (None, None, None, None, None);
        Self { test: HealthTest::Disabled, interval, timeout, retries, start_period, start_interval }
    }
}

/// The program of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthTest {
    /// There is none, not even the image's.
    Disabled,
    /// The image's own, with other times.
    OfImage,
    /// An argument vector.
    Exec(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}

impl HealthTest {
    /// What to run inside the container; `None` where that is not known here.
    pub fn argv(&self) -> Option<Vec<String>> {
        match self {
            Self::Exec(argv) => Some(argv.clone()),
            Self::Shell(line) => Some(["/bin/sh", "-c", line].map(str::to_owned).to_vec()),
            Self::Disabled | Self::OfImage => None,
        }
    }
}

/// What happens when an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again if it failed, so many times in a row at most.
    OnFailure(Option<u32>),
    /// It has ended.
    Never,
}

/// A port of the machine that leads into a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port inside.
    pub target: u16,
    /// By which protocol.
    #[serde(default)]
    pub protocol: Transport,
    /// The port of the machine; `None` leaves the choice to the engine.
    #[serde(default)]
    pub host: Option<u16>,
    /// The machine's address. `None`: loopback.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A network that somebody else made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalNetwork {
    /// Its name on the machine.
    pub name: String,
    /// Names under which others in it reach the container.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The address it wants there.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// The driver: `json-file`, `journald`.
    pub driver: String,
    /// Its options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_asked_for_is_named_and_the_default_asks_for_nothing() {
        assert!(ContainerSettings::default().asked_for().is_empty());
        let settings = ContainerSettings { read_only: true, cap_add: vec!["NET_ADMIN".into()], ..Default::default() };
        assert_eq!(settings.asked_for(), ["read_only", "cap_add"]);
        // What is not set takes no room in a stored release, and nothing older is missing in it.
        let empty: ContainerSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, ContainerSettings::default());
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let mut settings = ContainerSettings::default();
        settings.env.insert("POSTGRES_PASSWORD".into(), "hunter2".into());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}

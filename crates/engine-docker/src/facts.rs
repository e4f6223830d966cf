//! What kind of engine this is.

use bollard::models::SystemInfo;
use coracle_engine::Isolation;

use crate::socket::Socket;
use crate::wire::Ping;

/// Who made the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Docker Engine.
    Docker,
    /// Podman.
    Podman,
}

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where it listens: `unix:///var/run/docker.sock`.
    pub socket: String,
    /// Who made it.
    pub flavour: Flavour,
    /// Its own version: `20.10.24`.
    pub version: String,
    /// The version of the interface that is spoken with it: `1.41`.
    pub api_version: String,
    /// Whether it offers BuildKit as its builder.
    pub buildkit: bool,
    /// Whether it runs without root.
    pub rootless: bool,
    /// The cgroup version: 1 or 2; 0 if it does not say.
    pub cgroup_version: u8,
    /// Who manages cgroups: `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// How it stores layers: `overlay2`.
    pub storage_driver: String,
    /// Where it keeps its data.
    pub data_root: String,
    /// Whether containers can be reached by their own addresses from this machine.
    pub containers_reachable: bool,
    /// Whether it can limit memory, processor time and processes.
    pub limits: Limited,
    /// Processors of the engine's machine.
    pub cpus: u32,
    /// Its kind of processor, in Go's words: `amd64`.
    pub architecture: String,
}

/// Which limits an engine can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Memory.
    pub memory: bool,
    /// Swap, so that the memory limit cannot be evaded.
    pub swap: bool,
    /// Processor time.
    pub cpus: bool,
    /// Number of processes.
    pub pids: bool,
}

impl Facts {
    pub(crate) fn new(socket: &Socket, ping: &Ping, info: SystemInfo) -> Self {
        let podman = ping.header("libpod-api-version").is_some();
        let options = info.security_options.unwrap_or_default();
        let rootless = options.iter().any(|option| option.contains("rootless"));
        // Docker Desktop runs its containers in a virtual machine whose bridges this machine does not have.
        let desktop = info.operating_system.as_deref().is_some_and(|system| system.contains("Docker Desktop"));
        Self {
            socket: socket.to_string(),
            flavour: if podman { Flavour::Podman } else { Flavour::Docker },
            version: info.server_version.unwrap_or_default(),
            api_version: ping.header("api-version").unwrap_or("1.41").to_owned(),
            buildkit: ping.header("builder-version") == Some("2"),
            rootless,
            cgroup_version: match info.cgroup_version.map(|version| version.to_string()).as_deref() {
                Some("1") => 1,
                Some("2") => 2,
                _ => 0,
            },
            cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            data_root: info.docker_root_dir.unwrap_or_default(),
            containers_reachable: matches!(socket, Socket::Unix(_)) && !rootless && !desktop && cfg!(target_os = "linux"),
            limits: Limited {
                memory: info.memory_limit.unwrap_or(podman),
                swap: info.swap_limit.unwrap_or(podman),
                cpus: info.cpu_cfs_quota.unwrap_or(podman),
                pids: info.pids_limit.unwrap_or(podman),
            },
            cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1).max(1),
            architecture: architecture(&info.architecture.unwrap_or_default()).to_owned(),
        }
    }

    /// Whether the interface is at least version 1.`minor`.
    pub(crate) fn api_at_least(&self, minor: usize) -> bool {
        api_minor(&self.api_version) >= minor
    }

    /// Whether BuildKit is there, offered or not: Docker 20.10 has it, but offers the classic builder.
    pub(crate) fn has_buildkit(&self) -> bool {
        self.buildkit || (self.flavour == Flavour::Docker && self.api_at_least(40))
    }

    /// What its images are made for, as registries write it.
    pub(crate) fn platform(&self) -> String {
        format!("linux/{}", self.architecture)
    }

    /// What keeps containers apart here.
    pub(crate) fn isolation(&self) -> Isolation {
        let mut isolation = Isolation {
            enforced: [
                "own file system, processes and network (namespaces)",
                "no new privileges",
                "fewer capabilities than Docker's default",
                "system calls filtered (seccomp)",
                "published nowhere but on loopback or a network of the release's own",
            ]
            .map(str::to_owned)
            .to_vec(),
            missing: Vec::new(),
        };
        let version = self.cgroup_version;
        for (what, can) in [
            ("memory limit", self.limits.memory),
            ("no swap beyond the memory limit", self.limits.swap),
            ("processor limit", self.limits.cpus),
            ("limit of processes", self.limits.pids),
        ] {
            if can {
                isolation.enforced.push(format!("{what} (cgroup v{version})"));
            } else {
                isolation.missing.push(format!("{what}: the engine cannot set it (cgroup v{version}, {})", self.cgroup_driver));
            }
        }
        if self.rootless {
            isolation.enforced.push("root inside is an ordinary user outside (rootless engine)".to_owned());
        } else {
            isolation
                .missing
                .push("own users: root inside a container is root outside; use a USER line or a rootless engine".to_owned());
        }
        isolation
    }
}

/// The `41` of `1.41`.
pub(crate) fn api_minor(version: &str) -> usize {
    version.split_once('.').and_then(|(_, minor)| minor.parse().ok()).unwrap_or(41)
}

/// A processor in Go's words, of which `uname` has others.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

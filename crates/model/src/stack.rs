//! Apps of several parts: what each process is made from, what it waits for, who keeps data, and the order of starts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::container::{PrivateText, PublishedPort};
use crate::names::ProcessName;
use crate::spec::{AppSpec, HttpSpec, ProcessSpec};

/// What a process of its own source is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ProcessSource {
    /// A ready image. Which one that was is pinned by the release's artifact.
    Image {
        /// Its reference.
        reference: String,
        /// When it is fetched.
        #[serde(default)]
        pull: PullPolicy,
    },
    /// A part of the source tree.
    Build(Box<PartBuild>),
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// If neither the machine nor the active release has it.
    #[default]
    Missing,
    /// At every deployment.
    Always,
    /// Not at all: it must be there.
    Never,
}

/// How a part of the tree is built.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PartBuild {
    /// The folder that is sent to the builder, relative to the tree's root; `.` is all of it.
    pub context: String,
    /// The Dockerfile, relative to the context. `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments. They end up in the image's history.
    pub args: BTreeMap<String, String>,
    /// Everything else.
    pub extras: BuildExtras,
}

/// What a build asks for beyond a Dockerfile, a stage and arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildExtras {
    /// The text of the Dockerfile itself.
    pub inline: Option<String>,
    /// Further sources by the name that `COPY --from` gives them.
    pub contexts: BTreeMap<String, ContextSource>,
    /// Images whose layers may be taken for one's own.
    pub cache_from: Vec<String>,
    /// Secrets that `RUN --mount=type=secret` sees, by id.
    pub secrets: BTreeMap<String, PrivateText>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Lines of the hosts file while building: `name:address`.
    pub extra_hosts: Vec<String>,
    /// The network that steps run in: `host`, `none`.
    pub network: Option<String>,
    /// Size of `/dev/shm` of a step, in bytes.
    pub shm_size: Option<u64>,
    /// `linux/arm64`.
    pub platform: Option<String>,
    /// Whether no step is taken from the cache.
    pub no_cache: bool,
    /// Whether base images are fetched anew.
    pub pull: bool,
}

impl BuildExtras {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A further source of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextSource {
    /// A folder, relative to the tree's root.
    Folder(String),
    /// An image.
    Image(String),
    /// What another process is made into.
    Process(ProcessName),
}

/// The names under which a compose file is found, the first that exists (Compose Specification, "Compose file").
pub const COMPOSE_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// Who sends requests to a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// The process called `web` is reached as the app is, any other not at all.
    #[default]
    ByName,
    /// Nobody.
    Hidden,
    /// Other parts of the same release, on this port: a release is not ready before it takes connections.
    Inside {
        /// The port inside.
        port: u16,
    },
    /// Requests for these hosts.
    Http(Box<HttpSpec>),
    /// What its `traefik.*` labels say; this port, where they name none.
    Labels {
        /// The port inside.
        port: Option<u16>,
    },
}

/// What a process waits for before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// How far the other one must be.
    pub condition: Condition,
    /// Whether it may be missing.
    #[serde(default = "yes")]
    pub required: bool,
    /// Whether this one is started again when the other one was.
    #[serde(default)]
    pub restart: bool,
}

fn yes() -> bool {
    true
}

/// How far a process must be for those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It has been started.
    #[default]
    Started,
    /// Its health check passes.
    Healthy,
    /// It has ended with code 0.
    Completed,
}

/// What is wrong with an app of several parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// Processes wait for each other.
    #[error("{} wait for each other", names(.0))]
    Cycle(Vec<ProcessName>),
    /// A process waits for one that is not there.
    #[error("{of} depends on {on}, which does not exist")]
    Missing {
        /// Who waits.
        of: ProcessName,
        /// For whom.
        on: ProcessName,
    },
    /// Two processes want one port of the machine.
    #[error("{first} and {second} both want port {port} of this machine")]
    SamePort {
        /// The port, with its protocol.
        port: String,
        /// One.
        first: ProcessName,
        /// The other.
        second: ProcessName,
    },
    /// A process and a stateful service of one name.
    #[error("{0} is the name of a process and of a service")]
    SameName(ProcessName),
    /// A stateful service that is made from nothing.
    #[error("the service {0} names no image")]
    NoImage(ProcessName),
    /// Several instances of what can run once only.
    #[error("{0} cannot run {1} times: it keeps port {2} of this machine to itself")]
    PortOnce(ProcessName, u16, u16),
}

fn names(names: &[ProcessName]) -> String {
    names.iter().map(ProcessName::as_str).collect::<Vec<_>>().join(", ")
}

impl AppSpec {
    /// A part of the app by name: a process or a stateful service.
    pub fn part(&self, name: &ProcessName) -> Option<&ProcessSpec> {
        self.processes.get(name).or_else(|| self.services.get(name))
    }

    /// Every part, processes and stateful services.
    pub fn parts(&self) -> impl Iterator<Item = (&ProcessName, &ProcessSpec)> {
        self.processes.iter().chain(&self.services)
    }

    /// Whether every process says what it is made from, so that nothing is built for the app as a whole.
    pub fn is_stack(&self) -> bool {
        self.services_only || !self.processes.is_empty() && self.processes.values().all(|process| process.source.is_some())
    }

    /// Everything that can be said against its parts without looking at the machine.
    pub fn check_stack(&self) -> Result<(), StackError> {
        if let Some(name) = self.services.keys().find(|name| self.processes.contains_key(*name)) {
            return Err(StackError::SameName((*name).clone()));
        }
        if let Some((name, _)) = self.services.iter().find(|(_, service)| service.source.is_none()) {
            return Err(StackError::NoImage(name.clone()));
        }
        for (name, part) in self.parts() {
            if let Some(on) = part.depends_on.iter().find(|(on, how)| how.required && self.part(on).is_none()).map(|(on, _)| on) {
                return Err(StackError::Missing { of: name.clone(), on: on.clone() });
            }
            if let Some(port) = part.container.ports.iter().find_map(|port| port.host).filter(|_| part.replicas > 1) {
                return Err(StackError::PortOnce(name.clone(), part.replicas, port));
            }
        }
        self.start_order().map(drop)?;
        self.check_ports()
    }

    fn check_ports(&self) -> Result<(), StackError> {
        let mut taken: BTreeMap<u16, Vec<(&ProcessName, &PublishedPort)>> = BTreeMap::new();
        for (name, part) in self.parts() {
            for port in &part.container.ports {
                let Some(host) = port.host else { continue };
                let taken = taken.entry(host).or_default();
                if let Some((first, _)) = taken.iter().find(|(_, other)| collide(other, port)) {
                    let port = format!("{host}/{}", port.protocol);
                    return Err(StackError::SamePort { port, first: (*first).clone(), second: name.clone() });
                }
                taken.push((name, port));
            }
        }
        Ok(())
    }

    /// All parts, each after everything that it waits for: groups that may be started side by side.
    pub fn start_order(&self) -> Result<Vec<Vec<ProcessName>>, StackError> {
        // For how many a part still waits, and who waits for it.
        let mut left: BTreeMap<&ProcessName, usize> = BTreeMap::new();
        let mut awaited_by: BTreeMap<&ProcessName, Vec<&ProcessName>> = BTreeMap::new();
        for (name, part) in self.parts() {
            let on: Vec<&ProcessName> = part.depends_on.keys().filter(|on| self.part(on).is_some()).collect();
            left.insert(name, on.len());
            on.into_iter().for_each(|on| awaited_by.entry(on).or_default().push(name));
        }
        let mut free: Vec<&ProcessName> = left.iter().filter(|(_, left)| **left == 0).map(|(name, _)| *name).collect();
        let mut groups = Vec::new();
        while !free.is_empty() {
            let mut next = Vec::new();
            for name in &free {
                left.remove(name);
                for waiting in awaited_by.remove(name).into_iter().flatten() {
                    if let Some(left) = left.get_mut(waiting) {
                        *left = left.saturating_sub(1);
                        if *left == 0 {
                            next.push(waiting);
                        }
                    }
                }
            }
            next.sort();
            groups.push(free.into_iter().cloned().collect());
            free = next;
        }
        match left.is_empty() {
            true => Ok(groups),
            false => Err(StackError::Cycle(left.into_keys().cloned().collect())),
        }
    }

    /// The processes that those which receive requests need, directly or not, and these themselves. The others work in
    /// the background: two releases of them never run at once.
    pub fn needed_to_serve(&self) -> BTreeSet<ProcessName> {
        let mut needed: BTreeSet<ProcessName> =
            self.processes.iter().filter(|(name, process)| process.serves(name)).map(|(name, _)| name.clone()).collect();
        let mut waiting: Vec<ProcessName> = needed.iter().cloned().collect();
        while let Some(name) = waiting.pop() {
            for on in self.part(&name).into_iter().flat_map(|part| part.depends_on.keys()) {
                if self.processes.contains_key(on) && needed.insert(on.clone()) {
                    waiting.push(on.clone());
                }
            }
        }
        needed
    }
}

/// Whether two ports of the machine are one.
pub fn collide(one: &PublishedPort, other: &PublishedPort) -> bool {
    let everywhere = |port: &PublishedPort| port.address.is_some_and(|address| address.is_unspecified());
    let same_address = one.address == other.address || everywhere(one) || everywhere(other);
    one.host.is_some() && one.host == other.host && one.protocol == other.protocol && same_address
}

/// A port of the machine that both descriptions publish: `8000/tcp`.
pub fn shared_port(spec: &AppSpec, other: &AppSpec) -> Option<String> {
    let ports = |spec: &AppSpec| -> Vec<PublishedPort> {
        spec.parts().flat_map(|(_, part)| part.container.ports.iter().cloned()).collect()
    };
    let taken = ports(other);
    let port = ports(spec).into_iter().find(|port| taken.iter().any(|taken| collide(port, taken)))?;
    Some(format!("{}/{}", port.host.unwrap_or_default(), port.protocol))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn app(parts: &[(&str, &[&str])]) -> AppSpec {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        for (name, on) in parts {
            let wait = Dependency { condition: Condition::Started, required: true, restart: false };
            let depends_on = on.iter().map(|on| (on.parse().unwrap(), wait)).collect();
            spec.processes.insert(name.parse().unwrap(), ProcessSpec { depends_on, ..ProcessSpec::default() });
        }
        spec
    }

    fn text(groups: Vec<Vec<ProcessName>>) -> Vec<String> {
        groups.iter().map(|group| names(group)).collect()
    }

    #[test]
    fn what_is_waited_for_comes_first() {
        let spec = app(&[("web", &["api", "cache"]), ("api", &["cache"]), ("cache", &[]), ("worker", &["cache"])]);
        assert_eq!(text(spec.start_order().unwrap()), ["cache", "api, worker", "web"]);
        let needed: Vec<_> = spec.needed_to_serve().into_iter().map(String::from).collect();
        assert_eq!(needed, ["api", "cache", "web"]);
    }

    #[test]
    fn circles_and_gaps_are_told() {
        let error = app(&[("web", &["api"]), ("api", &["web"])]).check_stack().unwrap_err();
        assert_eq!(error.to_string(), "api, web wait for each other");
        let error = app(&[("web", &["db"])]).check_stack().unwrap_err();
        assert_eq!(error.to_string(), "web depends on db, which does not exist");
        let mut spec = app(&[("web", &["db"])]);
        spec.processes.values_mut().flat_map(|p| p.depends_on.values_mut()).for_each(|on| on.required = false);
        assert_eq!(spec.check_stack(), Ok(()));
    }

    #[test]
    fn a_port_of_the_machine_goes_to_one_only() {
        let mut spec = app(&[("web", &[]), ("api", &[])]);
        let port = |host, address: Option<&str>| PublishedPort {
            target: 80,
            protocol: crate::container::Transport::Tcp,
            host: Some(host),
            address: address.map(|address| address.parse().unwrap()),
        };
        let mut publish = |process: &str, port: PublishedPort| {
            spec.processes.get_mut(&process.parse::<ProcessName>().unwrap()).unwrap().container.ports = vec![port];
            spec.check_stack().map_err(|error| error.to_string())
        };
        assert_eq!(publish("web", port(8080, None)), Ok(()));
        assert_eq!(publish("api", port(8080, None)), Err("api and web both want port 8080/tcp of this machine".to_owned()));
        assert!(publish("api", port(8080, Some("0.0.0.0"))).is_err());
        assert_eq!(publish("api", port(8080, Some("127.0.0.2"))), Ok(()));
        assert_eq!(publish("api", port(8081, None)), Ok(()));
        let mut other = app(&[("web", &[])]);
        let mut shared = |wanted: PublishedPort| {
            other.processes.get_mut(&ProcessName::web()).unwrap().container.ports = vec![wanted];
            (shared_port(&other, &spec), shared_port(&spec, &other))
        };
        let taken = || Some("8081/tcp".to_owned());
        assert_eq!(shared(port(8081, Some("0.0.0.0"))), (taken(), taken()));
        assert_eq!(shared(port(8082, None)), (None, None));
    }
}

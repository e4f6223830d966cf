//! Containers, as far as routing looks at them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A container and its labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// The engine's id of it. Replicas are ordered by it.
    pub id: String,
    /// Its name, without the engine's leading slash.
    pub name: String,
    /// All its labels, those of Compose among them.
    pub labels: BTreeMap<String, String>,
    /// The ports it exposes.
    pub ports: Vec<Port>,
    /// Its address in each network it is in; none where it has none (yet).
    pub networks: BTreeMap<String, Option<IpAddr>>,
    /// What its network is.
    pub network_mode: NetworkMode,
    /// How it stands.
    pub status: Status,
    /// What its health check says; `None` if it has none.
    pub health: Option<Health>,
}

/// A port that a container exposes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Port {
    /// Its number within the container.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where on the machine it is published.
    pub bindings: Vec<Binding>,
}

/// A port of the machine that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The machine's address; `None` for all of them.
    pub ip: Option<IpAddr>,
    /// The machine's port.
    pub port: u16,
}

/// What a container's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// Networks of its own.
    #[default]
    Own,
    /// The machine's: its ports are the machine's.
    Host,
}

/// How a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Its program runs.
    #[default]
    Running,
    /// It was made and not started, has ended, is paused, …
    Other,
}

/// What a container's health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not decided yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// The labels by which Compose says what a container belongs to.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

impl Container {
    /// What its router and its service are called if labels name none: `service-project` of Compose, or the container's name;
    /// normalized.
    pub fn service_name(&self) -> String {
        let label = |name: &str| self.labels.get(name).filter(|value| !value.is_empty());
        match (label(SERVICE), label(PROJECT)) {
            (Some(service), Some(project)) => normalize(&format!("{service}_{project}")),
            _ => normalize(&self.name),
        }
    }

    /// Whether it may get requests, so far as its health check says.
    pub(crate) fn is_well(&self) -> bool {
        self.health.is_none_or(|health| health == Health::Healthy)
    }

    /// By which it is named to people, and by which replicas are ordered.
    pub(crate) fn key(&self) -> String {
        format!("{}-{}", self.service_name(), self.id)
    }
}

/// Letters and digits, joined by single hyphens where there was anything else: Traefik's `normalize`.
pub(crate) fn normalize(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

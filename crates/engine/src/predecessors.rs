//! Containers of a compose project whose place an app takes. Other containers that are not ours are looked at and never
//! touched ([`Neighbours`](crate::Neighbours)); these are stopped, and started again if it comes to nothing, because somebody
//! has asked for it by the project's name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::neighbours::ExposedPort;
use crate::runtime::Health;

/// Sees and stops the containers of compose projects.
#[async_trait]
pub trait Predecessors: Send + Sync {
    /// Every container that Compose made for a service of a project (not for a one-off), in the order of project, service and
    /// number.
    async fn list(&self) -> Result<Vec<Predecessor>, EngineError>;

    /// The volumes that Compose made for a project: as the engine calls them, by what the project's files call them.
    async fn volumes(&self, project: &str) -> Result<BTreeMap<String, String>, EngineError>;

    /// Asks a container to end, waits for `grace`, kills it, and sees to it that the engine does not start it again by itself,
    /// also after a restart of the machine. Succeeds if it does not run, and if it is gone.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError>;

    /// Starts a stopped container and gives it back the word on its restarts.
    async fn start(&self, id: &str, restart: &Restart) -> Result<(), EngineError>;

    /// Removes a stopped container; not its volumes.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;
}

/// A container of a compose project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessor {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The project (`com.docker.compose.project`).
    pub project: String,
    /// The service (`com.docker.compose.service`).
    pub service: String,
    /// Its place among the service's containers.
    pub number: u32,
    /// Where the project lies (`com.docker.compose.project.working_dir`).
    pub working_dir: Option<String>,
    /// Its files (`com.docker.compose.project.config_files`).
    pub config_files: Vec<String>,
    /// The files of variables that were named (`com.docker.compose.project.environment_file`).
    pub environment_files: Vec<String>,
    /// Whether its program runs.
    pub running: bool,
    /// What its health check says.
    pub health: Health,
    /// What it mounts.
    pub mounts: Vec<Mounted>,
    /// Its addresses, in the order of its networks' names.
    pub addresses: Vec<IpAddr>,
    /// The ports it exposes, and where.
    pub ports: Vec<ExposedPort>,
    /// When the engine starts it again.
    pub restart: Restart,
    /// How long it may take to end, if it says so.
    pub grace: Option<Duration>,
}

/// Something that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where, absolute.
    pub path: String,
    /// The volume's name; `None`: a directory or file of the machine.
    pub volume: Option<String>,
    /// Where it lies on the machine.
    pub source: String,
    /// Whether it may be written to.
    pub writable: bool,
}

/// When an engine starts a container again, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restart {
    /// `no`, `always`, `unless-stopped` or `on-failure`.
    pub policy: String,
    /// How often at most, for `on-failure`; 0: as often as it takes.
    pub times: u32,
}

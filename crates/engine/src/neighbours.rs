//! Containers that are not ours: started by other tools, and reached by requests if their labels say so. They are looked at
//! and never touched.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::EngineError;
use crate::runtime::Health;

/// Sees what else runs on an engine.
#[async_trait]
pub trait Neighbours: Send + Sync {
    /// Containers that no Coracle created and that have a label whose name begins so, whatever its case (`None`: all), in the
    /// order of their ids; those that do not run, too.
    async fn list(&self, label_prefix: Option<&str>) -> Result<Vec<Neighbour>, EngineError>;

    /// Tells that something may have changed, soon after it did. A hint, as [`Runtime::events`](crate::Runtime::events) are:
    /// whoever listens also looks on a timer. Goes on for as long as it is listened to.
    fn changes(&self) -> BoxStream<'static, Change>;

    /// Whether containers can be reached by their own addresses from this machine; otherwise only by the ports they publish.
    fn are_reachable(&self) -> bool;
}

/// Something that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The container with this id ends, or has ended. Whoever acts on it at once need not wait for the next list.
    Ending(String),
    /// Whatever else.
    Other,
}

/// A container that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The ports it exposes.
    pub ports: Vec<ExposedPort>,
    /// Its address in each of its networks, so far as it has one.
    pub networks: BTreeMap<String, Option<IpAddr>>,
    /// Whether it has the machine's own network.
    pub on_host_network: bool,
    /// Whether its program runs, is not paused, and has not been told to stop.
    pub running: bool,
    /// What its HEALTHCHECK says.
    pub health: Health,
}

/// A port that a container exposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedPort {
    /// Its number in the container.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where on the machine it is published: an address (`None` for all of them) and a port.
    pub published: Vec<(Option<IpAddr>, u16)>,
}

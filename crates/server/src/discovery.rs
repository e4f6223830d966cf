//! Discovery: containers that others started get routes if their labels say so.
//!
//! The engine is asked what there is whenever it tells that something changed, and on a timer. What its containers' labels come
//! to ([`coracle_labels`]) becomes the guests' part of the one table. Containers are looked at and never touched, and an engine
//! that does not answer is no word on what there is: what was discovered stands until it answers.

mod preview;
mod vetting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_engine::{Health, Neighbour, Neighbours};
use coracle_labels::{
    Binding, Configuration, Container, Entrance, Exposure, Kind, NetworkMode, Options, Part, Port, Problem, Status,
};
use coracle_orchestrator::HostOrchestrator;
use coracle_proxy_table::{Route, Table};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::published::Published;

pub use preview::{Preview, preview};

/// How long it is quiet after a change before it is looked at: starting a container is several changes.
const QUIET: Duration = Duration::from_millis(50);

/// After how long a change is looked at even if others go on.
const LATEST: Duration = Duration::from_millis(250);

/// How often it is looked if nothing is told: whatever was missed is seen then.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long the engine may take to tell what there is.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// What begins the labels that are read.
const PREFIX: &str = "traefik.";

/// What discovery is started with.
#[derive(Debug, Clone, Default)]
pub struct DiscoveryOptions {
    /// Whether containers are discovered at all.
    pub on: bool,
    /// What is said once, for all containers.
    pub labels: Options,
}

/// What was discovered last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discovered {
    /// How many containers were looked at; `None` before the first time.
    pub(crate) containers: Option<usize>,
    /// What their labels come to, in Traefik's words.
    pub(crate) configuration: Configuration,
    /// What does not have the effect that labels ask for.
    pub(crate) problems: Vec<Problem>,
    /// Why the engine could not be asked the last time.
    pub(crate) failure: Option<String>,
}

/// Discovers containers.
pub(crate) struct Discovery {
    neighbours: Arc<dyn Neighbours>,
    options: DiscoveryOptions,
    entrance: Entrance,
    orchestrator: HostOrchestrator,
    published: Arc<Published>,
    discovered: Mutex<Arc<Discovered>>,
}

impl Discovery {
    pub(crate) fn new(
        neighbours: Arc<dyn Neighbours>,
        options: DiscoveryOptions,
        entrance: Entrance,
        orchestrator: HostOrchestrator,
        published: Arc<Published>,
    ) -> Self {
        Self { neighbours, options, entrance, orchestrator, published, discovered: Mutex::default() }
    }

    /// What was discovered last.
    pub(crate) fn discovered(&self) -> Arc<Discovered> {
        self.discovered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Discovers until `stop` fires.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut changes = self.neighbours.changes();
        loop {
            let look = tokio::time::timeout(LIST_LIMIT, self.look());
            tokio::select! {
                looked = look => {
                    let late = || format!("the engine did not tell what containers there are within {LIST_LIMIT:?}");
                    if let Err(why) = looked.unwrap_or_else(|_| Err(late())) {
                        self.fail(why);
                    }
                }
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = next_change(&mut changes) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once. The table is published if it changes.
    async fn look(&self) -> Result<(), String> {
        let prefix = (self.options.labels.exposure == Exposure::Labelled).then_some(PREFIX);
        let found = self.neighbours.list(prefix).await.map_err(|error| error.to_string())?;
        let reachable = self.neighbours.are_reachable();
        let containers: Vec<Container> = found.into_iter().map(|neighbour| container(neighbour, reachable)).collect();
        let options =
            Options { use_bind_port_ip: self.options.labels.use_bind_port_ip || !reachable, ..self.options.labels.clone() };
        let configuration = coracle_labels::configure(&containers, &options);
        let mut part = vetting::vetted(coracle_labels::part(&configuration, &options, self.entrance));
        contradict(&mut part, &self.published.table());
        let Part { table, problems, .. } = part;
        self.tell(&problems);
        let discovered = Discovered { containers: Some(containers.len()), configuration, problems, failure: None };
        *self.discovered.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(discovered);
        self.orchestrator.set_guests(table).await.map_err(|error| error.to_string())
    }

    /// Says what is new among the problems; what is no mistake, quietly.
    fn tell(&self, problems: &[Problem]) {
        let before: BTreeSet<Problem> = self.discovered().problems.iter().cloned().collect();
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            let kind = problem.kind.as_str();
            match problem.kind {
                Kind::Ignored => tracing::debug!(kind, "labels: {problem}"),
                _ => tracing::warn!(kind, "labels: {problem}"),
            }
        }
    }

    fn fail(&self, why: String) {
        let mut discovered = self.discovered.lock().unwrap_or_else(PoisonError::into_inner);
        if discovered.failure.as_ref() != Some(&why) {
            match discovered.containers {
                Some(_) => tracing::warn!(why, "containers cannot be discovered now; what was discovered before stands"),
                // A machine without Docker is nothing to warn of.
                None => tracing::info!(why, "no containers are discovered yet"),
            }
            *discovered = Arc::new(Discovered { failure: Some(why), ..(**discovered).clone() });
        }
    }
}

/// Says which routes an app has, too: it is the app's that requests take.
fn contradict(part: &mut Part, published: &Table) {
    let names = |route: &Route| part.table.routes.iter().any(|guest| guest.id == route.id);
    for app in published.routes.iter().filter(|route| !names(route)) {
        let Some(service) = &app.service else { continue };
        for guest in part.table.routes.iter().filter(|guest| coracle_labels::have_same_rule(guest, app)) {
            part.problems.push(Problem {
                kind: Kind::Conflict,
                containers: part.sources.get(&guest.id).cloned().unwrap_or_default(),
                about: Some(format!("router {}", guest.id.0.split('@').next().unwrap_or_default())),
                message: format!("the app {} answers for {}, and apps go first", service.0, guest.rule),
            });
        }
    }
    part.problems.sort();
}

/// Waits for a change and until it is quiet again, or until it is time to look anyway.
async fn next_change(changes: &mut BoxStream<'static, ()>) {
    let told = tokio::time::timeout(INTERVAL, changes.next()).await;
    match told {
        // Time is up.
        Err(_) => return,
        // Nobody tells any more: the timer remains.
        Ok(None) => return tokio::time::sleep(INTERVAL).await,
        Ok(Some(())) => {}
    }
    let latest = Instant::now() + LATEST;
    loop {
        let quiet = (Instant::now() + QUIET).min(latest);
        match tokio::time::timeout_at(quiet, changes.next()).await {
            Ok(Some(())) if Instant::now() < latest => {}
            _ => return,
        }
    }
}

/// An engine's container as one whose labels can be read.
fn container(neighbour: Neighbour, reachable: bool) -> Container {
    // What is published on all of the machine's addresses is on this one, too.
    let anywhere = (!reachable).then(|| std::net::IpAddr::from([127, 0, 0, 1]));
    let binding = |(ip, port): (Option<std::net::IpAddr>, u16)| Binding { ip: ip.or(anywhere), port };
    let ports = neighbour.ports.into_iter().map(|port| Port {
        number: port.number,
        protocol: port.protocol,
        bindings: port.published.into_iter().map(binding).collect(),
    });
    Container {
        id: neighbour.id,
        name: neighbour.name,
        labels: neighbour.labels,
        ports: ports.collect(),
        networks: if reachable { neighbour.networks } else { Default::default() },
        network_mode: if neighbour.on_host_network { NetworkMode::Host } else { NetworkMode::Own },
        status: if neighbour.running { Status::Running } else { Status::Other },
        health: match neighbour.health {
            Health::Unchecked => None,
            Health::Starting => Some(coracle_labels::Health::Starting),
            Health::Healthy => Some(coracle_labels::Health::Healthy),
            Health::Unhealthy => Some(coracle_labels::Health::Unhealthy),
        },
    }
}

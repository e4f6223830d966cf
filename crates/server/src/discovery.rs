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

use coracle_engine::{Change, Health, Neighbour, Neighbours};
use coracle_labels::{
    Binding, Configuration, Container, Entrance, Exposure, Kind, NetworkMode, Options, Part, Port, Problem, Status,
};
use coracle_orchestrator::HostOrchestrator;
use coracle_proxy_table::{Route, Table};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::published::Published;

pub use preview::{Preview, preview};

/// How long it is after a look until the next one, however many changes there are: the first of them is looked at at once, since
/// whoever is sent to a container that has just gone waits in vain.
const PACE: Duration = Duration::from_millis(100);

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
        let mut changes = self.neighbours.changes().fuse();
        let mut last = Vec::new();
        let mut listing = Some(self.list().boxed());
        let mut pace = Pace::new(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                listed = until(&mut listing) => {
                    listing = None;
                    pace.looked(Instant::now());
                    match listed {
                        Ok(found) => {
                            last = found;
                            self.serve(&last).await;
                        }
                        Err(why) => self.fail(why),
                    }
                }
                Some(change) = changes.next() => {
                    pace.changed(Instant::now());
                    // Lists take their time on a machine that is busy starting and stopping containers.
                    if let Change::Ending(id) = change
                        && let Some(ending) = last.iter_mut().find(|neighbour| neighbour.id == id && neighbour.running)
                    {
                        ending.running = false;
                        self.serve(&last).await;
                    }
                }
                () = tokio::time::sleep_until(pace.due()), if listing.is_none() => {
                    pace.begins();
                    listing = Some(self.list().boxed());
                }
            }
        }
    }

    async fn list(&self) -> Result<Vec<Neighbour>, String> {
        let prefix = (self.options.labels.exposure == Exposure::Labelled).then_some(PREFIX);
        let listed = tokio::time::timeout(LIST_LIMIT, self.neighbours.list(prefix)).await;
        let late = |_| format!("the engine did not tell what containers there are within {LIST_LIMIT:?}");
        listed.map_err(late)?.map_err(|error| error.to_string())
    }

    /// Makes routes of what there is. The table is published if that changes it.
    async fn serve(&self, found: &[Neighbour]) {
        let reachable = self.neighbours.are_reachable();
        let containers: Vec<Container> = found.iter().map(|neighbour| container(neighbour, reachable)).collect();
        let use_bind_port_ip = self.options.labels.use_bind_port_ip || !reachable;
        let options = Options { use_bind_port_ip, ..self.options.labels.clone() };
        let configuration = coracle_labels::configure(&containers, &options);
        let mut part = vetting::vetted(coracle_labels::part(&configuration, &options, self.entrance));
        contradict(&mut part, &self.published.table());
        let Part { table, problems, .. } = part;
        self.tell(&problems);
        let discovered = Discovered { containers: Some(containers.len()), configuration, problems, failure: None };
        *self.discovered.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(discovered);
        if let Err(error) = self.orchestrator.set_guests(table).await {
            self.fail(error.to_string());
        }
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

/// Waits for the future that there is; forever if there is none.
async fn until<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// When it is to be looked.
#[derive(Debug)]
struct Pace {
    looked: Instant,
    changed: Option<Instant>,
}

impl Pace {
    fn new(looked: Instant) -> Self {
        Self { looked, changed: None }
    }

    /// A look begins, which sees everything that has changed until now.
    fn begins(&mut self) {
        self.changed = None;
    }

    /// It has ended; what changed meanwhile is still to be looked at.
    fn looked(&mut self, now: Instant) {
        self.looked = now;
    }

    fn changed(&mut self, now: Instant) {
        self.changed.get_or_insert(now);
    }

    fn due(&self) -> Instant {
        match self.changed {
            Some(changed) => changed.max(self.looked + PACE),
            None => self.looked + INTERVAL,
        }
    }
}

/// An engine's container as one whose labels can be read.
fn container(neighbour: &Neighbour, reachable: bool) -> Container {
    // What is published on all of the machine's addresses is on this one, too.
    let anywhere = (!reachable).then(|| std::net::IpAddr::from([127, 0, 0, 1]));
    let binding = |(ip, port): (Option<std::net::IpAddr>, u16)| Binding { ip: ip.or(anywhere), port };
    let ports = neighbour.ports.iter().map(|port| Port {
        number: port.number,
        protocol: port.protocol.clone(),
        bindings: port.published.iter().copied().map(binding).collect(),
    });
    Container {
        id: neighbour.id.clone(),
        name: neighbour.name.clone(),
        labels: neighbour.labels.clone(),
        ports: ports.collect(),
        networks: if reachable { neighbour.networks.clone() } else { Default::default() },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_looked_at_at_once_and_those_after_it_together() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert_eq!(pace.due(), begun + INTERVAL);
        let later = begun + PACE * 5;
        pace.changed(later);
        pace.changed(later + PACE);
        assert_eq!(pace.due(), later);
        pace.begins();
        // What changes while it is looked may not have been seen.
        let ended = later + PACE * 2;
        pace.changed(later + PACE);
        pace.looked(ended);
        assert_eq!(pace.due(), ended + PACE);
        pace.begins();
        pace.looked(ended + PACE * 2);
        assert_eq!(pace.due(), ended + PACE * 2 + INTERVAL);
    }

    #[test]
    fn containers_that_are_reached_by_their_ports_only_have_no_other_address() {
        let neighbour = |ip: Option<&str>| Neighbour {
            id: "a".to_owned(),
            name: "a".to_owned(),
            labels: [("traefik.http.routers.a.rule".to_owned(), "Path(`/`)".to_owned())].into(),
            ports: vec![coracle_engine::ExposedPort {
                number: 80,
                protocol: "tcp".to_owned(),
                published: vec![(ip.and_then(|ip| ip.parse().ok()), 8080)],
            }],
            networks: [("n".to_owned(), "10.0.0.2".parse().ok())].into(),
            on_host_network: false,
            running: true,
            health: Health::Unchecked,
        };
        let reached = |neighbour: Neighbour, reachable: bool| {
            let options = Options { use_bind_port_ip: !reachable, ..Options::default() };
            let containers = [container(&neighbour, reachable)];
            let part = coracle_labels::part(&coracle_labels::configure(&containers, &options), &options, Entrance::default());
            part.table.services.values().flat_map(|service| &service.targets).map(|it| it.address.to_string()).collect::<String>()
        };
        assert_eq!(reached(neighbour(None), true), "10.0.0.2:80");
        assert_eq!(reached(neighbour(None), false), "127.0.0.1:8080");
        assert_eq!(reached(neighbour(Some("192.0.2.1")), false), "192.0.2.1:8080");
    }
}

//! Containers that are not ours. They are listed and inspected, and nothing else is ever asked of the engine about them.
//!
//! A list tells all that changes about most containers (their state, their networks, their ports), so those that have not
//! changed in it are not inspected again. What a health check says is in no list that can be relied upon; containers with one
//! are inspected every time.
//!
//! A container that has been told to stop counts as one that does not run, though it does until it has ended: requests that are
//! led elsewhere from then on are not lost. By the time an engine tells that a container has ended, its address has long been
//! nobody's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use coracle_engine::{Change, EngineError, ExposedPort, Health, Neighbour, Neighbours};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, message};
use crate::labels;

/// How many containers are inspected at once.
const AT_ONCE: usize = 8;

/// How long to wait before asking an engine again whose events broke off.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a container may take to end after it was told to; then it is taken for one that does not want to.
const ENDING: Duration = Duration::from_secs(60);

/// Container events that may change where requests go.
const CONTAINER_EVENTS: &[&str] =
    &["start", "restart", "die", "stop", "kill", "pause", "unpause", "destroy", "rename", "update", "health_status"];
/// Network events that may.
const NETWORK_EVENTS: &[&str] = &["connect", "disconnect"];

/// Containers that are not ours.
pub(crate) struct Others {
    client: Arc<Client>,
    known: Arc<Known>,
}

/// What is known of them.
#[derive(Default)]
struct Known {
    /// What was seen last of each, by id.
    seen: Mutex<HashMap<String, Seen>>,
    told: Told,
}

impl Known {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an event means.
    fn change(&self, event: &EventMessage) -> Change {
        self.told.hear(event);
        let id = event.actor.as_ref().and_then(|actor| actor.id.clone()).unwrap_or_default();
        let to_stop = || self.seen().get(&id).is_some_and(|seen| self.told.to_stop(&id, seen.stop_signal));
        match event.action.as_deref() {
            Some("die") => Change::Ending(id),
            Some("kill") if to_stop() => Change::Ending(id),
            _ => Change::Other,
        }
    }
}

/// Signals that containers were sent since they were started, by id, and when the last one was.
#[derive(Default)]
struct Told(Mutex<HashMap<String, (HashSet<i32>, Instant)>>);

impl Told {
    /// Takes note of what an event tells.
    fn hear(&self, event: &EventMessage) {
        let Some((actor, action)) = event.actor.as_ref().zip(event.action.as_deref()) else { return };
        let Some(id) = actor.id.clone() else { return };
        let signal = || actor.attributes.as_ref()?.get("signal")?.parse().ok();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match action {
            "kill" => {
                if let Some(signal) = signal() {
                    let (signals, at) = told.entry(id).or_insert_with(|| (HashSet::new(), Instant::now()));
                    signals.insert(signal);
                    *at = Instant::now();
                }
            }
            "start" | "destroy" => drop(told.remove(&id)),
            _ => {}
        }
    }

    /// Whether a container has been told to stop, not long ago.
    fn to_stop(&self, id: &str, stop_signal: i32) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(id).is_some_and(|(signals, at)| {
            at.elapsed() < ENDING && (signals.contains(&stop_signal) || signals.contains(&Signal::KILL.as_raw()))
        })
    }
}

/// What was seen of a container, and what the list said then.
#[derive(Clone)]
struct Seen {
    listed: Listed,
    neighbour: Neighbour,
    /// By which it is told to stop.
    stop_signal: i32,
}

impl Others {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client, known: Arc::default() }
    }

    /// Nothing if it is gone meanwhile.
    async fn look(&self, listed: Listed) -> Result<Option<Seen>, EngineError> {
        let known = self.known.seen().get(&listed.id).cloned();
        if let Some(known) = known.filter(|known| known.listed == listed && known.neighbour.health == Health::Unchecked) {
            return Ok(Some(known));
        }
        let Some(inspected) = self.inspect(&listed.id).await? else { return Ok(None) };
        // Whoever has another's network is reached where that one is.
        let networks = match inspected.host_config.network_mode.strip_prefix("container:") {
            Some(other) => self.inspect(other).await?.map(|other| other.network_settings.addresses()).unwrap_or_default(),
            None => inspected.network_settings.addresses(),
        };
        let stop_signal = signal(inspected.config.stop_signal.as_deref().unwrap_or_default());
        Ok(Some(Seen { listed, neighbour: inspected.neighbour(networks), stop_signal }))
    }

    async fn inspect(&self, id: &str) -> Result<Option<Inspected>, EngineError> {
        self.client.get(&format!("/containers/{id}/json"), &format!("inspect {id}")).await
    }
}

#[async_trait]
impl Neighbours for Others {
    async fn list(&self, label_prefix: Option<&str>) -> Result<Vec<Neighbour>, EngineError> {
        let listed: Vec<Listed> = self.client.get("/containers/json?all=1", "list containers").await?.unwrap_or_default();
        let wanted = listed.into_iter().filter(|listed| !listed.is_coracle_s() && listed.has_label(label_prefix));
        let looks = futures::stream::iter(wanted.map(|listed| self.look(listed))).buffer_unordered(AT_ONCE);
        let found: Vec<Seen> = looks.try_filter_map(|seen| async { Ok(seen) }).try_collect().await?;
        let told = |seen: &Seen| {
            let running = seen.neighbour.running && !self.known.told.to_stop(&seen.neighbour.id, seen.stop_signal);
            Neighbour { running, ..seen.neighbour.clone() }
        };
        let mut neighbours: Vec<Neighbour> = found.iter().map(told).collect();
        neighbours.sort_by(|one, other| one.id.cmp(&other.id));
        let by_id = found.into_iter().map(|seen| (seen.listed.id.clone(), seen)).collect();
        *self.known.seen() = by_id;
        Ok(neighbours)
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let (client, known) = (self.client.clone(), self.known.clone());
        futures::stream::unfold((client, known, None), |(client, known, events)| async move {
            let mut events = match events {
                Some(events) => events,
                None => listen(&client),
            };
            match events.next().await {
                Some(Ok(event)) => {
                    let change = known.change(&event);
                    Some((change, (client, known, Some(events))))
                }
                // What happened while nobody listened is told as one change.
                broken => {
                    if let Some(Err(error)) = broken {
                        tracing::debug!(error = message(&error), "the engine's events broke off");
                    }
                    tokio::time::sleep(PAUSE).await;
                    Some((Change::Other, (client, known, None)))
                }
            }
        })
        .boxed()
    }

    fn are_reachable(&self) -> bool {
        self.client.facts.containers_reachable
    }
}

fn listen(client: &Client) -> BoxStream<'static, Result<EventMessage, bollard::errors::Error>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type".to_owned(), words(&["container", "network"])),
        ("event".to_owned(), words(&[CONTAINER_EVENTS, NETWORK_EVENTS].concat())),
    ]);
    client.patient().events(Some(EventsOptionsBuilder::default().filters(&filters).build())).boxed()
}

/// A signal's number, by which engines tell of it: images name them `SIGQUIT`, `QUIT` or `3`. SIGTERM if it is none we know.
fn signal(name: &str) -> i32 {
    let named = match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        // systemd's.
        "RTMIN+3" => return 37,
        number => return number.parse().unwrap_or(Signal::TERM.as_raw()),
    };
    named.as_raw()
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    state: Value,
    ports: Option<Vec<Value>>,
    network_settings: Networking,
}

impl Listed {
    fn names_of_labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// Whether a Coracle created it, whichever one.
    fn is_coracle_s(&self) -> bool {
        self.names_of_labels().any(|name| name == labels::OWNER)
    }

    fn has_label(&self, prefix: Option<&str>) -> bool {
        let begins = |name: &str, prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        prefix.is_none_or(|prefix| self.names_of_labels().any(|name| begins(name, prefix)))
    }
}

/// A container by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    id: String,
    name: String,
    config: Config,
    host_config: HostConfig,
    network_settings: Networking,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    running: bool,
    paused: bool,
    health: Option<HealthState>,
}

impl State {
    /// Whether its program runs and is not paused.
    pub(crate) fn runs(&self) -> bool {
        self.running && !self.paused
    }

    /// What its HEALTHCHECK says.
    pub(crate) fn health(&self) -> Health {
        match self.health.as_ref().map_or("none", |health| health.status.as_str()) {
            "" | "none" => Health::Unchecked,
            "healthy" => Health::Healthy,
            "starting" => Health::Starting,
            _ => Health::Unhealthy,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthState {
    status: String,
}

/// Where a container can be reached; in lists without the ports.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Networking {
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Binding {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
}

impl Networking {
    /// Its address in each of its networks.
    pub(crate) fn addresses(&self) -> BTreeMap<String, Option<IpAddr>> {
        let address = |endpoint: &Endpoint| endpoint.ip_address.parse().or_else(|_| endpoint.global_ipv6_address.parse()).ok();
        self.networks.iter().flatten().map(|(name, endpoint)| (name.clone(), address(endpoint))).collect()
    }

    /// The ports it exposes.
    pub(crate) fn exposed(&self) -> Vec<ExposedPort> {
        let port = |(text, bindings): (&String, &Option<Vec<Binding>>)| {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let binding = |binding: &Binding| {
                let ip: Option<IpAddr> = binding.host_ip.parse().ok();
                Some((ip.filter(|ip| !ip.is_unspecified()), binding.host_port.parse().ok()?))
            };
            let published = bindings.iter().flatten().filter_map(binding).collect();
            Some(ExposedPort { number: number.parse().ok()?, protocol: protocol.to_ascii_lowercase(), published })
        };
        self.ports.iter().flatten().filter_map(port).collect()
    }
}

impl Inspected {
    fn neighbour(self, networks: BTreeMap<String, Option<IpAddr>>) -> Neighbour {
        Neighbour {
            name: self.name.trim_start_matches('/').to_owned(),
            labels: self.config.labels.unwrap_or_default(),
            ports: self.network_settings.exposed(),
            networks,
            on_host_network: self.host_config.network_mode == "host",
            running: self.state.runs(),
            health: self.state.health(),
            id: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_coracle_created_and_what_has_no_such_label_is_nobody_s_neighbour() {
        let listed = |labels: &str| serde_json::from_str::<Listed>(&format!(r#"{{"Id":"a","Labels":{labels}}}"#)).unwrap();
        assert!(listed(r#"{"dev.coracle.owner":"0badcafe","traefik.enable":"true"}"#).is_coracle_s());
        let labelled = listed(r#"{"Traefik.enable":"true"}"#);
        assert!(!labelled.is_coracle_s() && labelled.has_label(Some("traefik.")) && labelled.has_label(None));
        for other in [r#"{"traefi":"x"}"#, "{}", "null"] {
            assert!(!listed(other).has_label(Some("traefik.")) && listed(other).has_label(None), "{other}");
        }
    }

    #[test]
    fn an_inspection_tells_where_a_container_is() {
        let text = r#"{"Id":"a","Name":"/shop","State":{"Running":true,"Paused":false,"Health":{"Status":"starting"}},
            "Config":{"Labels":{"l":"v"}},"HostConfig":{"NetworkMode":"web"},"NetworkSettings":{
            "Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"127.0.0.1","HostPort":"81"}],"53/udp":null},
            "Networks":{"web":{"IPAddress":"10.0.0.2"},"off":{"IPAddress":""}}}}"#;
        let inspected: Inspected = serde_json::from_str(text).unwrap();
        let networks = inspected.network_settings.addresses();
        let neighbour = inspected.neighbour(networks);
        assert_eq!((neighbour.name.as_str(), neighbour.running, neighbour.health), ("shop", true, Health::Starting));
        assert_eq!(neighbour.networks, BTreeMap::from([("off".to_owned(), None), ("web".to_owned(), "10.0.0.2".parse().ok())]));
        let published: Vec<_> = neighbour.ports.iter().map(|port| (port.number, port.published.len())).collect();
        assert_eq!(published, [(53, 0), (80, 2)]);
        assert_eq!(neighbour.ports[1].published, [(None, 8080), ("127.0.0.1".parse().ok(), 81)]);
    }

    #[test]
    fn what_is_told_to_stop_counts_as_stopped_until_it_is_started_again() {
        let event = |action: &str, signal: Option<&str>| {
            let attributes = signal.map(|signal| HashMap::from([("signal".to_owned(), signal.to_owned())]));
            let actor = bollard::models::EventActor { id: Some("a".to_owned()), attributes };
            EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() }
        };
        let told = Told::default();
        let stops = |name: &str| told.to_stop("a", signal(name));
        // By which many programs are told to read their configuration again.
        told.hear(&event("kill", Some("1")));
        assert!(!stops("") && !stops("SIGQUIT"));
        told.hear(&event("kill", Some("3")));
        assert!(stops("SIGQUIT") && stops("QUIT") && stops("3") && !stops("SIGTERM") && !stops(""));
        told.hear(&event("start", None));
        assert!(!stops("SIGQUIT"));
        told.hear(&event("kill", Some("9")));
        assert!(stops("") && stops("SIGRTMIN+3") && !told.to_stop("b", 15));
    }
}

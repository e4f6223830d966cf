//! What `docker inspect` prints, as containers: an array of objects. Only what is looked at has to be there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::container::{Binding, Container, Health, NetworkMode, Port, Status};

/// Why a text is not what `docker inspect` prints.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is no JSON, or not of that shape.
    #[error("not what `docker inspect` prints: {0}")]
    Shape(#[from] serde_json::Error),
    /// A port is no port.
    #[error("container {container}: {port:?} is no port, as 80/tcp")]
    Port {
        /// The container's name.
        container: String,
        /// What was given.
        port: String,
    },
}

/// Reads what `docker inspect` (or `podman inspect`) prints for containers.
///
/// # Errors
/// [`InspectError`] if it is something else.
pub fn containers(json: &str) -> Result<Vec<Container>, InspectError> {
    let inspected: Vec<Inspected> = serde_json::from_str(json)?;
    inspected.into_iter().map(Inspected::container).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    id: String,
    name: String,
    config: Config,
    host_config: HostConfig,
    network_settings: NetworkSettings,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<HostPort>>>>,
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostPort {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    status: String,
    health: Option<StateHealth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StateHealth {
    status: String,
}

impl Inspected {
    fn container(self) -> Result<Container, InspectError> {
        let name = self.name.strip_prefix('/').unwrap_or(&self.name).to_owned();
        let ports = self.network_settings.ports.unwrap_or_default().into_iter();
        let ports = ports.map(|(text, bindings)| {
            port(&text, bindings.unwrap_or_default()).ok_or_else(|| InspectError::Port { container: name.clone(), port: text })
        });
        let address = |network: Network| network.ip_address.parse().or_else(|_| network.global_ipv6_address.parse()).ok();
        let networks = self.network_settings.networks.unwrap_or_default().into_iter();
        Ok(Container {
            ports: ports.collect::<Result<_, _>>()?,
            id: self.id,
            labels: self.config.labels.unwrap_or_default(),
            networks: networks.map(|(name, network)| (name, address(network))).collect(),
            network_mode: if self.host_config.network_mode == "host" { NetworkMode::Host } else { NetworkMode::Own },
            // What says nothing of its state is taken for running: it is somebody's sketch of a container.
            status: if matches!(self.state.status.as_str(), "" | "running") { Status::Running } else { Status::Other },
            health: match self.state.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("" | "none") => None,
                Some("healthy") => Some(Health::Healthy),
                Some("starting") => Some(Health::Starting),
                Some(_) => Some(Health::Unhealthy),
            },
            name,
        })
    }
}

fn port(text: &str, bindings: Vec<HostPort>) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let binding = |host: HostPort| {
        let ip: Option<IpAddr> = host.host_ip.parse().ok();
        Some(Binding { ip: ip.filter(|ip| !ip.is_unspecified()), port: host.host_port.parse().ok()? })
    };
    let bindings = bindings.into_iter().filter_map(binding).collect();
    Some(Port { number: number.parse().ok()?, protocol: protocol.to_ascii_lowercase(), bindings })
}

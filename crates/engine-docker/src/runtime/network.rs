//! One network per release, in which its instances reach each other by the names of their processes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use coracle_engine::EngineError;
use coracle_model::container::ExternalNetwork;
use coracle_model::{AppName, OwnerId, ReleaseNumber};

use crate::client::{Client, message, status, timely};
use crate::labels;
use crate::turns::Turns;

/// How many networks of our own choice are tried when the engine has run out of its own.
const OWN_SUBNETS: u32 = 64;

/// How long is waited between attempts at removing a network that is still in use.
const REMOVAL_WAITS: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// A network of ours that should be there.
pub(super) struct Wanted {
    pub(super) name: String,
    labels: HashMap<String, String>,
}

impl Wanted {
    /// The network of a release.
    pub(super) fn of_release(owner: &OwnerId, app: &AppName, release: ReleaseNumber) -> Self {
        Self { name: labels::network_name(owner, app, release), labels: labels::of_release(owner, app, release) }
    }

    /// The network of those of a release that are kept apart under this name.
    pub(super) fn apart(owner: &OwnerId, app: &AppName, release: ReleaseNumber, name: &str) -> Self {
        Self { name: labels::apart_network_name(owner, app, release, name), labels: labels::of_release(owner, app, release) }
    }

    /// The network in which what outlives releases is at home.
    pub(super) fn of_app(owner: &OwnerId, app: &AppName) -> Self {
        Self { name: labels::home_network_name(owner, app), labels: labels::of_app(owner, app) }
    }
}

/// The networks of an owner's apps and releases.
pub(super) struct Networks {
    client: Arc<Client>,
    /// Those known to be there.
    known: Mutex<HashSet<String>>,
    /// Engines before 25 allow several networks of one name, so one of ours at a time looks and makes.
    turns: Turns<String>,
}

impl Networks {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, known: Mutex::default(), turns: Turns::default() }
    }

    /// Sees to it that the network is there.
    pub(super) async fn ensure(&self, wanted: &Wanted) -> Result<(), EngineError> {
        let name = &wanted.name;
        if self.is_known(name) {
            return Ok(());
        }
        let _turn = self.turns.take(name).await;
        if self.is_known(name) {
            return Ok(());
        }
        match timely(self.client.docker.inspect_network(name, None::<InspectNetworkOptions>)).await {
            Ok(found) if self.is_ours(found.labels.as_ref()) => {}
            Ok(_) => return Err(self.failed(name, "a network of this name exists and is not ours")),
            Err(error) if status(&error) == Some(404) => self.create(wanted).await?,
            Err(error) => return Err(self.client.error(format!("inspect network {name}"), &error)),
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Ok(())
    }

    /// Puts a container into a network of ours, under these names, unless it is in it already.
    pub(super) async fn join(&self, wanted: &Wanted, container: &str, aliases: &[String]) -> Result<(), EngineError> {
        self.ensure(wanted).await?;
        let endpoint = EndpointSettings { aliases: Some(aliases.to_vec()), ..Default::default() };
        match self.connect(&wanted.name, container, endpoint.clone()).await {
            Err(error) if status(&error) == Some(404) => {
                // Removed by somebody since we last saw it.
                self.forget(&wanted.name);
                self.ensure(wanted).await?;
                let joined = self.connect(&wanted.name, container, endpoint).await;
                joined.map_err(|error| self.client.error(format!("join network {}", wanted.name), &error))
            }
            other => other.map_err(|error| self.client.error(format!("join network {}", wanted.name), &error)),
        }
    }

    /// Puts a container into a network that somebody else made.
    pub(super) async fn join_foreign(
        &self,
        network: &ExternalNetwork,
        container: &str,
        aliases: &[String],
    ) -> Result<(), EngineError> {
        let address = |ipv4: bool| network.address.filter(|address| address.is_ipv4() == ipv4).map(|address| address.to_string());
        let endpoint = EndpointSettings {
            aliases: Some(aliases.iter().chain(&network.aliases).cloned().collect()),
            ipam_config: network.address.map(|_| EndpointIpamConfig {
                ipv4_address: address(true),
                ipv6_address: address(false),
                ..Default::default()
            }),
            ..Default::default()
        };
        let action = || format!("join network {}", network.name);
        // Engines take a network that is not there for a container that does not run yet, and complain at its start.
        if !self.is_there(&network.name).await? {
            let cause = format!("there is no network {}, and it is not Coracle's to make", network.name);
            return Err(EngineError::Failed { action: action(), cause });
        }
        let joined = self.connect(&network.name, container, endpoint).await;
        joined.map_err(|error| self.client.error(action(), &error))
    }

    /// Whether there is a network of this name, whoever made it.
    pub(super) async fn is_there(&self, name: &str) -> Result<bool, EngineError> {
        match timely(self.client.docker.inspect_network(name, None::<InspectNetworkOptions>)).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.client.error(format!("look for the network {name}"), &error)),
        }
    }

    async fn connect(&self, network: &str, container: &str, endpoint: EndpointSettings) -> Result<(), Error> {
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
        match timely(self.client.docker.connect_network(network, request)).await {
            Err(error) if message(&error).contains("already exists in network") => Ok(()),
            // Podman's words for the same.
            Err(error) if message(&error).contains("already connected") => Ok(()),
            other => other,
        }
    }

    /// The engine says that this network is not there.
    pub(super) fn forget(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Removes a network, if it is ours; those of our containers that are still in it are taken out first.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let _turn = self.turns.take(&name.to_owned()).await;
        self.forget(name);
        match timely(self.client.docker.inspect_network(name, None::<InspectNetworkOptions>)).await {
            Ok(found) if self.is_ours(found.labels.as_ref()) => {}
            Ok(_) => return Ok(()),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(self.client.error(format!("inspect network {name}"), &error)),
        }
        match timely(self.client.docker.remove_network(name)).await {
            Ok(()) => return Ok(()),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) if is_in_use(&error) => {}
            Err(error) => return Err(self.client.error(format!("remove network {name}"), &error)),
        }
        // What is being taken out or removed by others is gone for the engine a moment after it says so.
        for wait in REMOVAL_WAITS {
            self.take_ours_out(name).await?;
            match timely(self.client.docker.remove_network(name)).await {
                Ok(()) => return Ok(()),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                Err(error) if !is_in_use(&error) => return Err(self.client.error(format!("remove network {name}"), &error)),
                Err(error) => tracing::debug!(network = name, error = message(&error), "still in use; trying again"),
            }
            tokio::time::sleep(wait).await;
        }
        match timely(self.client.docker.remove_network(name)).await {
            Err(error) if status(&error) != Some(404) => Err(self.client.error(format!("remove network {name}"), &error)),
            _ => Ok(()),
        }
    }

    /// Removes all networks of an app.
    pub(super) async fn remove_all_of(&self, app: &AppName) -> Result<(), EngineError> {
        self.remove_labelled(&[(labels::APP, app.as_str())]).await
    }

    /// Removes all networks of a release: its own, and those of its instances that are kept apart.
    pub(super) async fn remove_all_of_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        // By its name first: it is forgotten then even if it is not there any more.
        self.remove(&labels::network_name(&self.client.owner, app, release)).await?;
        self.remove_labelled(&[(labels::APP, app.as_str()), (labels::RELEASE, &release.get().to_string())]).await
    }

    /// Removes the networks of ours that bear these labels too.
    async fn remove_labelled(&self, wanted: &[(&str, &str)]) -> Result<(), EngineError> {
        let wanted: Vec<(&str, &str)> = [(labels::OWNER, self.client.owner.as_str())].iter().chain(wanted).copied().collect();
        let filter = labels::filter(&wanted);
        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let listed = timely(self.client.docker.list_networks(Some(options))).await;
        let listed = listed.map_err(|error| self.client.error("list networks", &error))?;
        for name in listed.into_iter().filter_map(|network| network.name) {
            self.remove(&name).await?;
        }
        Ok(())
    }

    fn is_ours(&self, labels: Option<&HashMap<String, String>>) -> bool {
        labels.and_then(|labels| labels.get(labels::OWNER)).map(String::as_str) == Some(self.client.owner.as_str())
    }

    fn is_known(&self, name: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn failed(&self, name: &str, cause: &str) -> EngineError {
        EngineError::Failed { action: format!("create network {name}"), cause: cause.to_owned() }
    }

    async fn create(&self, wanted: &Wanted) -> Result<(), EngineError> {
        let name = &wanted.name;
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(wanted.labels.clone()),
            ..Default::default()
        };
        match timely(self.client.docker.create_network(request.clone())).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) if is_out_of_subnets(&message(&error)) => self.create_in_own_subnet(request).await,
            Err(error) => Err(self.client.error(format!("create network {name}"), &error)),
        }
    }

    /// Docker's default pools hold about thirty networks for the whole machine; beyond, we choose subnets ourselves, small
    /// ones, from a corner of 10.0.0.0/8 that others seldom use.
    async fn create_in_own_subnet(&self, mut request: NetworkCreateRequest) -> Result<(), EngineError> {
        let mut last = String::new();
        for attempt in 0..OWN_SUBNETS {
            let subnet = own_subnet(&request.name, attempt);
            let config = IpamConfig { subnet: Some(subnet), ..Default::default() };
            request.ipam = Some(Ipam { config: Some(vec![config]), ..Default::default() });
            match timely(self.client.docker.create_network(request.clone())).await {
                Ok(_) => return Ok(()),
                Err(error) if status(&error) == Some(409) => return Ok(()),
                Err(error) => last = message(&error),
            }
            if !last.contains("overlap") {
                break;
            }
        }
        Err(self.failed(&request.name, &last))
    }

    async fn take_ours_out(&self, name: &str) -> Result<(), EngineError> {
        let inspected = timely(self.client.docker.inspect_network(name, None::<InspectNetworkOptions>)).await;
        let containers: HashMap<_, _> = match inspected {
            Ok(network) => network.containers.unwrap_or_default(),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(self.client.error(format!("inspect network {name}"), &error)),
        };
        for container in containers.into_keys() {
            let Some(seen) = self.client.container(&container).await? else { continue };
            if labels::instance_of(&self.client.owner, &seen.labels()).is_none() {
                continue;
            }
            let request = NetworkDisconnectRequest { container, force: Some(true) };
            if let Err(error) = timely(self.client.docker.disconnect_network(name, request)).await {
                tracing::debug!(network = name, error = message(&error), "an endpoint was gone already");
            }
        }
        Ok(())
    }
}

fn is_in_use(error: &Error) -> bool {
    message(error).contains("active endpoints") || status(error) == Some(409)
}

fn is_out_of_subnets(text: &str) -> bool {
    text.contains("address pool") || text.contains("predefined address pools") || text.contains("address space")
}

/// A subnet of 64 addresses in 10.208.0.0/12, spread by the network's name.
fn own_subnet(name: &str, attempt: u32) -> String {
    // FNV-1a: stable, and good enough to spread.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let slot = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b1)) % (1 << 14);
    let address = (10_u32 << 24) | (208 << 16) | (slot << 6);
    format!("{}/26", std::net::Ipv4Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_subnets_stay_in_their_corner_and_differ() {
        let subnets: HashSet<String> = (0..OWN_SUBNETS).map(|attempt| own_subnet("coracle-x-shop-v1", attempt)).collect();
        assert_eq!(subnets.len(), OWN_SUBNETS as usize);
        for subnet in subnets {
            let second: u8 = subnet.split('.').nth(1).and_then(|octet| octet.parse().ok()).unwrap_or(0);
            assert!(subnet.starts_with("10.") && (208..224).contains(&second), "{subnet}");
        }
    }
}

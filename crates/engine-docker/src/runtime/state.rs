//! The engine's account of a container, read as ours of an instance.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::ContainerStatsResponse;
use coracle_engine::{Exit, Health, Instance, InstanceState, Stats};
use jiff::Timestamp;

use super::loopback;
use crate::client::Client;
use crate::inspect::{Container, Networking, State};
use crate::labels;

/// A container of ours.
pub(super) struct Seen {
    /// The engine's own id of it.
    pub(super) container: String,
    /// What it is to us.
    pub(super) instance: Instance,
}

impl Seen {
    /// `None` if the container is not one of ours.
    pub(super) fn new(client: &Client, container: Container) -> Option<Self> {
        let labels = container.labels();
        let id = labels::instance_of(&client.owner, &labels)?;
        let state = if container.state.running {
            InstanceState::Running {
                address: address(client, &labels, &container.network_settings),
                health: health(&container.state),
                since: since(&container.state).unwrap_or_default(),
            }
        } else {
            InstanceState::Exited(exit(&container.state))
        };
        Some(Self { container: container.id, instance: Instance { id, state } })
    }
}

/// Where the instance listens: the container's own address where this machine reaches it, else a published port.
fn address(client: &Client, labels: &HashMap<String, String>, networking: &Networking) -> Option<SocketAddr> {
    let port: u16 = labels.get(labels::PORT)?.parse().ok()?;
    // Of several networks always the same, and ours before others': an address that changes looks like another instance.
    let ours = |name: &String| !name.starts_with(&format!("coracle-{}.", client.owner));
    let networks = networking.networks.as_ref();
    let mut networks: Vec<_> = networks.into_iter().flatten().filter(|(_, endpoint)| !endpoint.ip_address.is_empty()).collect();
    networks.sort_by_key(|(name, _)| (ours(name), (*name).clone()));
    let own = networks.into_iter().find_map(|(_, endpoint)| Some(SocketAddr::new(endpoint.ip_address.parse().ok()?, port)));
    if own.is_some() && client.facts.containers_reachable {
        return own;
    }
    let bindings = networking.ports.as_ref().and_then(|ports| ports.get(&format!("{port}/tcp"))?.as_ref());
    let published = bindings.into_iter().flatten().find_map(|binding| binding.host_port.parse().ok());
    published.map(loopback).or(own)
}

/// When it started; engines write the year 1 where it never did.
fn since(state: &State) -> Option<Timestamp> {
    let at: Timestamp = state.started_at.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

fn health(state: &State) -> Health {
    match state.health.as_ref().map_or("none", |health| health.status.as_str()) {
        "starting" => Health::Starting,
        "healthy" => Health::Healthy,
        "unhealthy" => Health::Unhealthy,
        _ => Health::Unchecked,
    }
}

/// How it ended. A container whose program never started, or that was lost with the machine, ended unseen.
fn exit(state: &State) -> Exit {
    if since(state).is_none() {
        return Exit::default();
    }
    Exit { out_of_memory: state.oom_killed, ..exit_of_code(Some(state.exit_code)) }
}

/// A code beyond 128 is how a container's init tells that a signal ended its child.
pub(super) fn exit_of_code(code: Option<i64>) -> Exit {
    match code.and_then(|code| i32::try_from(code).ok()) {
        Some(code @ 129..=192) => Exit { signal: Some(code - 128), ..Exit::default() },
        code => Exit { code, ..Exit::default() },
    }
}

/// What a container uses, counted as Docker's own tools count it: without the page cache that can be dropped at any
/// time. `None` if it does not run.
pub(super) fn stats(stats: &ContainerStatsResponse) -> Option<Stats> {
    let pids = stats.pids_stats.as_ref().and_then(|pids| pids.current).filter(|pids| *pids > 0)?;
    let memory = stats.memory_stats.as_ref()?;
    let detail = |name: &str| memory.stats.as_ref().and_then(|stats| stats.get(name).copied());
    let droppable = detail("total_inactive_file").or_else(|| detail("inactive_file")).unwrap_or(0);
    let cpu = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()).and_then(|usage| usage.total_usage);
    Some(Stats {
        memory_bytes: memory.usage.unwrap_or(0).saturating_sub(droppable),
        cpu_us: cpu.unwrap_or(0) / 1000,
        pids: u32::try_from(pids).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i64, oom: bool) -> State {
        State { started_at: "2026-11-21T01:07:50.462341491Z".to_owned(), exit_code: code, oom_killed: oom, ..State::default() }
    }

    #[test]
    fn codes_beyond_128_are_signals() {
        assert_eq!(exit(&ended(3, false)), Exit { code: Some(3), ..Exit::default() });
        assert_eq!(exit(&ended(137, true)), Exit { signal: Some(9), out_of_memory: true, ..Exit::default() });
        assert_eq!(exit(&ended(255, false)), Exit { code: Some(255), ..Exit::default() });
    }

    #[test]
    fn a_container_that_never_started_ended_unseen() {
        let state = State { started_at: "0001-01-01T00:00:00Z".to_owned(), ..ended(0, false) };
        assert_eq!(exit(&state), Exit::default());
    }
}

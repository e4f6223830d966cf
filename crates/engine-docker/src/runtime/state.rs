//! The engine's account of a container, read as ours of an instance.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStatsResponse, HealthStatusEnum, NetworkSettings};
use coracle_engine::{Exit, Health, Instance, InstanceState, Stats};
use jiff::Timestamp;

use super::loopback;
use crate::client::Client;
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
    pub(super) fn new(client: &Client, inspected: ContainerInspectResponse) -> Option<Self> {
        let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
        let id = labels::instance_of(&client.owner, &labels)?;
        let state = inspected.state.unwrap_or_default();
        let state = if state.running == Some(true) {
            InstanceState::Running {
                address: inspected.network_settings.and_then(|settings| address(&labels, &settings)),
                health: health(&state),
                since: since(&state).unwrap_or_default(),
            }
        } else {
            InstanceState::Exited(exit(&state))
        };
        Some(Self { container: inspected.id.unwrap_or_default(), instance: Instance { id, state } })
    }
}

/// Where the instance listens: a published port if there is one, else the container's own address.
fn address(labels: &HashMap<String, String>, settings: &NetworkSettings) -> Option<SocketAddr> {
    let port: u16 = labels.get(labels::PORT)?.parse().ok()?;
    let bindings = settings.ports.as_ref().and_then(|ports| ports.get(&format!("{port}/tcp")).cloned().flatten());
    let published = bindings.unwrap_or_default().into_iter().find_map(|binding| binding.host_port?.parse().ok());
    if let Some(published) = published {
        return Some(loopback(published));
    }
    let networks = settings.networks.as_ref()?;
    let ip = networks.values().find_map(|network| network.ip_address.as_deref()?.parse().ok())?;
    Some(SocketAddr::new(ip, port))
}

/// When it started; engines write the year 1 where it never did.
fn since(state: &ContainerState) -> Option<Timestamp> {
    let at: Timestamp = state.started_at.as_deref()?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

fn health(state: &ContainerState) -> Health {
    health_named(state.health.as_ref().and_then(|health| health.status))
}

fn health_named(status: Option<HealthStatusEnum>) -> Health {
    match status {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::Unchecked,
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
    }
}

/// How it ended. A container whose program never started, or that was lost with the machine, ended unseen.
pub(super) fn exit(state: &ContainerState) -> Exit {
    if since(state).is_none() {
        return Exit::default();
    }
    let out_of_memory = state.oom_killed == Some(true);
    Exit { out_of_memory, ..exit_of_code(state.exit_code) }
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

    fn ended(code: i64, oom: bool) -> ContainerState {
        ContainerState {
            started_at: Some("2026-11-21T01:07:50.462341491Z".to_owned()),
            exit_code: Some(code),
            oom_killed: Some(oom),
            ..Default::default()
        }
    }

    #[test]
    fn codes_beyond_128_are_signals() {
        assert_eq!(exit(&ended(3, false)), Exit { code: Some(3), ..Exit::default() });
        assert_eq!(exit(&ended(137, true)), Exit { signal: Some(9), out_of_memory: true, ..Exit::default() });
        assert_eq!(exit(&ended(255, false)), Exit { code: Some(255), ..Exit::default() });
    }

    #[test]
    fn a_container_that_never_started_ended_unseen() {
        let state = ContainerState { started_at: Some("0001-01-01T00:00:00Z".to_owned()), ..ended(0, false) };
        assert_eq!(exit(&state), Exit::default());
    }
}

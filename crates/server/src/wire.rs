//! From the words of the inside to those of the wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use coracle_api::{self as api, AppState, InstanceState, InstanceStatus, ProcessStatus};
use coracle_engine as engine;
use coracle_model::{ProcessSource, Release};
use coracle_orchestrator as orchestrator;
use coracle_store::ConfigEntry;

pub(crate) fn stream(stream: engine::Stream) -> api::Stream {
    match stream {
        engine::Stream::Stdout => api::Stream::Stdout,
        engine::Stream::Stderr => api::Stream::Stderr,
    }
}

pub(crate) fn output_line(line: engine::OutputLine) -> api::OutputLine {
    api::OutputLine { stream: stream(line.stream), text: line.text }
}

pub(crate) fn exit(exit: engine::Exit) -> api::Exit {
    api::Exit { code: exit.code, signal: exit.signal, out_of_memory: exit.out_of_memory }
}

pub(crate) fn instance(it: engine::Instance) -> InstanceStatus {
    let state = match it.state {
        engine::InstanceState::Running { health, since, .. } => InstanceState::Running { health: self::health(health), since },
        engine::InstanceState::Exited(exit) => InstanceState::Exited { exit: self::exit(exit) },
    };
    InstanceStatus { process: it.id.process.clone(), release: it.id.release, id: it.id, state }
}

fn health(health: engine::Health) -> api::Health {
    match health {
        engine::Health::Unchecked => api::Health::Unchecked,
        engine::Health::Starting => api::Health::Starting,
        engine::Health::Healthy => api::Health::Healthy,
        engine::Health::Unhealthy => api::Health::Unhealthy,
    }
}

/// A configuration entry; what was set as a secret loses its value here, and this is the only way to the wire.
pub(crate) fn config_entry(entry: ConfigEntry) -> api::ConfigEntry {
    let value = (!entry.secret).then(|| entry.value.expose().to_owned());
    api::ConfigEntry { name: entry.name, value, secret: entry.secret, updated_at: entry.updated_at }
}

fn made_from(source: &ProcessSource) -> String {
    match source {
        ProcessSource::Image { reference, .. } => reference.clone(),
        ProcessSource::Build(build) => format!("built from {}", build.context),
    }
}

/// Addresses that a browser can open, for the hosts that are no patterns; each with its path prefix.
pub(crate) fn urls<'a>(reached: impl IntoIterator<Item = (&'a str, &'a str)>, http: &[SocketAddr]) -> Vec<String> {
    let Some(port) = http.first().map(SocketAddr::port) else { return Vec::new() };
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    let reached = reached.into_iter().filter(|(host, _)| !host.contains('*'));
    reached.map(|(host, prefix)| format!("http://{host}{port}{}", if prefix == "/" { "" } else { prefix })).collect()
}

/// The names by which a release is reached, each with its path prefix.
pub(crate) fn reached(release: Option<&Release>) -> Vec<(String, String)> {
    release.map(orchestrator::reached_at).unwrap_or_default()
}

pub(crate) fn hosts(release: Option<&Release>) -> Vec<String> {
    reached(release).into_iter().map(|(host, _)| host).collect()
}

pub(crate) fn app_status(status: orchestrator::AppStatus, http: &[SocketAddr]) -> api::AppStatus {
    let active = status.release.as_ref().map(|release| release.number);
    let mut running: BTreeMap<_, u32> = BTreeMap::new();
    for instance in status.instances.iter().filter(|it| it.is_running() && Some(it.id.release) == active) {
        *running.entry(instance.id.process.clone()).or_default() += 1;
    }
    let processes: Vec<ProcessStatus> = status
        .wanted
        .iter()
        .map(|(name, wanted)| ProcessStatus {
            name: name.clone(),
            wanted: u32::from(*wanted),
            running: running.get(name).copied().unwrap_or(0),
        })
        .collect();
    let services = status.services.len() as u32;
    let is_up = |it: &&orchestrator::ServiceStatus| status.instances.iter().any(|own| own.id == it.instance && own.is_running());
    let services_up = status.services.iter().filter(is_up).count() as u32;
    let wanted = processes.iter().map(|process| process.wanted).sum::<u32>() + services;
    // A process that runs more than it should (it is being scaled down) does not make up for one that runs less.
    let running = processes.iter().map(|process| process.running.min(process.wanted)).sum::<u32>() + services_up;
    let ready = status.ready;
    let serving = status.release.as_ref().map(Release::serving).unwrap_or_default();
    let probed = |it: engine::Instance| {
        let is_ready = ready.contains(&it.id);
        let is_service = status.services.iter().any(|service| service.instance == it.id);
        let probed = serving.contains(&it.id.process) && (is_service || Some(it.id.release) == active);
        let mut shown = instance(it);
        // Without a HEALTHCHECK of its own, it is our probe that counts.
        if let InstanceState::Running { health: health @ api::Health::Unchecked, .. } = &mut shown.state
            && probed
        {
            *health = if is_ready { api::Health::Healthy } else { api::Health::Starting };
        }
        shown
    };
    let instances: Vec<InstanceStatus> = status.instances.into_iter().map(probed).collect();
    let service = |it: &orchestrator::ServiceStatus| api::ServiceStatus {
        name: it.instance.process.clone(),
        image: it.source.as_ref().map(made_from),
        release: it.instance.release,
        state: instances.iter().find(|own| own.id == it.instance).map(|own| own.state.clone()),
    };
    let services = status.services.iter().map(service).collect();
    let reached = reached(status.release.as_ref());
    api::AppStatus {
        name: status.record.name,
        state: AppState::of(active, wanted, running),
        urls: urls(reached.iter().map(|(host, prefix)| (host.as_str(), prefix.as_str())), http),
        hosts: reached.into_iter().map(|(host, _)| host).collect(),
        release: status.release.map(|release| api::Release::new(release, active)),
        processes,
        services,
        instances,
        deployment: status.deployment.map(api::Deployment::from),
        waiting: status.waiting.map(api::Deployment::from),
        created_at: status.record.created_at,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_value_of_a_secret_does_not_reach_the_wire() {
        let entry = |secret| ConfigEntry {
            name: "KEY".parse().unwrap(),
            value: "hunter2".into(),
            secret,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!(!serde_json::to_string(&config_entry(entry(true))).unwrap().contains("hunter2"));
        assert!(serde_json::to_string(&config_entry(entry(false))).unwrap().contains("hunter2"));
    }

    #[test]
    fn addresses_leave_the_usual_port_and_patterns_out() {
        let http = |port| [SocketAddr::from(([0, 0, 0, 0], port))];
        assert_eq!(urls([("a.localhost", "/"), ("*.b", "/"), ("*", "/")], &http(8080)), ["http://a.localhost:8080"]);
        assert_eq!(urls([("a.example", "/api")], &http(80)), ["http://a.example/api"]);
        assert!(urls([("a", "/")], &[]).is_empty());
    }
}

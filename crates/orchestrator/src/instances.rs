//! From a release to the instances that run it.

use coracle_engine::{InstanceSpec, runtime::PortRequest};
use coracle_model::{CommandLine, EnvName, InstanceId, ProcessName, ProcessSpec, Release, Secret};

/// The port told to a container whose image exposes none.
const DEFAULT_PORT: u16 = 8080;

/// The name a release command runs under.
pub(crate) const RELEASE_COMMAND: &str = "release-command";
/// The name one-off processes run under.
pub(crate) const ONE_OFF: &str = "run";

/// A process name of ours that is known to be one.
pub(crate) fn reserved(name: &'static str) -> ProcessName {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a process name"))
}

/// The environment of every instance of a release: the manifest's plain values, the configuration on top, and who it is.
pub(crate) fn environment(release: &Release, config: &[(EnvName, Secret)], process: &ProcessName) -> Vec<(EnvName, Secret)> {
    let identity = [
        ("CORACLE_APP", release.app.to_string()),
        ("CORACLE_RELEASE", release.number.to_string()),
        ("CORACLE_PROCESS", process.to_string()),
    ];
    let mut env: std::collections::BTreeMap<EnvName, Secret> =
        release.spec.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
    env.extend(config.iter().cloned());
    env.extend(identity.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, Secret::new(value)))));
    env.into_iter().collect()
}

/// What to start for the `index`-th instance of `process`.
pub(crate) fn instance_spec(
    release: &Release,
    config: &[(EnvName, Secret)],
    process: &ProcessName,
    spec: &ProcessSpec,
    index: u16,
) -> InstanceSpec {
    let port = release.spec.http.port.or(release.artifact.port).unwrap_or(DEFAULT_PORT);
    InstanceSpec {
        id: InstanceId { app: release.app.clone(), release: release.number, process: process.clone(), index },
        artifact: release.artifact.id.clone(),
        command: spec.command.clone(),
        env: environment(release, config, process),
        port: if process.is_web() { PortRequest::Listen(port) } else { PortRequest::None },
        limits: spec.limits,
        volumes: spec.volumes.clone(),
        surroundings: Default::default(),
    }
}

/// What to run once, with the release's code and configuration: the release command, or what a person asked for. Volumes
/// and limits are those of `web`, since that is what such commands act upon.
pub(crate) fn one_off_spec(
    release: &Release,
    config: &[(EnvName, Secret)],
    name: &'static str,
    command: CommandLine,
    index: u16,
) -> InstanceSpec {
    let process = reserved(name);
    let mut processes = release.processes();
    let like = processes.remove(&ProcessName::web()).or_else(|| processes.pop_first().map(|(_, spec)| spec)).unwrap_or_default();
    instance_spec(release, config, &process, &ProcessSpec { command: Some(command), replicas: 1, ..like }, index)
}

//! What an instance is meant to be, as the engine wants a container described.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use coracle_engine::{Bind, EngineError, InstanceSpec, PortRequest};
use coracle_model::{Cpus, Limits, VolumeMount};

use super::container::cannot_start;
use super::network::Wanted;
use super::{ContainerRuntime, files, settings};
use crate::client::{Client, status, timely};
use crate::labels;

impl ContainerRuntime {
    /// The container of an instance, as the engine wants it described.
    pub(super) async fn describe(&self, spec: &InstanceSpec) -> Result<ContainerCreateBody, EngineError> {
        if let Some(name) = cannot_honour(&spec.limits).first() {
            return Err(cannot_start(spec, &format!("{name} is for processes of the machine: use engine = \"process\"")));
        }
        let image = self.client.image(&spec.artifact).await?;
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        env.extend(spec.env.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned())));
        let port = match spec.port {
            PortRequest::None => None,
            PortRequest::Listen(port) | PortRequest::Neighbours(port) => Some(port),
        };
        if let PortRequest::Listen(port) = spec.port {
            env.insert("PORT".to_owned(), port.to_string());
        }
        let container = &spec.surroundings.container;
        env.extend(container.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        let mut entrypoint = None;
        if let Some(command) = &spec.command {
            let (assigned, argv) = command.expand(&|name| env.get(name).or_else(|| image.env.get(name)).cloned());
            env.extend(assigned.into_iter().map(|(name, value)| (name.to_string(), value)));
            entrypoint = Some(argv);
        }
        self.check_foreign_volumes(spec).await?;
        let mut binds = spec.surroundings.binds.clone();
        if !spec.surroundings.files.is_empty() && !self.client.socket.is_local() {
            return Err(cannot_start(spec, "its files cannot be brought to an engine on another machine"));
        }
        binds.extend(files::write(&self.client.state_dir, spec).await?);
        let network = self.home(spec).name;
        let endpoint = EndpointSettings { aliases: Some(aliases(spec)), ..Default::default() };
        let has_start_interval = self.client.facts.api_at_least(44);
        let mut host = host_config(&self.client, spec, port, &network, &binds);
        settings::apply_to_host(container, &mut host);
        let mut body = ContainerCreateBody {
            image: Some(spec.artifact.to_string()),
            // An entrypoint of ours also takes the image's CMD away.
            entrypoint,
            env: Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels::of_container(&self.client.owner, &spec.id, port)),
            exposed_ports: port.map(|port| vec![format!("{port}/tcp")]),
            healthcheck: has_start_interval.then(eager_healthcheck),
            host_config: Some(host),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) }),
            ..Default::default()
        };
        settings::apply(container, &mut body, has_start_interval);
        Ok(body)
    }

    /// The network that the instance is created in.
    pub(super) fn home(&self, spec: &InstanceSpec) -> Wanted {
        let (owner, id) = (&self.client.owner, &spec.id);
        match &spec.surroundings.apart {
            Some(name) => Wanted::apart(owner, &id.app, id.release, name),
            None if spec.surroundings.lives_with_app => Wanted::of_app(owner, &id.app),
            None => Wanted::of_release(owner, &id.app, id.release),
        }
    }

    /// The engine would make a volume that is not there, and whoever counts on its data would find none.
    async fn check_foreign_volumes(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        for name in spec.volumes.iter().filter_map(|volume| volume.external.as_deref()) {
            if !self.has_volume(name).await? {
                return Err(cannot_start(spec, &format!("there is no volume {name}, and it is not Coracle's to make")));
            }
        }
        Ok(())
    }

    /// Whether there is a volume of this name, whoever made it.
    pub(super) async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        match timely(self.client.docker.inspect_volume(name)).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.client.error(format!("look for the volume {name}"), &error)),
        }
    }
}

/// Which limits containers cannot have.
pub(super) fn cannot_honour(limits: &Limits) -> Vec<&'static str> {
    limits.delegate_cgroup.then_some("delegate_cgroup").into_iter().collect()
}

/// The names by which others in a network reach an instance.
pub(super) fn aliases(spec: &InstanceSpec) -> Vec<String> {
    let mut aliases = vec![spec.id.process.to_string()];
    aliases.extend(spec.surroundings.container.aliases.iter().filter(|alias| **alias != *spec.id.process.as_str()).cloned());
    aliases
}

/// Asks the image's own check, if it has one, every second until it passes first, instead of after its usual interval of
/// 30 seconds. What is not named here stays as the image says.
fn eager_healthcheck() -> HealthConfig {
    const SECOND: i64 = 1_000_000_000;
    HealthConfig { start_period: Some(60 * SECOND), start_interval: Some(SECOND), ..Default::default() }
}

fn host_config(client: &Client, spec: &InstanceSpec, port: Option<u16>, network: &str, binds: &[Bind]) -> HostConfig {
    let Limits { memory, cpus, pids, delegate_cgroup: _ } = spec.limits;
    let memory = memory.map(|memory| i64::try_from(memory.get()).unwrap_or(i64::MAX));
    let can = client.facts.limits;
    let published = port.filter(|_| !client.facts.containers_reachable);
    HostConfig {
        memory: memory.filter(|_| can.memory),
        // The same figure for both means no swap.
        memory_swap: memory.filter(|_| can.memory),
        nano_cpus: cpus.filter(|_| can.cpus).map(|cpus| nano_cpus(cpus, client.facts.cpus)),
        pids_limit: can.pids.then_some(i64::from(pids)),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "3".into())])),
        }),
        network_mode: Some(network.to_owned()),
        mounts: Some(
            spec.volumes
                .iter()
                .map(|volume| mount(client, spec, volume))
                .chain(binds.iter().map(settings::bind))
                .chain(spec.surroundings.container.anonymous_volumes.iter().map(|path| settings::anonymous(path)))
                .collect(),
        ),
        port_bindings: published.map(|port| HashMap::from([(format!("{port}/tcp"), Some(vec![on_loopback()]))])),
        ..Default::default()
    }
}

fn on_loopback() -> PortBinding {
    PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some("0".to_owned()) }
}

/// Engines refuse more processors than the machine has, and less than a hundredth of one.
fn nano_cpus(cpus: Cpus, available: u32) -> i64 {
    i64::from(cpus.as_milli().clamp(10, available.saturating_mul(1000))) * 1_000_000
}

/// The engine makes a volume with these labels if there is none of that name.
fn mount(client: &Client, spec: &InstanceSpec, volume: &VolumeMount) -> Mount {
    if let Some(name) = &volume.external {
        return Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(volume.path.clone()),
            read_only: Some(volume.read_only),
            ..Default::default()
        };
    }
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(labels::volume_name(&client.owner, &spec.id.app, &volume.name)),
        target: Some(volume.path.clone()),
        read_only: Some(volume.read_only),
        volume_options: Some(MountVolumeOptions {
            labels: Some(labels::of_volume(&client.owner, &spec.id.app, &volume.name)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

//! Containers from what an instance is meant to be.

use std::collections::{BTreeMap, HashMap};

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions};
use coracle_engine::{EngineError, Exit, Instance, InstanceSpec, InstanceState, OutputSink, PortRequest};
use coracle_model::{Cpus, Limits};
use futures::StreamExt;

use super::{ContainerRuntime, lacks_network, logs};
use crate::client::{Client, is_unreachable, message, status, timely};
use crate::facts::Flavour;
use crate::labels;
use crate::lines::Interleaved;

/// What Docker leaves a container by default and a web app does not need. What stays: changing owners and users, binding
/// low ports, signalling its own children.
const DROPPED_CAPABILITIES: [&str; 7] = ["AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT"];

/// How often a name that is taken by a dying container is tried again.
const ATTEMPTS: usize = 3;

/// What stands in a container's way.
enum Obstacle {
    /// It runs already.
    Running(Instance),
    /// One of its name has ended.
    Ended(String),
}

impl ContainerRuntime {
    pub(super) async fn start_container(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        let body = self.describe(spec).await?;
        for _ in 0..ATTEMPTS {
            match self.create(spec, body.clone()).await? {
                Ok(container) => {
                    self.launch(spec, &container).await?;
                    let seen = self.look(&container).await?;
                    return seen.map(|seen| seen.instance).ok_or_else(|| EngineError::NoSuchInstance(spec.id.clone()));
                }
                Err(Obstacle::Running(instance)) => return Ok(instance),
                Err(Obstacle::Ended(container)) => self.remove(&container).await?,
            }
        }
        Err(cannot_start(spec, "its name stays taken"))
    }

    /// Runs a container to its end. The caller removes it.
    pub(super) async fn run_container(&self, spec: &InstanceSpec, output: &OutputSink) -> Result<Exit, EngineError> {
        let mut body = self.describe(spec).await?;
        (body.attach_stdout, body.attach_stderr) = (Some(true), Some(true));
        // One that a server left behind when it died would run beside this one.
        self.remove_ours(&self.name(&spec.id)).await?;
        let Ok(container) = self.create(spec, body).await? else {
            return Err(cannot_start(spec, "its name is taken"));
        };
        let failed = |error: &Error| self.client.error(format!("run {}", spec.id), error);
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let mut attached = timely(self.docker().attach_container(&container, Some(options))).await.map_err(|e| failed(&e))?;
        self.launch(spec, &container).await?;
        let mut lines = Interleaved::new(output);
        while let Some(piece) = attached.output.next().await {
            match piece {
                Ok(piece) => logs::tell(&mut lines, piece),
                Err(error) => return Err(failed(&error)),
            }
        }
        lines.finish();
        self.wait(spec, &container).await
    }

    async fn wait(&self, spec: &InstanceSpec, container: &str) -> Result<Exit, EngineError> {
        let patient = self.client.patient();
        let mut ended = std::pin::pin!(patient.wait_container(container, None));
        match ended.next().await {
            // The library calls a code other than 0 an error.
            None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {}
            Some(Err(error)) => return Err(self.client.error(format!("wait for {}", spec.id), &error)),
        }
        match self.look(container).await?.map(|seen| seen.instance.state) {
            Some(InstanceState::Exited(exit)) => Ok(exit),
            // Somebody removed it, or started it again, behind our back.
            Some(InstanceState::Running { .. }) | None => Ok(Exit::default()),
        }
    }

    /// Removes the container of that name if it is ours.
    pub(super) async fn remove_ours(&self, name: &str) -> Result<(), EngineError> {
        match self.look(name).await? {
            Some(seen) => self.remove(&seen.container).await,
            None => Ok(()),
        }
    }

    /// Creates the container and its network, both at once where that is possible.
    async fn create(&self, spec: &InstanceSpec, body: ContainerCreateBody) -> Result<Result<String, Obstacle>, EngineError> {
        let name = self.name(&spec.id);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let create = timely(self.docker().create_container(Some(options), body));
        let (network, created) = match self.client.facts.flavour {
            Flavour::Docker => tokio::join!(self.networks.ensure(&spec.id), create),
            // Podman looks for the network when the container is created, not when it is started.
            Flavour::Podman => (Ok(self.networks.ensure(&spec.id).await?), create.await),
        };
        match (created, network) {
            (Ok(created), Ok(_)) => Ok(Ok(created.id)),
            (Ok(created), Err(error)) => {
                self.remove(&created.id).await?;
                Err(error)
            }
            (Err(error), _) => self.obstacle(spec, &name, &error).await.map(Err),
        }
    }

    /// Why a container could not be created.
    async fn obstacle(&self, spec: &InstanceSpec, name: &str, error: &Error) -> Result<Obstacle, EngineError> {
        let text = message(error);
        // Podman answers 500 where Docker answers 409 and 404.
        let is_taken = status(error) == Some(409) || text.contains("is already in use");
        match status(error) {
            _ if is_taken => match self.look(name).await? {
                Some(seen) if seen.instance.is_running() => Ok(Obstacle::Running(seen.instance)),
                Some(seen) => Ok(Obstacle::Ended(seen.container)),
                None if self.client.container(name).await?.is_some() => {
                    Err(cannot_start(spec, &format!("a container named {name} exists and is not ours")))
                }
                None => Ok(Obstacle::Ended(name.to_owned())),
            },
            Some(404) if text.to_lowercase().contains("no such image") => {
                self.client.forget_image(&spec.artifact);
                Err(EngineError::NoSuchArtifact(spec.artifact.clone()))
            }
            _ if lacks_network(error) => {
                self.networks.forget(&labels::network_name(&self.client.owner, &spec.id.app, spec.id.release));
                Ok(Obstacle::Ended(name.to_owned()))
            }
            Some(400 | 404) => Err(cannot_start(spec, &text)),
            _ => Err(self.client.error(format!("create container {}", spec.id), error)),
        }
    }

    /// Starts a created container; removes it if it cannot be started.
    async fn launch(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let start = || timely(self.docker().start_container(container, None::<StartContainerOptions>));
        let mut started = start().await;
        if started.as_ref().is_err_and(lacks_network) {
            // Removed by somebody since we last saw it.
            self.networks.forget(&labels::network_name(&self.client.owner, &spec.id.app, spec.id.release));
            self.networks.ensure(&spec.id).await?;
            started = start().await;
        }
        let Err(error) = started else { return Ok(()) };
        let failure = match self.client.error(format!("start {}", spec.id), &error) {
            EngineError::Failed { cause, .. } => cannot_start(spec, &cause),
            other => other,
        };
        if !is_unreachable(&error) {
            self.remove(container).await?;
        }
        Err(failure)
    }

    /// The container of an instance, as the engine wants it described.
    async fn describe(&self, spec: &InstanceSpec) -> Result<ContainerCreateBody, EngineError> {
        let image = self.client.image(&spec.artifact).await?;
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        env.extend(spec.env.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned())));
        let port = match spec.port {
            PortRequest::None => None,
            PortRequest::Listen(port) => Some(port),
        };
        env.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
        let mut entrypoint = None;
        if let Some(command) = &spec.command {
            let (assigned, argv) = command.expand(&|name| env.get(name).or_else(|| image.env.get(name)).cloned());
            env.extend(assigned.into_iter().map(|(name, value)| (name.to_string(), value)));
            entrypoint = Some(argv);
        }
        let network = labels::network_name(&self.client.owner, &spec.id.app, spec.id.release);
        let endpoint = EndpointSettings { aliases: Some(vec![spec.id.process.to_string()]), ..Default::default() };
        Ok(ContainerCreateBody {
            image: Some(spec.artifact.to_string()),
            // An entrypoint of ours also takes the image's CMD away.
            entrypoint,
            env: Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels::of_container(&self.client.owner, &spec.id, port)),
            exposed_ports: port.map(|port| vec![format!("{port}/tcp")]),
            healthcheck: self.client.facts.api_at_least(44).then(eager_healthcheck),
            host_config: Some(host_config(&self.client, spec, port, &network)),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) }),
            ..Default::default()
        })
    }
}

fn cannot_start(spec: &InstanceSpec, cause: &str) -> EngineError {
    EngineError::CannotStart { id: spec.id.clone(), cause: cause.to_owned() }
}

/// Asks the image's own check, if it has one, every second until it passes first, instead of after its usual interval of
/// 30 seconds. What is not named here stays as the image says.
fn eager_healthcheck() -> HealthConfig {
    const SECOND: i64 = 1_000_000_000;
    HealthConfig { start_period: Some(60 * SECOND), start_interval: Some(SECOND), ..Default::default() }
}

fn host_config(client: &Client, spec: &InstanceSpec, port: Option<u16>, network: &str) -> HostConfig {
    let Limits { memory, cpus, pids } = spec.limits;
    let memory = memory.map(|memory| i64::try_from(memory.get()).unwrap_or(i64::MAX));
    let can = client.facts.limits;
    let published = port.filter(|_| !client.facts.containers_reachable);
    HostConfig {
        memory: memory.filter(|_| can.memory),
        // The same figure for both means no swap.
        memory_swap: memory.filter(|_| can.memory),
        nano_cpus: cpus.filter(|_| can.cpus).map(|cpus| nano_cpus(cpus, client.facts.cpus)),
        pids_limit: can.pids.then_some(i64::from(pids)),
        init: Some(true),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cap_drop: Some(DROPPED_CAPABILITIES.map(str::to_owned).to_vec()),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "3".into())])),
        }),
        network_mode: Some(network.to_owned()),
        mounts: Some(spec.volumes.iter().map(|volume| mount(client, spec, volume)).collect()),
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
fn mount(client: &Client, spec: &InstanceSpec, volume: &coracle_model::VolumeMount) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(labels::volume_name(&client.owner, &spec.id.app, &volume.name)),
        target: Some(volume.path.clone()),
        volume_options: Some(MountVolumeOptions {
            labels: Some(labels::of_volume(&client.owner, &spec.id.app, &volume.name)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

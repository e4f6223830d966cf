//! Runs instances as containers: one container per instance, one network per release.

mod container;
mod describe;
mod events;
mod exec;
mod files;
mod handed;
mod logs;
mod network;
mod settings;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, RestartContainerOptionsBuilder,
    StatsOptionsBuilder, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use coracle_engine::{
    EngineError, Exit, Instance, InstanceEvent, InstanceSpec, Isolation, LogLine, LogQuery, Missing, OutputSink, Runtime, Stats,
};
use coracle_model::{AppName, InstanceId, ProcessSpec, ReleaseNumber, Span};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, message, status, timely};
use crate::labels;
use crate::runtime::network::{Networks, Wanted};
use crate::turns::Turns;

/// How many containers are asked about at once.
const AT_ONCE: usize = 8;

/// How much longer than the grace period the engine gets to kill and clean up.
const AFTER_GRACE: Duration = Duration::from_secs(30);

/// Runs instances as containers.
pub(crate) struct ContainerRuntime {
    client: Arc<Client>,
    networks: Networks,
    /// One start of an instance at a time, so that two calls do not take each other's half-made container for a dead one.
    turns: Turns<InstanceId>,
}

impl ContainerRuntime {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { networks: Networks::new(client.clone()), turns: Turns::default(), client }
    }

    fn docker(&self) -> &Docker {
        &self.client.docker
    }

    fn name(&self, id: &InstanceId) -> String {
        labels::container_name(&self.client.owner, id)
    }

    /// The instance behind a container's name or id; `None` if there is no such container.
    async fn look(&self, container: &str) -> Result<Option<state::Seen>, EngineError> {
        Ok(self.client.container(container).await?.and_then(|seen| state::Seen::new(&self.client, seen)))
    }

    /// The name of an instance's container, if there is one and it is ours.
    async fn ours(&self, id: &InstanceId) -> Result<String, EngineError> {
        let name = self.name(id);
        self.look(&name).await?.map(|_| name).ok_or_else(|| EngineError::NoSuchInstance(id.clone()))
    }

    /// Removes a container, whatever it does, with its anonymous volumes.
    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match timely(self.docker().remove_container(container, Some(options))).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody else is removing it: wait until it is gone, so that its name is free when this returns.
            Err(error) if status(&error) == Some(409) => self.wait_until_gone(container).await,
            Err(error) => Err(self.client.error(format!("remove {container}"), &error)),
        }
    }

    async fn wait_until_gone(&self, container: &str) -> Result<(), EngineError> {
        let gone = async {
            while matches!(self.client.container(container).await, Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(AFTER_GRACE, gone).await.map_err(|_| EngineError::TimedOut {
            action: format!("remove {container}"),
            limit: Span::seconds(AFTER_GRACE.as_secs()),
        })
    }

    async fn remove_volumes(&self, app: &AppName) -> Result<(), EngineError> {
        let filter = labels::filter(&[(labels::OWNER, self.client.owner.as_str()), (labels::APP, app.as_str())]);
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let listed = timely(self.docker().list_volumes(Some(options))).await;
        let volumes = listed.map_err(|error| self.client.error("list volumes", &error))?.volumes.unwrap_or_default();
        for volume in volumes {
            match timely(self.docker().remove_volume(&volume.name, None::<RemoveVolumeOptions>)).await {
                Err(error) if status(&error) != Some(404) => {
                    return Err(self.client.error(format!("remove volume {}", volume.name), &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Runtime for ContainerRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        let _turn = self.turns.take(&spec.id).await;
        Box::pin(self.start_container(spec)).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let name = self.name(id);
        files::remove(&self.client.state_dir, id);
        if self.look(&name).await?.is_none() {
            return Ok(());
        }
        // The engine counts in whole seconds; we keep the exact time ourselves, and removal kills what is left.
        let seconds = i32::try_from(grace.as_secs() + 1).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.docker().clone().with_timeout(grace + AFTER_GRACE);
        match tokio::time::timeout(grace, docker.stop_container(&name, Some(options))).await {
            Ok(Err(error)) if status(&error) == Some(404) => return Ok(()),
            Ok(Err(error)) if crate::client::is_unreachable(&error) => {
                return Err(self.client.error(format!("stop {id}"), &error));
            }
            Ok(Err(error)) => tracing::warn!(%id, error = message(&error), "stopping failed; removing by force"),
            Ok(Ok(())) | Err(_) => {}
        }
        self.remove(&name).await
    }

    async fn list(&self) -> Result<Vec<Instance>, EngineError> {
        let ids = self.client.containers(&[(labels::OWNER, self.client.owner.as_str())]).await?;
        let seen: Vec<_> = futures::stream::iter(ids)
            .map(|container| async move { self.look(&container).await })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut instances = Vec::with_capacity(seen.len());
        for one in seen {
            // One that vanished between the two questions is simply not there any more.
            instances.extend(one?.map(|seen| seen.instance));
        }
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(instances)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<Instance>, EngineError> {
        Ok(self.look(&self.name(id)).await?.map(|seen| seen.instance))
    }

    async fn logs(
        &self,
        id: &InstanceId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let name = self.name(id);
        let seen = self.look(&name).await?.ok_or_else(|| EngineError::NoSuchInstance(id.clone()))?;
        // By the container's id: a follower must not slip over to a successor of the same name.
        Ok(logs::read(self.client.clone(), seen.container, query))
    }

    async fn stats(&self, id: &InstanceId) -> Result<Stats, EngineError> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let name = self.name(id);
        let mut answers = std::pin::pin!(self.docker().stats(&name, Some(options)));
        let first = timely(async { answers.next().await.transpose() }).await;
        match first {
            Ok(Some(stats)) => state::stats(&stats).ok_or_else(|| EngineError::NoSuchInstance(id.clone())),
            Ok(None) => Err(EngineError::NoSuchInstance(id.clone())),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Err(EngineError::NoSuchInstance(id.clone())),
            Err(error) => Err(self.client.error(format!("read statistics of {id}"), &error)),
        }
    }

    async fn exec(
        &self,
        id: &InstanceId,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        exec::run(&self.client, id, &self.name(id), argv, output, cancel).await
    }

    async fn run(
        &self,
        spec: &InstanceSpec,
        output: &OutputSink,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let _turn = self.turns.take(&spec.id).await;
        let name = self.name(&spec.id);
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            () = tokio::time::sleep(deadline) => Err(EngineError::TimedOut {
                action: spec.id.to_string(),
                limit: Span::millis(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
            }),
            exit = self.run_container(spec, output) => exit,
        };
        let removed = self.remove_ours(&name).await;
        files::remove(&self.client.state_dir, &spec.id);
        let exit = result?;
        removed?;
        Ok(exit)
    }

    fn events(&self) -> BoxStream<'static, InstanceEvent> {
        events::listen(self.client.clone())
    }

    async fn prepare_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.networks.ensure(&Wanted::of_release(&self.client.owner, app, release)).await
    }

    async fn remove_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.networks.remove_all_of_release(app, release).await
    }

    async fn remove_apart(&self, app: &AppName, release: ReleaseNumber, name: &str) -> Result<(), EngineError> {
        self.networks.remove(&labels::apart_network_name(&self.client.owner, app, release, name)).await
    }

    async fn remove_app(&self, app: &AppName) -> Result<(), EngineError> {
        let containers =
            self.client.containers(&[(labels::OWNER, self.client.owner.as_str()), (labels::APP, app.as_str())]).await?;
        let removed: Vec<_> = futures::stream::iter(containers)
            .map(|container| async move { self.remove(&container).await })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        removed.into_iter().collect::<Result<(), _>>()?;
        files::remove_all_of(&self.client.state_dir, app);
        self.networks.remove_all_of(app).await?;
        self.remove_volumes(app).await
    }

    async fn join(&self, id: &InstanceId, release: ReleaseNumber, aliases: &[String]) -> Result<(), EngineError> {
        let network = Wanted::of_release(&self.client.owner, &id.app, release);
        let names: Vec<String> = std::iter::once(id.process.to_string()).chain(aliases.iter().cloned()).collect();
        self.networks.join(&network, &self.name(id), &names).await
    }

    async fn put(&self, id: &InstanceId, archive: Vec<u8>) -> Result<(), EngineError> {
        let name = self.ours(id).await?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let put = timely(self.docker().upload_to_container(&name, Some(options), bollard::body_full(archive.into()))).await;
        put.map_err(|error| self.client.error(format!("copy files into {id}"), &error))
    }

    async fn restart(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let name = self.ours(id).await?;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = RestartContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.docker().clone().with_timeout(grace + AFTER_GRACE);
        let restarted = docker.restart_container(&name, Some(options)).await;
        restarted.map_err(|error| self.client.error(format!("restart {id}"), &error))
    }

    fn cannot_honour(&self, part: &ProcessSpec) -> Vec<&'static str> {
        describe::cannot_honour(&part.limits)
    }

    async fn missing(&self, part: &ProcessSpec) -> Result<Vec<Missing>, EngineError> {
        let mut missing = Vec::new();
        for network in &part.container.networks {
            if !self.networks.is_there(&network.name).await? {
                let next = format!("docker network create {}", network.name);
                missing.push(Missing { what: format!("network {}", network.name), next });
            }
        }
        for volume in part.volumes.iter().filter_map(|volume| volume.external.as_deref()) {
            if !self.has_volume(volume).await? {
                missing.push(Missing { what: format!("volume {volume}"), next: format!("docker volume create {volume}") });
            }
        }
        Ok(missing)
    }

    fn isolation(&self) -> Isolation {
        self.client.facts.isolation()
    }
}

/// Whether the engine says that the container's network is not there.
fn lacks_network(error: &Error) -> bool {
    let text = message(error);
    // Podman adds its own words: `unable to find network with name or ID x: network not found`.
    text.contains("network") && text.contains("not found")
}

/// An address on this machine's loopback interface.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

//! Containers from what an instance is meant to be.

use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions};
use coracle_engine::{EngineError, Exit, Instance, InstanceSpec, InstanceState, OutputSink};
use futures::StreamExt;

use super::network::Wanted;
use super::{ContainerRuntime, describe, lacks_network, logs};
use crate::client::{is_unreachable, message, status, timely};
use crate::facts::Flavour;
use crate::lines::Interleaved;

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
                    self.join_others(spec, &container).await?;
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
        self.join_others(spec, &container).await?;
        self.prepare(spec, &container).await?;
        self.launch(spec, &container).await?;
        spec.surroundings.started.now();
        let mut lines = Interleaved::new(output);
        while let Some(piece) = attached.output.next().await {
            match piece {
                Ok(piece) => logs::tell(&mut lines, piece),
                Err(error) => return Err(failed(&error)),
            }
        }
        lines.finish();
        let exit = self.wait(spec, &container).await?;
        if exit.success() {
            self.take_out(spec, &container).await?;
        }
        Ok(exit)
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
        let (name, home) = (self.name(&spec.id), self.home(spec));
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let create = timely(self.docker().create_container(Some(options), body));
        let (network, created) = match self.client.facts.flavour {
            Flavour::Docker => tokio::join!(self.networks.ensure(&home), create),
            // Podman looks for the network when the container is created, not when it is started.
            Flavour::Podman => (Ok(self.networks.ensure(&home).await?), create.await),
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
                self.networks.forget(&self.home(spec).name);
                Ok(Obstacle::Ended(name.to_owned()))
            }
            Some(400 | 404) => Err(cannot_start(spec, &text)),
            _ => Err(self.client.error(format!("create container {}", spec.id), error)),
        }
    }

    /// Lets a container that was created into the networks beside its home; removes it if that cannot be.
    async fn join_others(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let surroundings = &spec.surroundings;
        let aliases = describe::aliases(spec);
        let joined = async {
            for release in &surroundings.joins {
                let network = Wanted::of_release(&self.client.owner, &spec.id.app, *release);
                self.networks.join(&network, container, &aliases).await?;
            }
            for network in &surroundings.container.networks {
                self.networks.join_foreign(network, container, &aliases).await?;
            }
            Ok(())
        };
        match joined.await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.remove(container).await?;
                match error {
                    EngineError::Failed { cause, .. } => Err(cannot_start(spec, &cause)),
                    other => Err(other),
                }
            }
        }
    }

    /// Starts a created container; removes it if it cannot be started.
    async fn launch(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let start = || timely(self.docker().start_container(container, None::<StartContainerOptions>));
        let mut started = start().await;
        if started.as_ref().is_err_and(lacks_network) {
            // Removed by somebody since we last saw it.
            let home = self.home(spec);
            for release in &spec.surroundings.joins {
                let joined = Wanted::of_release(&self.client.owner, &spec.id.app, *release);
                self.networks.forget(&joined.name);
                self.networks.ensure(&joined).await?;
            }
            self.networks.forget(&self.home(spec).name);
            self.networks.ensure(&home).await?;
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
}

pub(super) fn cannot_start(spec: &InstanceSpec, cause: &str) -> EngineError {
    EngineError::CannotStart { id: spec.id.clone(), cause: taken_port(cause).unwrap_or_else(|| cause.to_owned()) }
}

/// What an engine means that cannot publish a port, in fewer words: `Error starting userland proxy: listen tcp4 127.0.0.1:80:
/// bind: address already in use`, `Bind for 0.0.0.0:80 failed: port is already allocated`.
fn taken_port(cause: &str) -> Option<String> {
    let (before, _) =
        cause.split_once(": bind: address already in use").or_else(|| cause.split_once(" failed: port is already allocated"))?;
    let place = before.rsplit(' ').next()?;
    Some(format!("it publishes {place} of this machine, which somebody else has (`ss -ltnp` shows who)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let cause = "driver failed programming external connectivity on endpoint shop (04c6): Error starting userland proxy: \
                     listen tcp4 127.0.0.1:16399: bind: address already in use";
        let told = taken_port(cause);
        assert!(told.is_some_and(|told| told.starts_with("it publishes 127.0.0.1:16399 of this machine")));
        let cause = "driver failed programming external connectivity on endpoint a (b): Bind for 0.0.0.0:80 failed: port is already allocated";
        assert!(taken_port(cause).is_some_and(|told| told.contains("0.0.0.0:80 of")));
        assert_eq!(taken_port("exec: \"nope\": executable file not found in $PATH"), None);
    }
}

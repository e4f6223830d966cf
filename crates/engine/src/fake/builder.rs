//! Builds that make nothing but an entry in the machine's inventory.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_model::{AppName, Artifact, ArtifactId, EngineKind, ImageFacts, OwnerId, ProcessName};
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::script::BuildScript;
use crate::builder::{BuildRequest, Builder, OutputSink, Sharing};
use crate::error::{BuildError, EngineError};
use crate::runtime::Stream;

pub(super) struct FakeBuilder {
    pub(super) machine: Arc<Machine>,
    pub(super) owner: OwnerId,
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        // From here on there are remains; a build whose server is killed never comes to the line that removes them.
        let script = self.begin(request)?;
        let built = self.carry_out(script, request, output, cancel).await;
        let mut state = self.machine.state();
        let world = state.world(&self.owner);
        if let Some(remains) = world.build_remains.iter().position(|app| *app == request.app) {
            world.build_remains.swap_remove(remains);
        }
        if let Ok(artifact) = &built {
            world.artifacts.insert(artifact.id.clone(), request.app.clone());
        }
        built
    }

    async fn fingerprint(&self, _: &BuildRequest) -> Result<Option<String>, BuildError> {
        Ok(None)
    }

    async fn has(&self, artifact: &ArtifactId) -> Result<bool, EngineError> {
        Ok(self.machine.reach()?.world(&self.owner).artifacts.contains_key(artifact))
    }

    async fn facts(&self, artifact: &ArtifactId) -> Result<Option<ImageFacts>, EngineError> {
        let mut state = self.machine.reach()?;
        if !state.world(&self.owner).artifacts.contains_key(artifact) {
            return Err(EngineError::NoSuchArtifact(artifact.clone()));
        }
        Ok(match self.machine.kind {
            EngineKind::Docker => Some(state.image.clone()),
            EngineKind::Process => None,
        })
    }

    async fn share(&self, artifact: &Artifact, with: &Sharing) -> Result<Artifact, BuildError> {
        let mut state = self.machine.reach()?;
        let world = state.world(&self.owner);
        if !world.artifacts.contains_key(&artifact.id) {
            return Err(EngineError::NoSuchArtifact(artifact.id.clone()).into());
        }
        // One of its own, so that what one app keeps is told from what another does.
        let id = ArtifactId::new(format!("{}+{}:{}", artifact.id, with.app, with.release));
        world.artifacts.insert(id.clone(), with.app.clone());
        Ok(Artifact { id, ..artifact.clone() })
    }

    async fn prune(&self, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
        let mut state = self.machine.reach()?;
        let world = state.world(&self.owner);
        world.artifacts.retain(|id, of| of != app || keep.contains(id));
        world.build_remains.retain(|of| of != app);
        Ok(())
    }
}

impl FakeBuilder {
    fn begin(&self, request: &BuildRequest) -> Result<BuildScript, EngineError> {
        let mut state = self.machine.reach()?;
        let script = state.builds.get(&request.release.get()).cloned();
        let world = state.world(&self.owner);
        world.build_remains.push(request.app.clone());
        world.built.push((request.app.clone(), request.release));
        Ok(script.unwrap_or(BuildScript::Succeeds { lines: Vec::new(), has_healthcheck: false }))
    }

    async fn carry_out(
        &self,
        script: BuildScript,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        let print = |lines: &[String]| lines.iter().for_each(|line| output.line(Stream::Stdout, line));
        match script {
            BuildScript::Succeeds { lines, has_healthcheck } => {
                print(&lines);
                Ok(self.artifact(request, has_healthcheck))
            }
            BuildScript::Fails { lines, step, code } => {
                print(&lines);
                Err(BuildError::StepFailed { step, code: Some(code) })
            }
            BuildScript::OutOfMemory => Err(BuildError::OutOfMemory { limit: request.limits.memory }),
            BuildScript::DiskFull => Err(EngineError::DiskFull { place: "/fake".to_owned() }.into()),
            BuildScript::Hangs => tokio::select! {
                () = cancel.cancelled() => Err(BuildError::Cancelled),
                () = tokio::time::sleep(request.limits.deadline.duration()) => {
                    Err(BuildError::TimedOut { limit: request.limits.deadline })
                }
            },
        }
    }

    /// Processes as the plan names them, or an image with a command of its own if it names none.
    fn artifact(&self, request: &BuildRequest, has_healthcheck: bool) -> Artifact {
        let plan = &request.plan;
        let named = plan.processes.iter().map(|(name, command)| (name.clone(), Some(command.clone())));
        let processes = if plan.processes.is_empty() { [(ProcessName::web(), None)].into() } else { named.collect() };
        Artifact {
            engine: self.machine.kind,
            id: ArtifactId::new(match &request.part {
                None => format!("fake:{}:{}:{}", self.owner, request.app, request.release),
                Some(part) => format!("fake:{}:{}:{}:{part}", self.owner, request.app, request.release),
            }),
            processes,
            port: None,
            has_healthcheck,
            fingerprint: None,
            registry: None,
        }
    }
}

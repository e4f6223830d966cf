//! What a release runs without being built: an image of a registry, what another app runs, what an earlier release ran and is
//! not on the machine any more.

use std::collections::BTreeMap;

use coracle_engine::{BuildError, Engine, EngineError, Sharing};
use coracle_model::{Artifact, BuildSpec, Origin, Phase, PinnedImage, ProcessName, Release};
use coracle_store::NewRelease;

use super::making::build_failure;
use super::{Failure, Rollout};
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::orchestrator::DeployRequest;
use crate::promotion::{Promoted, parts_of};
use crate::services::Comparison;

impl Core {
    /// Pins the image that is asked for to what its tag means at its registry now. `None`: the tree is built.
    pub(crate) async fn pin(
        &self,
        engine: &Engine,
        request: &mut DeployRequest,
    ) -> Result<Option<PinnedImage>, OrchestratorError> {
        let Some(image) = &request.image else { return Ok(None) };
        let spec = &mut request.spec;
        if let Some(other) = image.names_an_app().filter(|other| *other != spec.app.as_str()) {
            let message = format!("{image} is an image of the app {other}, which no registry has");
            return Err(OrchestratorError::refused(message, format!("coracle promote {other} {}", spec.app)));
        }
        if spec.is_stack() {
            let message = format!("{} consists of several images, so that one alone cannot be deployed", spec.app);
            return Err(OrchestratorError::refused(message, "name it in the file that describes the app, then `coracle deploy`"));
        }
        let logins = self.logins(&spec.app).await?;
        let pinned = engine.builder.resolve(image, &logins).await.map_err(refused)?;
        let BuildSpec { memory, cpus, .. } = spec.build.clone();
        spec.build = BuildSpec { image: Some(pinned.to_string()), memory, cpus, ..BuildSpec::default() };
        Ok(Some(pinned))
    }
}

/// What an engine says of a registry, said before anything was begun.
fn refused(error: BuildError) -> OrchestratorError {
    match error {
        BuildError::Engine(error) => error.into(),
        error => {
            let hint = match &error {
                BuildError::Registry { trouble, .. } => trouble.hint(),
                _ => "name another image, then deploy again",
            };
            OrchestratorError::refused(error.to_string(), hint)
        }
    }
}

impl Rollout<'_> {
    /// Gives the app what another one runs.
    pub(super) async fn take_over(
        &self,
        engine: &Engine,
        promoted: Promoted,
        comparison: &Comparison,
    ) -> Result<NewRelease, Failure> {
        let parts = parts_of(self.core, &promoted, comparison).await?;
        let Promoted { promotion, env, .. } = promoted;
        let (from, spec) = (promotion.release, promotion.spec);
        self.note(format!("taking over what {} {} runs, as it is", from.app, from.number));
        self.note(promotion.described_by);
        let artifact = self.provided(engine, &from, &from.artifact, None).await?;
        let mut artifacts = BTreeMap::new();
        for (name, (part, is_own)) in parts {
            let part = if is_own { part } else { self.provided(engine, &from, &part, Some(&name)).await? };
            artifacts.insert(name, part);
        }
        let origin = Origin::Promotion { from: from.app, release: from.number };
        Ok(NewRelease { app: spec.app.clone(), number: self.deployment.to, artifact, artifacts, spec, origin, env })
    }

    /// Fetches what an earlier release ran and what the machine has not kept, from where a registry has it.
    pub(super) async fn fetch_what_is_gone(&self, engine: &Engine, base: &mut Release) -> Result<(), Failure> {
        let of = base.clone();
        let mut entered = false;
        let parts = std::iter::once((None, &mut base.artifact));
        for (part, artifact) in parts.chain(base.artifacts.iter_mut().map(|(name, artifact)| (Some(name), artifact))) {
            if engine.builder.has(&artifact.id).await? {
                continue;
            }
            if !std::mem::replace(&mut entered, true) {
                self.enter(Phase::Build).await?;
            }
            *artifact = self.provided(engine, &of, artifact, part).await?;
        }
        Ok(())
    }

    async fn provided(
        &self,
        engine: &Engine,
        of: &Release,
        artifact: &Artifact,
        part: Option<&ProcessName>,
    ) -> Result<Artifact, Failure> {
        let with = Sharing { app: self.deployment.app.clone(), release: self.deployment.to, part: part.cloned() };
        let (sink, tail) = self.output();
        let provided = self.core.provide(engine, artifact, &with, &of.spec, (&sink, self.cancel)).await;
        provided.map_err(|error| match error {
            BuildError::Engine(EngineError::NoSuchArtifact(id)) => Failure::release(
                format!("what {} {} was built into is gone ({id}), and no registry has it", of.app, of.number),
                "build that version of the source again with `coracle deploy`",
            ),
            error => build_failure(error, tail.lines()),
        })
    }
}

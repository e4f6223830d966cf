//! A Docker that is needed but does not answer yet: after a reboot, or while it is being upgraded. The engine is there from
//! the start and says that it is unavailable until Docker answers; nothing has to be restarted then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::{
    BuildError, BuildRequest, Builder, Engine, EngineError, Exit, Instance, InstanceEvent, InstanceSpec, Isolation, LogLine,
    LogQuery, Missing, OutputSink, Runtime, Sharing, Stats,
};
use coracle_engine_docker::DockerOptions;
use coracle_model::{
    AppName, Artifact, ArtifactId, EngineKind, ImageFacts, ImageReference, InstanceId, Logins, PinnedImage, ProcessSpec,
    RegistryHost, RegistryLogin, ReleaseNumber,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// How often whoever listens for events looks whether Docker answers.
const INTERVAL: Duration = Duration::from_secs(2);

/// Docker, as soon as it answers.
struct Late {
    options: DockerOptions,
    engine: OnceCell<Engine>,
}

/// The docker engine, though it does not answer yet.
pub(super) fn engine(options: DockerOptions) -> Engine {
    let late = Arc::new(Late { options, engine: OnceCell::new() });
    Engine { kind: EngineKind::Docker, builder: Arc::new(LateBuilder(late.clone())), runtime: Arc::new(LateRuntime(late)) }
}

impl Late {
    /// The engine, or the reason why it is not there.
    async fn get(&self) -> Result<&Engine, EngineError> {
        let connecting = || async {
            let docker = super::connect(self.options.clone()).await?;
            tracing::info!(version = docker.facts().version, "docker answers now");
            Ok(docker.engine())
        };
        self.engine.get_or_try_init(connecting).await
    }
}

struct LateBuilder(Arc<Late>);

#[async_trait]
impl Builder for LateBuilder {
    async fn build(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        self.0.get().await?.builder.build(request, output, cancel).await
    }

    async fn fingerprint(&self, request: &BuildRequest) -> Result<Option<String>, BuildError> {
        self.0.get().await?.builder.fingerprint(request).await
    }

    async fn has(&self, artifact: &ArtifactId) -> Result<bool, EngineError> {
        self.0.get().await?.builder.has(artifact).await
    }

    async fn facts(&self, artifact: &ArtifactId) -> Result<Option<ImageFacts>, EngineError> {
        self.0.get().await?.builder.facts(artifact).await
    }

    async fn resolve(&self, reference: &ImageReference, logins: &Logins) -> Result<PinnedImage, BuildError> {
        self.0.get().await?.builder.resolve(reference, logins).await
    }

    async fn push(
        &self,
        artifact: &ArtifactId,
        to: &ImageReference,
        logins: &Logins,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<PinnedImage, BuildError> {
        self.0.get().await?.builder.push(artifact, to, logins, output, cancel).await
    }

    async fn share(&self, artifact: &Artifact, with: &Sharing) -> Result<Artifact, BuildError> {
        self.0.get().await?.builder.share(artifact, with).await
    }

    async fn check_login(&self, host: &RegistryHost, login: &RegistryLogin) -> Result<(), BuildError> {
        self.0.get().await?.builder.check_login(host, login).await
    }

    async fn prune(&self, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
        self.0.get().await?.builder.prune(app, keep).await
    }
}

struct LateRuntime(Arc<Late>);

#[async_trait]
impl Runtime for LateRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        self.0.get().await?.runtime.start(spec).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        self.0.get().await?.runtime.stop(id, grace).await
    }

    async fn list(&self) -> Result<Vec<Instance>, EngineError> {
        self.0.get().await?.runtime.list().await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<Instance>, EngineError> {
        self.0.get().await?.runtime.inspect(id).await
    }

    async fn logs(
        &self,
        id: &InstanceId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        self.0.get().await?.runtime.logs(id, query).await
    }

    async fn stats(&self, id: &InstanceId) -> Result<Stats, EngineError> {
        self.0.get().await?.runtime.stats(id).await
    }

    async fn exec(
        &self,
        id: &InstanceId,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.0.get().await?.runtime.exec(id, argv, output, cancel).await
    }

    async fn run(
        &self,
        spec: &InstanceSpec,
        output: &OutputSink,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.0.get().await?.runtime.run(spec, output, deadline, cancel).await
    }

    fn events(&self) -> BoxStream<'static, InstanceEvent> {
        let late = self.0.clone();
        let connected = async move {
            loop {
                if let Ok(engine) = late.get().await {
                    return engine.runtime.events();
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        futures::stream::once(connected).flatten().boxed()
    }

    async fn prepare_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.0.get().await?.runtime.prepare_release(app, release).await
    }

    async fn remove_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.0.get().await?.runtime.remove_release(app, release).await
    }

    async fn remove_apart(&self, app: &AppName, release: ReleaseNumber, name: &str) -> Result<(), EngineError> {
        self.0.get().await?.runtime.remove_apart(app, release, name).await
    }

    async fn remove_app(&self, app: &AppName) -> Result<(), EngineError> {
        self.0.get().await?.runtime.remove_app(app).await
    }

    async fn join(&self, id: &InstanceId, release: ReleaseNumber, aliases: &[String]) -> Result<(), EngineError> {
        self.0.get().await?.runtime.join(id, release, aliases).await
    }

    async fn put(&self, id: &InstanceId, archive: Vec<u8>) -> Result<(), EngineError> {
        self.0.get().await?.runtime.put(id, archive).await
    }

    async fn restart(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        self.0.get().await?.runtime.restart(id, grace).await
    }

    fn cannot_honour(&self, part: &ProcessSpec) -> Vec<&'static str> {
        // As long as it does not answer nothing is deployed anyway, and what it says then is asked again.
        self.0.engine.get().map(|engine| engine.runtime.cannot_honour(part)).unwrap_or_default()
    }

    async fn missing(&self, part: &ProcessSpec) -> Result<Vec<Missing>, EngineError> {
        self.0.get().await?.runtime.missing(part).await
    }

    fn isolation(&self) -> Isolation {
        match self.0.engine.get() {
            Some(engine) => engine.runtime.isolation(),
            None => Isolation { enforced: Vec::new(), missing: vec!["unknown: docker does not answer".to_owned()] },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn until_docker_answers_the_engine_says_that_it_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Some(format!("unix://{}/docker.sock", dir.path().display()));
        let options = DockerOptions { owner: "00000000".parse().unwrap(), socket, state_dir: dir.path().to_owned() };
        let engine = engine(options);
        for _ in 0..2 {
            let error = engine.runtime.list().await.unwrap_err();
            assert!(matches!(error, EngineError::Unavailable { engine: EngineKind::Docker, .. }), "{error:?}");
        }
        assert!(!engine.runtime.isolation().missing.is_empty());
    }
}

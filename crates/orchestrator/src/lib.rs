//! Deployments, reconcilers and rollback over the engine traits and the proxy's seam.
//!
//! Names no concrete engine and does no HTTP of its own but health probes.

pub mod progress;
pub mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_engine::{Engine, EngineError, Exit, Instance, LogLine, LogQuery, OutputSink};
use coracle_model::{
    AppName, AppSpec, ByteSize, Cpus, Deployment, EngineKind, InstanceId, Phase, ProcessName, Release, ReleaseNumber,
};
use coracle_store::{AppRecord, ConfigChange, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub use progress::{Event, LiveFacts, Progress};
pub use traffic::{Drained, Traffic, TrafficError};

/// Settings of the machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine of apps that do not name one.
    pub default_engine: EngineKind,
    /// Memory of builds that do not name a cap.
    pub build_memory: ByteSize,
    /// Processor time of builds that do not name a cap.
    pub build_cpus: Cpus,
}

/// Runs the apps of one machine.
#[derive(Clone)]
pub struct HostOrchestrator {}

/// A source tree to deploy.
#[derive(Debug)]
pub struct DeployRequest {
    /// The resolved manifest (its `app` is the app).
    pub spec: AppSpec,
    /// The unpacked tree; the orchestrator only reads it, and the caller removes it afterwards.
    pub source: PathBuf,
    /// The git commit, if known.
    pub commit: Option<String>,
}

/// Why something asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The proxy refused.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// What was asked for cannot be done; `hint` says what to do instead.
    #[error("{message}")]
    Refused {
        /// What is wrong.
        message: String,
        /// What to type next.
        hint: String,
    },
    /// A deployment failed; nothing changed for the app.
    #[error("{phase} failed: {cause}")]
    Deployment {
        /// Where.
        phase: Phase,
        /// Why, in a sentence.
        cause: String,
        /// The last log lines of what failed.
        evidence: Vec<String>,
        /// What to type next.
        hint: String,
    },
    /// A deployment was called off; nothing changed for the app.
    #[error("cancelled during {0}")]
    Cancelled(Phase),
}

/// What a deployment led to.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The deployment, ended.
    pub deployment: Deployment,
    /// The release that is active now.
    pub release: Release,
}

/// How an app stands.
#[derive(Debug, Clone)]
pub struct AppStatus {
    /// The app on record.
    pub record: AppRecord,
    /// The active release.
    pub release: Option<Release>,
    /// Wanted instances by process.
    pub wanted: BTreeMap<ProcessName, u16>,
    /// Instances that exist, of any release.
    pub instances: Vec<Instance>,
    /// The deployment that runs now.
    pub deployment: Option<Deployment>,
}

impl HostOrchestrator {
    /// Over these engines and this proxy. Does nothing until [`HostOrchestrator::recover`].
    pub fn new(_store: Store, _engines: Vec<Engine>, _traffic: Arc<dyn Traffic>, _settings: Settings) -> Self {
        unimplemented!()
    }

    /// After a start: settles interrupted deployments, then publishes the table. Call once, before anything else.
    pub async fn recover(&self) -> Result<(), OrchestratorError> {
        unimplemented!()
    }

    /// Keeps actual instances as desired until `stop` fires.
    pub async fn reconcile_forever(&self, _stop: CancellationToken) {
        unimplemented!()
    }

    /// Publishes the table again: the proxy may have been started anew.
    pub async fn republish(&self) -> Result<(), OrchestratorError> {
        unimplemented!()
    }

    /// What a deployment would do and why, without doing it: recipe, strategy, changed processes, missing secrets.
    pub async fn plan(&self, _request: &DeployRequest) -> Result<Vec<String>, OrchestratorError> {
        unimplemented!()
    }

    /// Deploys a source tree. Firing `cancel` calls it off until the switch; afterwards it runs to its end.
    pub async fn deploy(
        &self,
        _request: DeployRequest,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        unimplemented!()
    }

    /// Changes configuration and, if the app has an active release, makes a release of it. `None`: stored for the first deploy.
    pub async fn set_config(
        &self,
        _app: &AppName,
        _changes: Vec<ConfigChange>,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Option<Deployed>, OrchestratorError> {
        unimplemented!()
    }

    /// Takes up an earlier release again; `None` is the one before the active one.
    pub async fn rollback(
        &self,
        _app: &AppName,
        _to: Option<ReleaseNumber>,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        unimplemented!()
    }

    /// Replaces all instances by fresh ones, without losing a request.
    pub async fn restart(
        &self,
        _app: &AppName,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        unimplemented!()
    }

    /// Changes how many instances should run and waits until they do (or the deploy timeout).
    pub async fn scale(&self, _app: &AppName, _scale: Vec<(ProcessName, u16)>) -> Result<AppStatus, OrchestratorError> {
        unimplemented!()
    }

    /// Stops and forgets an app: instances, volumes, artifacts, releases, configuration.
    pub async fn destroy(&self, _app: &AppName) -> Result<(), OrchestratorError> {
        unimplemented!()
    }

    /// How an app stands.
    pub async fn status(&self, _app: &AppName) -> Result<AppStatus, OrchestratorError> {
        unimplemented!()
    }

    /// Lines of all instances of the app (or of one process), merged; when following, instances that appear later are followed too.
    pub async fn logs(
        &self,
        _app: &AppName,
        _process: Option<ProcessName>,
        _query: LogQuery,
    ) -> Result<futures::stream::BoxStream<'static, (InstanceId, LogLine)>, OrchestratorError> {
        unimplemented!()
    }

    /// Runs a one-off process of the active release with its configuration.
    pub async fn run(
        &self,
        _app: &AppName,
        _argv: Vec<String>,
        _output: &OutputSink,
        _cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        unimplemented!()
    }

    /// Runs a program inside a running instance; `None` is the first of `web`, or else of any process.
    pub async fn exec(
        &self,
        _app: &AppName,
        _instance: Option<InstanceId>,
        _argv: Vec<String>,
        _output: &OutputSink,
        _cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        unimplemented!()
    }
}

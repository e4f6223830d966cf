//! The orchestrator as the server uses it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_engine::{Engine, Exit, Instance, LogLine, LogQuery, OutputSink};
use coracle_model::{
    AppName, AppSpec, ByteSize, Cpus, Deployment, DeploymentId, EngineKind, EnvName, Finding, ImageReference, InstanceId,
    ProcessName, ProcessSource, Release, ReleaseNumber, Secret,
};
use coracle_pipeline::{Pipeline, Trigger};
use coracle_policy::{Policy, ServerPolicy};
use coracle_store::{AppRecord, ConfigChange, Store};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::candidate::{Candidate, Reconfigured};
use crate::core::{Core, Registry};
use crate::error::OrchestratorError;
use crate::incumbent::Incumbent;
use crate::kept_source::KeptSource;
use crate::labelled;
use crate::probe;
use crate::progress::Progress;
use crate::reconcile;
use crate::routes::TlsOffer;
use crate::runs::RunLog;
use crate::services::StatefulChanges;
use crate::table::reached_at;
use crate::traffic::Traffic;

/// The most instances of one process that `ps scale` takes.
const MOST_INSTANCES: u16 = 100;

/// Settings of the machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine of apps that do not name one.
    pub default_engine: EngineKind,
    /// Memory of builds that do not name a cap.
    pub build_memory: ByteSize,
    /// Processor time of builds that do not name a cap.
    pub build_cpus: Cpus,
    /// What the proxy offers over TLS.
    pub tls: TlsOffer,
    /// What the administrator says of the rules that releases may break.
    pub policy: ServerPolicy,
    /// Where files of source trees are kept that containers mount, and directories that outlive releases.
    pub mounts: PathBuf,
}

/// What a deployment would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What and why; one sentence each.
    pub steps: Vec<String>,
    /// What the policy says, as far as that can be known before anything is built; what it leaves silent included.
    pub findings: Vec<Finding>,
}

/// A source tree to deploy.
pub struct DeployRequest {
    /// The resolved manifest (its `app` is the app).
    pub spec: AppSpec,
    /// The unpacked tree; the orchestrator only reads it, and the caller removes it afterwards.
    pub source: PathBuf,
    /// The git commit, if known.
    pub commit: Option<String>,
    /// Which stateful services it may change.
    pub stateful: StatefulChanges,
    /// What was decided about it before, for the person who deploys it; one sentence each.
    pub notes: Vec<String>,
    /// The tree as it was sent, if it is to be read again when the configuration changes.
    pub sent: Option<KeptSource>,
    /// The steps that are run with it before requests go to it. A change of configuration alone runs none.
    pub pipeline: Pipeline,
    /// What the app says of the rules that its releases may break.
    pub policy: Policy,
    /// What brought it here.
    pub trigger: Trigger,
    /// Who asked for it, where that is known.
    pub by: Option<String>,
    /// Whether every step is run, whatever is known of it.
    pub fresh: bool,
    /// Whether it becomes a release even if it changes nothing.
    pub force: bool,
    /// What it takes the place of. Only of an app's first release.
    pub incumbent: Option<Arc<dyn Incumbent>>,
    /// The image of a registry that is deployed instead of what the tree would be built into. Its tag is what it means now.
    pub image: Option<ImageReference>,
    /// The text of the tree's manifest, to be kept with the release.
    pub manifest: Option<String>,
}

impl std::fmt::Debug for DeployRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeployRequest").field("spec", &self.spec).field("source", &self.source).finish_non_exhaustive()
    }
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
    /// Stateful services that should run.
    pub services: Vec<ServiceStatus>,
    /// Instances that exist, of any release.
    pub instances: Vec<Instance>,
    /// Which of them are healthy and get requests.
    pub ready: Vec<InstanceId>,
    /// The deployment that runs now.
    pub deployment: Option<Deployment>,
    /// The deployment that waits for a person.
    pub waiting: Option<Deployment>,
}

/// A stateful service that should run.
#[derive(Debug, Clone)]
pub struct ServiceStatus {
    /// Its only instance; it bears the number of the release that describes it.
    pub instance: InstanceId,
    /// What it is made from; `None` if the release that describes it cannot be read.
    pub source: Option<ProcessSource>,
}

/// Runs the apps of one machine. Cheap to clone.
#[derive(Clone)]
pub struct HostOrchestrator {
    core: Arc<Core>,
}

impl HostOrchestrator {
    /// Over these engines and this proxy. Does nothing until [`HostOrchestrator::recover`].
    pub fn new(store: Store, engines: Vec<Engine>, traffic: Arc<dyn Traffic>, settings: Settings) -> Self {
        Self { core: Arc::new(Core::new(store, engines, traffic, settings)) }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_handle(&self) -> &Arc<Core> {
        &self.core
    }

    /// After a start: settles interrupted deployments and publishes the table. Call once, before anything else.
    pub async fn recover(&self) -> Result<(), OrchestratorError> {
        self.core.recover().await
    }

    /// Keeps actual instances as desired until `stop` fires.
    pub async fn reconcile_forever(&self, stop: CancellationToken) {
        reconcile::run(self.core.clone(), stop).await;
    }

    /// Publishes the table again: the proxy may have been started anew.
    pub async fn republish(&self) -> Result<(), OrchestratorError> {
        self.core.publish().await
    }

    /// What a deployment would do and why, without doing it.
    pub async fn plan(&self, mut request: DeployRequest) -> Result<Planned, OrchestratorError> {
        let engine = self.core.engine(request.spec.engine.unwrap_or(self.core.settings.default_engine))?;
        let pinned = self.core.pin(engine, &mut request).await?;
        let (request, spec) = (&request, &request.spec);
        let config = self.core.config_of(&spec.app).await?;
        self.core.check_request(request, engine, &config).await?;
        let comparison = self.core.compare_request(request, &config).await?;
        let parts = self.core.plan_parts(engine, spec, &comparison, &request.stateful).await;
        let engine = engine.kind;
        let plan = match spec.is_stack() {
            true => None,
            false => Some(self.core.build_plan(&request.source, spec, engine).await?),
        };
        let findings = self.core.findings(request, plan.as_ref(), engine).await?;
        let (strategy, why) = spec.strategy();
        let active = match self.core.store.app(&spec.app).await {
            Ok(record) => record.active,
            Err(coracle_store::StoreError::NoSuchApp(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut lines = vec![
            active.map_or_else(|| format!("{} is new", spec.app), |active| format!("{} replaces {active}", spec.app)),
            match &plan {
                Some(plan) => format!("engine {engine}, built with {}: {}", plan.recipe, plan.reason),
                None => format!("engine {engine}"),
            },
        ];
        if let (Some(image), Some(pinned)) = (&request.image, &pinned) {
            lines.push(format!("{image} is {pinned}"));
        }
        lines.extend(request.notes.iter().cloned());
        lines.extend(parts);
        if active.is_some() {
            lines.push(format!("strategy {strategy}: {why}"));
        }
        if let Some(conflict) = self.core.planned_conflict(request).await? {
            lines.push(format!("REFUSED, since {} belongs to the app {}", conflict.of, conflict.other));
        }
        let names: std::collections::BTreeSet<String> =
            plan.iter().flat_map(|plan| plan.processes.keys()).chain(spec.processes.keys()).map(ToString::to_string).collect();
        if !names.is_empty() && !spec.is_stack() {
            lines.push(format!("processes: {}", names.into_iter().collect::<Vec<_>>().join(", ")));
        }
        if let Some(command) =
            spec.deploy.release_command.as_ref().or(plan.as_ref().and_then(|plan| plan.release_command.as_ref()))
        {
            lines.push(format!("release command: {command}"));
        }
        let stands = match active {
            Some(_) => self.core.store.approval_rule(&spec.app).await?,
            None => None,
        };
        let demanded = crate::approval::both(stands, request.pipeline.approve);
        lines.extend(crate::rollout::planned(request, demanded, active.is_some()));
        lines.extend(crate::rollout::planned_push(spec));
        let hosts: Vec<String> = match spec.is_stack() {
            true => {
                let to_be = self.core.release_to_be(spec);
                let told = labelled::told(&to_be, self.core.settings.tls);
                lines.extend(told.rules.iter().map(|rule| format!("routed by its labels: {rule}")));
                lines.extend(told.problems);
                reached_at(&to_be).into_iter().map(|(host, _)| host).collect()
            }
            false => spec.http.hosts.iter().map(ToString::to_string).collect(),
        };
        match hosts.is_empty() {
            true if spec.is_stack() => lines.push("nothing of it is reached through the proxy".to_owned()),
            true => {}
            false => lines.push(format!("hosts: {}", hosts.join(", "))),
        }
        Ok(Planned { steps: lines, findings })
    }

    /// Deploys a source tree. Firing `cancel` calls it off until the switch; afterwards it runs to its end.
    pub async fn deploy(
        &self,
        request: DeployRequest,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        self.core.deploy(Candidate::Tree { request: Box::new(request), reconfigured: None }, progress, cancel).await
    }

    /// What the active release was made of, if that is to be read again when the configuration changes.
    pub async fn kept_source(&self, app: &AppName) -> Result<Option<KeptSource>, OrchestratorError> {
        let Some(active) = self.core.store.ensure_app(app).await?.active else { return Ok(None) };
        let (mounts, owned) = (self.core.mounts.clone(), app.clone());
        let read = tokio::task::spawn_blocking(move || mounts.source_of(&owned, active)).await;
        match read {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => {
                tracing::warn!(%app, %error, "what the active release was made of cannot be read");
                Ok(None)
            }
            Err(error) => {
                Err(OrchestratorError::refused(format!("looking for a source broke off: {error}"), "see the server's log"))
            }
        }
    }

    /// The configuration that the app's next release runs with, after these changes.
    pub async fn config_after(
        &self,
        app: &AppName,
        changes: &[ConfigChange],
    ) -> Result<Vec<(EnvName, Secret)>, OrchestratorError> {
        let base = self.core.active_release(app).await?;
        Ok(Reconfigured::of(&self.core, &base, changes.to_vec()).await?.env)
    }

    /// Makes a release of what the active one was made of, read again with other configuration.
    pub async fn reconfigure(
        &self,
        request: DeployRequest,
        changes: Vec<ConfigChange>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        let base = self.core.active_release(&request.spec.app).await?;
        let reconfigured = Some(Reconfigured::of(&self.core, &base, changes).await?);
        self.core.deploy(Candidate::Tree { request: Box::new(request), reconfigured }, progress, cancel).await
    }

    /// Changes configuration and, if the app has an active release, makes a release of it. `None`: kept for the first deploy.
    pub async fn set_config(
        &self,
        app: &AppName,
        changes: Vec<ConfigChange>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Option<Deployed>, OrchestratorError> {
        let record = self.core.store.ensure_app(app).await?;
        let Some(active) = record.active else {
            self.core.store.set_config(app, &changes).await?;
            return Ok(None);
        };
        let base = self.core.store.release(app, active).await?;
        let candidate = Candidate::reconfigured(&self.core, base, changes).await?;
        self.core.deploy(candidate, progress, cancel).await.map(Some)
    }

    /// Changes configuration without a release; the next one takes it up.
    pub async fn keep_config(&self, app: &AppName, changes: &[ConfigChange]) -> Result<(), OrchestratorError> {
        self.core.store.ensure_app(app).await?;
        Ok(self.core.store.set_config(app, changes).await?)
    }

    /// What a rollback to this release takes up: itself, or the one that was active before the active one.
    pub async fn rollback_to(
        &self,
        app: &AppName,
        to: Option<ReleaseNumber>,
    ) -> Result<Option<ReleaseNumber>, OrchestratorError> {
        match to {
            Some(to) => Ok(Some(to)),
            None => self.core.previous_release(&self.core.store.app(app).await?).await,
        }
    }

    /// Takes up an earlier release again; `None` is the one that was active before the active one.
    pub async fn rollback(
        &self,
        app: &AppName,
        to: Option<ReleaseNumber>,
        stateful: StatefulChanges,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        let record = self.core.store.app(app).await?;
        let see = || format!("coracle releases -a {app}");
        let Some(active) = record.active else {
            return Err(OrchestratorError::refused(format!("{app} has no release yet"), "coracle deploy"));
        };
        let to = match to {
            Some(to) if to == active => return Err(OrchestratorError::refused(format!("{to} is active already"), see())),
            Some(to) => to,
            None => match self.core.previous_release(&record).await? {
                Some(previous) => previous,
                None => return Err(OrchestratorError::refused(format!("{app} has no release before {active}"), see())),
            },
        };
        self.core.require_allowed(app, to).await?;
        let candidate = Candidate::earlier(&self.core, app, to, stateful).await?;
        self.core.deploy(candidate, progress, cancel).await
    }

    /// Replaces all instances by fresh ones, without losing a request.
    pub async fn restart(
        &self,
        app: &AppName,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        let base = self.core.active_release(app).await?;
        let candidate = Candidate::restarted(&self.core, base).await?;
        self.core.deploy(candidate, progress, cancel).await
    }

    /// Changes how many instances should run and waits until they do, or until the deploy timeout is over.
    pub async fn scale(&self, app: &AppName, scale: Vec<(ProcessName, u16)>) -> Result<AppStatus, OrchestratorError> {
        let release = self.core.active_release(app).await?;
        let processes = release.processes();
        for (name, count) in &scale {
            if release.spec.services.contains_key(name) {
                let hint = "two of it would work on the same data; give it more memory or processor time instead";
                return Err(OrchestratorError::refused(format!("{name} keeps data and runs once"), hint));
            }
            let Some(process) = processes.get(name) else {
                let known: Vec<&str> = processes.keys().map(ProcessName::as_str).collect();
                return Err(OrchestratorError::refused(
                    format!("{app} has no process {name}"),
                    format!("it has: {}", known.join(", ")),
                ));
            };
            if *count > MOST_INSTANCES {
                return Err(OrchestratorError::refused(
                    format!("{count} instances are too many"),
                    format!("at most {MOST_INSTANCES}"),
                ));
            }
            if process.task {
                let hint = "it runs by itself with every deployment";
                return Err(OrchestratorError::refused(format!("{name} is a task and runs once"), hint));
            }
            if *count > 1 && process.container.holds_host_port() {
                let hint = "take the port out of the file; requests reach it through the proxy";
                return Err(OrchestratorError::refused(format!("{name} keeps a port of the machine to itself"), hint));
            }
            if *count > 1 && process.keeps_data() {
                let hint = "take the volume out of the manifest, or keep the data in a database";
                return Err(OrchestratorError::refused(format!("{name} has a writable volume and cannot run twice"), hint));
            }
        }
        self.core.store.set_scale(app, &scale).await?;
        self.core.publish().await?;
        self.core.wake.notify_one();
        let limit = release.spec.deploy.timeout.duration() + release.spec.deploy.drain.duration();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let status = self.status(app).await?;
            if status.is_as_wanted() || tokio::time::Instant::now() >= deadline {
                return Ok(status);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Stops and forgets an app: instances, volumes, artifacts, releases, configuration.
    pub async fn destroy(&self, app: &AppName) -> Result<(), OrchestratorError> {
        self.core.store.app(app).await?;
        if let Some(deployment) = self.running_deployment(app).await? {
            return Err(coracle_store::StoreError::Busy(Box::new(deployment)).into());
        }
        let lock = self.core.app_lock(app);
        let _not_while_reconciling = lock.lock().await;
        self.core.store.delete_app(app).await?;
        self.core.forget_app(app);
        self.core.publish().await?;
        self.core.remove_remains_of(app).await?;
        self.core.forget_app_lock(app);
        Ok(())
    }

    /// How an app stands.
    pub async fn status(&self, app: &AppName) -> Result<AppStatus, OrchestratorError> {
        let record = self.core.store.app(app).await?;
        let release = match record.active {
            Some(number) => Some(self.core.store.release(app, number).await?),
            None => None,
        };
        let wanted = release.as_ref().map(|release| Core::wanted(release, &record.scale)).unwrap_or_default();
        let (instances, _) = self.core.all_instances().await;
        let instances = instances.into_iter().map(|(_, instance)| instance).filter(|instance| instance.id.app == *app).collect();
        let services = self.core.service_statuses(app).await?;
        let ready = self.core.registry().ready.keys().filter(|id| id.app == *app).cloned().collect();
        let deployment = self.running_deployment(app).await?;
        let waiting = self.core.store.parked_deployment(app).await?;
        Ok(AppStatus { record, release, wanted, services, instances, ready, deployment, waiting })
    }

    async fn running_deployment(&self, app: &AppName) -> Result<Option<Deployment>, OrchestratorError> {
        let live = self.core.registry().live.get(app).map(|live| live.deployment);
        match live {
            Some(id) => Ok(self.core.store.deployment(id).await?),
            None => Ok(None),
        }
    }

    /// Waits until no deployment of the app runs.
    pub async fn until_idle(&self, app: &AppName) {
        self.core.until(|registry: &Registry| !registry.live.contains_key(app)).await;
    }

    /// Lines of all instances of the app (or of one process), merged; when following, instances that appear later are
    /// followed too.
    pub async fn logs(
        &self,
        app: &AppName,
        process: Option<ProcessName>,
        query: LogQuery,
    ) -> Result<BoxStream<'static, (InstanceId, LogLine)>, OrchestratorError> {
        self.core.clone().logs(app, process, query).await
    }

    /// Runs a one-off process of the active release with its configuration.
    pub async fn run(
        &self,
        app: &AppName,
        argv: Vec<String>,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        self.core.run_one_off(app, argv, output, cancel).await
    }

    /// Runs a program inside a running instance; `None` is the first of `web`, or else of any process.
    pub async fn exec(
        &self,
        app: &AppName,
        instance: Option<InstanceId>,
        argv: Vec<String>,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        self.core.exec_in(app, instance, &argv, output, cancel).await
    }

    /// The log of a run.
    pub fn run_log(&self, app: &AppName, id: DeploymentId) -> RunLog {
        RunLog::new(self.core.mounts.run(app, id).join("log"))
    }

    /// What a step handed over in a run: a gzipped tar archive of plain files and folders. Nobody says that it is there.
    pub fn run_artifact(&self, app: &AppName, id: DeploymentId, step: &str) -> PathBuf {
        self.core.mounts.run_artifact(app, id, step)
    }

    /// How instances of the app's `web` are checked, in words.
    pub fn health_check(release: &Release) -> Option<String> {
        release.serving().first().map(|part| probe::check_of(release, part).describe())
    }
}

impl AppStatus {
    /// Whether exactly the wanted instances of the active release run, and those of `web` are healthy.
    pub fn is_as_wanted(&self) -> bool {
        let Some(release) = &self.release else { return self.instances.is_empty() };
        self.wanted.iter().all(|(process, count)| {
            let of = |id: &InstanceId| id.release == release.number && id.process == *process;
            let running = self.instances.iter().filter(|instance| instance.is_running() && of(&instance.id)).count();
            let ready = self.ready.iter().filter(|id| of(id)).count();
            running == usize::from(*count) && (!release.serves(process) || ready == running)
        })
    }
}

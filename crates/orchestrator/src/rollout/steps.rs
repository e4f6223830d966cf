//! The steps of a rollout, in the order they are taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_build::PlanError;
use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, EngineError, OutputSink};
use coracle_model::{
    BuildPlan, DeploymentKind, EnvName, InstanceId, Origin, Phase, ProcessName, ProcessSpec, Release, Secret, Span, Strategy,
};
use coracle_store::{ConfigChange, NewRelease};
use futures::future::{join_all, try_join_all};

use super::{Candidacy, Draft, Failure, Rollout};
use crate::candidate::{Candidate, inverse};
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::instances::{ONE_OFF, RELEASE_COMMAND, instance_spec, one_off_spec};
use crate::orchestrator::DeployRequest;
use crate::probe::{self, Check, Unhealthy};
use crate::progress::{Event, LiveFacts};
use crate::retention::instances_of;
use crate::table::serves_http;

/// How long a build may take from start to end.
const BUILD_DEADLINE: Span = Span::seconds(30 * 60);
/// A process that does not listen counts as started when it has run this long.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the proxy may take to be told of a switch before the switch is taken back.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);
/// How many lines of output an error shows.
const TAIL: usize = 20;

impl Rollout<'_> {
    /// Everything that can be known before anything runs: the engine is there, required names are set, hosts are free.
    pub(super) async fn validate(&self, candidate: Candidate) -> Result<Draft, Failure> {
        let kind = match &candidate {
            Candidate::Tree(request) => request.spec.engine.unwrap_or(self.core.settings.default_engine),
            Candidate::Again { base, .. } => base.artifact.engine,
        };
        let engine = self.core.engine(kind)?.clone();
        let record = self.core.store.app(candidate.app()).await?;
        let old = match record.active {
            Some(number) => Some(self.core.store.release(&record.name, number).await?),
            None => None,
        };
        match &candidate {
            Candidate::Tree(request) => self.core.check_request(request).await?,
            Candidate::Again { base, .. } => {
                if !engine.builder.has(&base.artifact.id).await? {
                    let again = "build that version of the source again with `coracle deploy`";
                    return Err(Failure::release(
                        format!("what {} was built into is gone ({})", base.number, base.artifact.id),
                        again,
                    ));
                }
            }
        }
        Ok(Draft { engine, candidate, old })
    }

    /// Builds the artifact, if there is something to build, and writes the release down.
    pub(super) async fn build(&self, draft: Draft) -> Result<Candidacy, Failure> {
        let Draft { engine, candidate, old } = draft;
        let (number, app) = (self.deployment.to, self.deployment.app.clone());
        let (new, changes) = match candidate {
            Candidate::Tree(request) => {
                self.enter(Phase::Build).await?;
                let env = self.core.store.config(&app).await?.into_iter().map(|entry| (entry.name, entry.value)).collect();
                let origin = Origin::Deploy { commit: request.commit.clone() };
                let (artifact, spec) = self.build_tree(&engine, request).await?;
                (NewRelease { app, number, artifact, spec, origin, env }, Vec::new())
            }
            Candidate::Again { base, origin, env, changes } => {
                (NewRelease { app, number, artifact: base.artifact, spec: base.spec, origin, env }, changes)
            }
        };
        let release = self.core.store.create_release(new).await?;
        self.check_processes(&release)?;
        if let Some((other, host)) = self.core.host_conflict(&release).await? {
            return Err(host_taken(&host.to_string(), other.as_str()));
        }
        let (strategy, why) = release.spec.strategy();
        if old.is_some() {
            self.note(format!("strategy {strategy}: {why}"));
        }
        Ok(Candidacy { engine, release, strategy, old, changes })
    }

    async fn build_tree(
        &self,
        engine: &Engine,
        request: DeployRequest,
    ) -> Result<(coracle_model::Artifact, coracle_model::AppSpec), Failure> {
        let DeployRequest { mut spec, source, .. } = request;
        let plan = self.core.build_plan(&source, &spec, engine.kind).await?;
        self.note(format!("building with {}: {}", plan.recipe, plan.reason));
        spec.deploy.release_command = spec.deploy.release_command.or_else(|| plan.release_command.clone());
        let limits = BuildLimits {
            memory: spec.build.memory.unwrap_or(self.core.settings.build_memory),
            cpus: spec.build.cpus.unwrap_or(self.core.settings.build_cpus),
            deadline: BUILD_DEADLINE,
        };
        let build = BuildRequest { app: spec.app.clone(), release: self.deployment.to, source, plan, limits };
        let (sink, tail) = self.output();
        match engine.builder.build(&build, &sink, self.cancel).await {
            Ok(artifact) => Ok((artifact, spec)),
            Err(error) => Err(build_failure(error, tail.lines())),
        }
    }

    /// A sink that shows every line and remembers the last ones.
    fn output(&self) -> (OutputSink, Tail) {
        let tail = Tail::default();
        let (keep, progress) = (tail.clone(), self.progress.clone());
        let sink = OutputSink::new(move |line| {
            keep.push(&line.text);
            progress.tell(Event::Output(line));
        });
        (sink, tail)
    }

    fn check_processes(&self, release: &Release) -> Result<(), Failure> {
        let processes = release.processes();
        if processes.is_empty() {
            let hint =
                "name one in coracle.toml ([processes.web] command = \"…\") or in a Procfile (web: …), then `coracle deploy`";
            return Err(Failure::release("the app has no process to run", hint));
        }
        if let Some(name) = processes.keys().find(|name| [RELEASE_COMMAND, ONE_OFF].contains(&name.as_str())) {
            return Err(Failure::release(
                format!("{name:?} cannot be the name of a process: Coracle uses it itself"),
                "rename it, then `coracle deploy`",
            ));
        }
        for (name, spec) in
            processes.iter().filter(|(name, spec)| spec.replicas == 0 && !release.spec.processes.contains_key(*name))
        {
            self.note(format!("{name} runs no instance until you say so: coracle ps scale {name}={}", spec.replicas + 1));
        }
        Ok(())
    }

    /// Runs the release command with the new release's code and configuration. A rollback or a restart does not: going
    /// back must not depend on a migration.
    pub(super) async fn run_release_command(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let Some(command) = release.release_command() else { return Ok(()) };
        if matches!(self.deployment.kind, DeploymentKind::Rollback | DeploymentKind::Restart) {
            return Ok(());
        }
        self.enter(Phase::Release).await?;
        let config = self.core.store.release_env(&release.app, release.number).await?;
        let spec = one_off_spec(release, &config, RELEASE_COMMAND, command.clone(), 1);
        let limit = release.spec.deploy.timeout;
        let (sink, tail) = self.output();
        let hint = "mend the command, then `coracle deploy`; the app is as it was before";
        match engine.runtime.run(&spec, &sink, limit.duration(), self.cancel).await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => Err(Failure::Release {
                cause: format!("the release command `{command}` failed: {exit}"),
                evidence: tail.lines(),
                hint: hint.to_owned(),
            }),
            Err(EngineError::TimedOut { .. }) => Err(Failure::Release {
                cause: format!("the release command `{command}` did not end within {limit}"),
                evidence: tail.lines(),
                hint: "raise deploy.timeout in coracle.toml if it needs longer, then `coracle deploy`".to_owned(),
            }),
            Err(EngineError::CannotStart { cause, .. }) => Err(Failure::Release {
                cause: format!("the release command `{command}` cannot be started: {cause}"),
                evidence: tail.lines(),
                hint: hint.to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Recreate: requests wait in the proxy, those under way run out, and the old instances make room.
    pub(super) async fn hold_requests_and_stop_old(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(old) = &candidacy.old else { return Ok(()) };
        self.enter(Phase::Hold).await?;
        let everything = old.processes().into_keys().collect();
        self.change_live(|live| {
            live.hold = true;
            live.suspended = everything;
        });
        self.core.publish().await?;
        let engine = self.core.engine(old.artifact.engine)?;
        let policy = &old.spec.deploy;
        let instances = self.settled_instances_of(engine, old).await?;
        self.core.drain(&instances, policy.drain.duration()).await;
        self.core.stop_instances(engine, &instances, policy.grace.duration()).await?;
        Ok(())
    }

    /// Starts the instances that receive requests; the others follow when these are healthy.
    pub(super) async fn start_web(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        self.enter(Phase::Start).await?;
        let web = ProcessName::web();
        self.start(candidacy, |process| *process == web).await
    }

    async fn start(&self, candidacy: &Candidacy, which: impl Fn(&ProcessName) -> bool) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let config = self.core.store.release_env(&release.app, release.number).await?;
        let wanted = self.wanted(release).await?;
        let specs = wanted_instances(release, &config, &wanted, which);
        let starts = specs.iter().map(|spec| async {
            match engine.runtime.start(spec).await {
                Ok(_) => Ok(()),
                Err(EngineError::CannotStart { id, cause }) => {
                    let evidence = self.core.evidence(engine, &id).await;
                    let hint = "mend the command or the image, then `coracle deploy`".to_owned();
                    Err(Failure::Release { cause: format!("{id} cannot be started: {cause}"), evidence, hint })
                }
                Err(error) => Err(error.into()),
            }
        });
        // All are awaited even if one fails, so that none is still being started while the others are undone.
        join_all(starts).await.into_iter().collect()
    }

    async fn wanted(&self, release: &Release) -> Result<BTreeMap<ProcessName, u16>, Failure> {
        Ok(Core::wanted(release, &self.core.store.app(&release.app).await?.scale))
    }

    /// Waits until every new instance that receives requests is healthy.
    pub(super) async fn probe_web(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        self.enter(Phase::Probe).await?;
        let check = Check::of_web(&candidacy.release);
        let instances = self.instances(candidacy, ProcessName::is_web).await?;
        self.unless_cancelled(self.probe(candidacy, &instances, &check)).await
    }

    async fn probe(&self, candidacy: &Candidacy, instances: &[InstanceId], check: &Check) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let limit = release.spec.deploy.timeout.duration();
        let probes = instances.iter().map(|id| async move {
            match probe::until_healthy(engine, id, check, limit).await {
                Ok(address) => {
                    if let Some(address) = address.filter(|_| id.process.is_web()) {
                        self.core.change(|registry| registry.ready.insert(id.clone(), address));
                    }
                    self.progress.tell(Event::Healthy(id.clone()));
                    Ok(())
                }
                Err(reason) => Err(self.unhealthy(engine, id, reason, check).await),
            }
        });
        try_join_all(probes).await.map(drop)
    }

    async fn unhealthy(&self, engine: &Engine, id: &InstanceId, reason: Unhealthy, check: &Check) -> Failure {
        let evidence = self.core.evidence(engine, id).await;
        let hint = match (&reason, check) {
            (Unhealthy::Engine(error), _) => {
                return Failure::Platform(OrchestratorError::Deployment {
                    phase: self.phase(),
                    cause: error.to_string(),
                    evidence,
                    hint: "see what is wrong with `coracle doctor`, then `coracle deploy`".to_owned(),
                });
            }
            (Unhealthy::Exited(_) | Unhealthy::Gone, _) => "mend what the log shows, then `coracle deploy`",
            (Unhealthy::Failing(_), Check::Http { .. }) => {
                "see that the health path (http.health) answers 2xx or 3xx on $PORT, or raise deploy.timeout; then `coracle deploy`"
            }
            (Unhealthy::Failing(_), _) => "see that the app listens on $PORT, or raise deploy.timeout; then `coracle deploy`",
        };
        Failure::Release { cause: format!("{id} is not healthy: {reason}"), evidence, hint: hint.to_owned() }
    }

    /// Workers of two releases never run at once: the old ones stop, the new ones start and must stay up for a moment.
    pub(super) async fn take_over_background_processes(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let background = |process: &ProcessName| !process.is_web();
        if let Some(old) = candidacy.old.as_ref().filter(|_| candidacy.strategy == Strategy::BlueGreen) {
            let names: std::collections::BTreeSet<_> = old.processes().into_keys().filter(background).collect();
            if !names.is_empty() {
                self.change_live(|live| live.suspended = names);
                let engine = self.core.engine(old.artifact.engine)?;
                let mut running = self.settled_instances_of(engine, old).await?;
                running.retain(|id| background(&id.process));
                self.core.stop_instances(engine, &running, old.spec.deploy.grace.duration()).await?;
            }
        }
        self.start(candidacy, background).await?;
        let instances = self.instances(candidacy, background).await?;
        let settle = instances.iter().map(|id| async move {
            match probe::watch(&candidacy.engine, id, &Check::Running, SETTLE).await {
                Ok(()) => {
                    self.progress.tell(Event::Healthy(id.clone()));
                    Ok(())
                }
                Err(reason) => Err(self.unhealthy(&candidacy.engine, id, reason, &Check::Running).await),
            }
        });
        self.unless_cancelled(async { try_join_all(settle).await.map(drop) }).await
    }

    /// The commit point: from here on the new release is the app's active one, first in the store, then in the proxy.
    pub(super) async fn switch(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { release, changes, .. } = candidacy;
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        {
            let _one_switch_at_a_time = self.core.switching.lock().await;
            let lock = self.core.app_lock(&release.app);
            let _not_while_reconciling = lock.lock().await;
            if let Some((other, host)) = self.core.host_conflict(release).await? {
                return Err(host_taken(&host.to_string(), other.as_str()));
            }
            self.change_config(release, changes).await?;
            self.core.store.activate(self.deployment.id).await?;
            self.change_live(|live| live.hold = false);
            self.exposed.store(true, Ordering::Relaxed);
        }
        self.entered(Phase::Switch);
        if let Err(error) = self.publish_patiently().await {
            self.take_back(candidacy).await?;
            return Err(error.into());
        }
        let hosts =
            if serves_http(release) { release.spec.http.hosts.iter().map(ToString::to_string).collect() } else { Vec::new() };
        self.progress.tell(Event::Live(LiveFacts { hosts, elapsed_ms: self.begun.elapsed().as_millis() as u64 }));
        Ok(())
    }

    async fn change_config(&self, release: &Release, changes: &[ConfigChange]) -> Result<(), Failure> {
        if !changes.is_empty() {
            let before = self.core.store.config(&release.app).await?;
            self.core.store.set_config(&release.app, changes).await?;
            *self.config_undo.lock().unwrap_or_else(PoisonError::into_inner) = inverse(&before, changes);
        }
        Ok(())
    }

    /// The proxy may be restarting just now; its supervisor brings it back within moments.
    async fn publish_patiently(&self) -> Result<(), OrchestratorError> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.core.publish().await {
                Err(OrchestratorError::Traffic(error)) if begun.elapsed() < PUBLISH_PATIENCE => {
                    tracing::warn!(%error, "trying again to tell the proxy of a switch");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }

    /// Looks after the new instances for a while, with the old ones still there to go back to.
    pub(super) async fn watch(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { engine, release, old, strategy, .. } = candidacy;
        self.enter(Phase::Drain).await?;
        let span = release.spec.deploy.watch.duration();
        let can_go_back = *strategy == Strategy::BlueGreen && old.as_ref().is_some_and(serves_http);
        if !can_go_back || span.is_zero() {
            return Ok(());
        }
        let check = Check::of_web(release);
        let instances = self.instances(candidacy, ProcessName::is_web).await?;
        let watches = instances
            .iter()
            .map(|id| async { probe::watch(engine, id, &check, span).await.map_err(|reason| (id.clone(), reason)) });
        if let Err((id, reason)) = try_join_all(watches).await {
            let evidence = self.core.evidence(engine, &id).await;
            self.take_back(candidacy).await?;
            return Err(Failure::Release {
                cause: format!("{id} became unhealthy after the switch, which was taken back: {reason}"),
                evidence,
                hint: "mend what the log shows, then `coracle deploy`; the old release serves".to_owned(),
            });
        }
        Ok(())
    }

    /// Lets requests on the old release run out and stops it. What fails here is done again by the reconcile loop.
    pub(super) async fn retire_old(&self, candidacy: &Candidacy) {
        let Some(old) = &candidacy.old else { return };
        let retired = async {
            let engine = self.core.engine(old.artifact.engine)?;
            let instances = self.settled_instances_of(engine, old).await?;
            self.core.drain(&instances, old.spec.deploy.drain.duration()).await;
            self.enter(Phase::Stop).await?;
            self.core.retire(engine, &old.app, old.number).await?;
            Ok::<_, Failure>(())
        };
        if let Err(error) = retired.await {
            tracing::warn!(app = %old.app, release = %old.number, ?error, "the old release is not gone yet");
        }
    }

    /// Removes what is past keeping.
    pub(super) async fn record(&self, candidacy: &Candidacy) {
        let recorded = async {
            self.enter(Phase::Record).await?;
            let record = self.core.store.app(&candidacy.release.app).await?;
            self.core.prune(&record).await?;
            Ok::<_, Failure>(())
        };
        if let Err(error) = recorded.await {
            tracing::warn!(app = %candidacy.release.app, ?error, "old releases could not be pruned");
        }
    }

    async fn instances(&self, candidacy: &Candidacy, which: impl Fn(&ProcessName) -> bool) -> Result<Vec<InstanceId>, Failure> {
        let wanted = self.wanted(&candidacy.release).await?;
        Ok(wanted_instances(&candidacy.release, &[], &wanted, which).into_iter().map(|spec| spec.id).collect())
    }

    /// The instances of a release that the reconcile loop may be healing: after its current pass, so that none appears
    /// behind our back.
    async fn settled_instances_of(&self, engine: &Engine, release: &Release) -> Result<Vec<InstanceId>, Failure> {
        let lock = self.core.app_lock(&release.app);
        let _not_while_reconciling = lock.lock().await;
        Ok(instances_of(engine, &release.app, release.number).await?)
    }

    pub(super) fn change_live(&self, change: impl FnOnce(&mut crate::core::Live)) {
        self.core.change(|registry| {
            if let Some(live) = registry.live.get_mut(&self.deployment.app) {
                change(live);
            }
        });
    }
}

impl Core {
    /// What can be said against a tree before it is built.
    pub(crate) async fn check_request(&self, request: &DeployRequest) -> Result<(), OrchestratorError> {
        let config = match self.store.config(&request.spec.app).await {
            Ok(config) => config,
            Err(coracle_store::StoreError::NoSuchApp(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let missing: Vec<&str> = request
            .spec
            .secrets
            .iter()
            .filter(|name| !config.iter().any(|entry| entry.name == **name))
            .map(EnvName::as_str)
            .collect();
        if !missing.is_empty() {
            let hint = format!("coracle secrets set {}", missing.join(" "));
            return Err(OrchestratorError::refused(format!("required and not set: {}", missing.join(", ")), hint));
        }
        Ok(())
    }

    /// Looks at the tree and decides how it is built.
    pub(crate) async fn build_plan(
        &self,
        source: &std::path::Path,
        spec: &coracle_model::AppSpec,
        engine: coracle_model::EngineKind,
    ) -> Result<BuildPlan, OrchestratorError> {
        let (root, spec) = (source.to_owned(), spec.clone());
        let planned = tokio::task::spawn_blocking(move || coracle_build::plan(&root, &spec, engine)).await;
        match planned {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(PlanError::Unsuitable { message, hint })) => Err(OrchestratorError::refused(message, hint)),
            Ok(Err(error)) => Err(OrchestratorError::refused(error.to_string(), "mend it, then `coracle deploy`")),
            Err(_) => Err(OrchestratorError::refused("looking at the source tree failed unexpectedly", "see the server's log")),
        }
    }
}

/// What to start for a release.
pub(crate) fn wanted_instances(
    release: &Release,
    config: &[(EnvName, Secret)],
    wanted: &BTreeMap<ProcessName, u16>,
    which: impl Fn(&ProcessName) -> bool,
) -> Vec<coracle_engine::InstanceSpec> {
    let processes = release.processes();
    let of = |(name, spec): (&ProcessName, &ProcessSpec)| {
        let count = wanted.get(name).copied().unwrap_or(0);
        (1..=count).map(|index| instance_spec(release, config, name, spec, index)).collect::<Vec<_>>()
    };
    processes.iter().filter(|(name, _)| which(name)).flat_map(of).collect()
}

fn host_taken(host: &str, other: &str) -> Failure {
    Failure::release(
        format!("the host {host} belongs to the app {other}"),
        format!("choose another in http.hosts of coracle.toml, or free it with `coracle destroy -a {other}`"),
    )
}

fn build_failure(error: BuildError, evidence: Vec<String>) -> Failure {
    let hint = match &error {
        BuildError::Cancelled => return Failure::Cancelled,
        BuildError::Engine(EngineError::Cancelled) => return Failure::Cancelled,
        BuildError::Engine(EngineError::DiskFull { .. }) => {
            "free some space on the server's disk (`coracle doctor`), then `coracle deploy`"
        }
        BuildError::Engine(_) => "see what is wrong with `coracle doctor`, then `coracle deploy`",
        BuildError::OutOfMemory { .. } => {
            "make the build need less, or raise build.memory in coracle.toml; then `coracle deploy`"
        }
        BuildError::TimedOut { .. } => {
            "make the build faster (what rarely changes belongs into earlier steps), then `coracle deploy`"
        }
        BuildError::StepFailed { .. } | BuildError::CannotBuild(_) => "mend it, then `coracle deploy`",
    };
    Failure::Release { cause: error.to_string(), evidence, hint: hint.to_owned() }
}

/// The last lines of an output.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

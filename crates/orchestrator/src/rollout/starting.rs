//! The steps of a rollout that start the new release's instances: in the order in which they wait for each other, with
//! tasks run to their end on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_engine::{Engine, EngineError, InstanceSpec};
use coracle_model::{Condition, DeploymentKind, InstanceId, Phase, ProcessName, Release, Strategy};
use futures::future::{join_all, try_join_all};

use super::services::stack_failure;
use super::{Candidacy, Failure, Rollout};
use crate::instances::Making;
use crate::probe::{self, Check, Unhealthy};
use crate::progress::Event;

/// A process that does not listen counts as started when it has run this long.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a part that others ask for may take to listen where it is said to. Files say so of ports that nobody listens on,
/// too, so that this is no reason to fail.
const NEIGHBOUR_LIMIT: Duration = Duration::from_secs(20);
/// How long a task may take: a migration of much data is no failure.
const TASK_LIMIT: Duration = Duration::from_secs(60 * 60);

impl Rollout<'_> {
    /// Starts the instances that receive requests and what these need; the others follow when these are healthy.
    pub(super) async fn start_serving(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        self.enter(Phase::Start).await?;
        self.start_in_order(candidacy, |process| candidacy.needed.contains(process)).await
    }

    /// Starts processes, each after what it waits for is as far as it must be.
    async fn start_in_order(&self, candidacy: &Candidacy, which: impl Fn(&ProcessName) -> bool) -> Result<(), Failure> {
        let app = candidacy.release.resolved();
        for group in app.start_order().map_err(stack_failure)? {
            let group: BTreeSet<ProcessName> =
                group.into_iter().filter(|name| app.processes.contains_key(name) && which(name)).collect();
            let awaited: BTreeSet<&ProcessName> = group
                .iter()
                .filter_map(|name| app.processes.get(name))
                .flat_map(|process| &process.depends_on)
                .filter(|(on, how)| how.condition == Condition::Healthy && app.processes.contains_key(*on))
                .map(|(on, _)| on)
                .collect();
            for on in awaited {
                let ids = self.instances(candidacy, |process| process == on);
                self.unless_cancelled(self.probe(candidacy, &ids)).await?;
            }
            let (tasks, others): (BTreeSet<ProcessName>, BTreeSet<ProcessName>) =
                group.into_iter().partition(|name| app.processes.get(name).is_some_and(|process| process.task));
            try_join_all(tasks.iter().map(|task| self.run_task(candidacy, task))).await?;
            self.start(candidacy, |process| others.contains(process)).await?;
        }
        Ok(())
    }

    async fn start(&self, candidacy: &Candidacy, which: impl Fn(&ProcessName) -> bool) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let config = self.core.store.release_env(&release.app, release.number).await?;
        let specs = self.core.wanted_instances(release, &config, &candidacy.wanted, which);
        let starts = specs.iter().map(|spec: &InstanceSpec| async {
            match engine.runtime.start(spec).await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.cannot_start(engine, error).await),
            }
        });
        // All are awaited even if one fails, so that none is still being started while the others are undone.
        join_all(starts).await.into_iter().collect()
    }

    pub(super) async fn cannot_start(&self, engine: &Engine, error: EngineError) -> Failure {
        let EngineError::CannotStart { id, cause } = error else { return error.into() };
        let evidence = self.core.evidence(engine, &id).await;
        let hint = "mend what this says, be it the command, the image or a port that is taken; then `coracle deploy`".to_owned();
        Failure::Release { cause: format!("{id} cannot be started: {cause}"), evidence, hint }
    }

    /// Runs a task to its end. A rollback or a restart does not: going back must not depend on a migration.
    async fn run_task(&self, candidacy: &Candidacy, task: &ProcessName) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        if matches!(self.deployment.kind, DeploymentKind::Rollback | DeploymentKind::Restart) {
            return Ok(());
        }
        let Some(process) = release.spec.processes.get(task) else { return Ok(()) };
        let config = self.core.store.release_env(&release.app, release.number).await?;
        let spec = Making { release, config: &config, mounts: &self.core.mounts }.instance(task, process, 1);
        self.note(format!("running {task} to its end"));
        let (sink, tail) = self.output();
        let failed = |cause: String| Failure::Release {
            cause,
            evidence: tail.lines(),
            hint: "mend what its output shows, then `coracle deploy`; the app is as it was before".to_owned(),
        };
        let cause = match engine.runtime.run(&spec, &sink, TASK_LIMIT, self.cancel).await {
            Ok(exit) if exit.success() => return Ok(()),
            Ok(exit) => format!("the task {task} failed: {exit}"),
            Err(EngineError::CannotStart { cause, .. }) => format!("the task {task} cannot be started: {cause}"),
            Err(error @ EngineError::TimedOut { .. }) => format!("the task {task} did not end: {error}"),
            Err(error) => return Err(error.into()),
        };
        if is_required(release, task) {
            return Err(failed(cause));
        }
        self.note(format!("{cause}; whoever waits for it does not require it: going on"));
        Ok(())
    }

    /// Waits until every new instance that receives requests is healthy, and what these need too.
    pub(super) async fn probe_serving(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        self.enter(Phase::Probe).await?;
        let is_task = |process: &ProcessName| candidacy.release.spec.processes.get(process).is_some_and(|spec| spec.task);
        let instances = self.instances(candidacy, |process| candidacy.needed.contains(process) && !is_task(process));
        self.unless_cancelled(self.probe(candidacy, &instances)).await
    }

    async fn probe(&self, candidacy: &Candidacy, instances: &[InstanceId]) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let limit = release.spec.deploy.timeout.duration();
        let probes = instances.iter().map(|id| async move {
            let check = probe::check_of(release, &id.process);
            let is_hint = check == Check::Tcp && probe::is_inside(release, &id.process);
            let limit = if is_hint { limit.min(NEIGHBOUR_LIMIT) } else { limit };
            match probe::until_healthy(engine, id, &check, limit).await {
                Ok(address) => {
                    if let Some(address) = address.filter(|_| release.serves(&id.process)) {
                        self.core.change(|registry| registry.ready.insert(id.clone(), address));
                    }
                    self.progress.tell(Event::Healthy(id.clone()));
                    Ok(())
                }
                Err(Unhealthy::Failing(reason)) if is_hint => {
                    self.note(format!("{id}: {reason}; it is said to listen there, but nothing asks for it: going on"));
                    Ok(())
                }
                Err(reason) => Err(self.unhealthy(engine, id, reason, &check).await),
            }
        });
        try_join_all(probes).await.map(drop)
    }

    pub(super) async fn unhealthy(&self, engine: &Engine, id: &InstanceId, reason: Unhealthy, check: &Check) -> Failure {
        let evidence = self.core.evidence(engine, id).await;
        let hint = match (&reason, check) {
            (Unhealthy::Engine(error), _) => {
                let hint = "see what is wrong with `coracle doctor`, then `coracle deploy`".to_owned();
                return Failure::Release { cause: error.to_string(), evidence, hint };
            }
            (Unhealthy::Exited(_) | Unhealthy::Gone, _) => "mend what the log shows, then `coracle deploy`",
            (Unhealthy::Failing(_), Check::Http { .. }) => {
                "see that the health path (http.health) answers 2xx or 3xx on $PORT, or raise deploy.timeout; then `coracle deploy`"
            }
            (Unhealthy::Failing(_), Check::Program { .. }) => {
                "see what its health check asks for, or give it more time (start_period, retries); then `coracle deploy`"
            }
            (Unhealthy::Failing(_), _) => "see that the app listens on $PORT, or raise deploy.timeout; then `coracle deploy`",
        };
        Failure::Release { cause: format!("{id} is not healthy: {reason}"), evidence, hint: hint.to_owned() }
    }

    /// Workers of two releases never run at once: the old ones stop, the new ones start and must stay up for a moment.
    pub(super) async fn take_over_background_processes(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        if let Some(old) = candidacy.old.as_ref().filter(|_| candidacy.strategy == Strategy::BlueGreen) {
            self.stop_background_of(old).await?;
        }
        self.stop_incumbents_background(candidacy).await?;
        let background = |process: &ProcessName| !candidacy.needed.contains(process);
        self.start_in_order(candidacy, background).await?;
        let instances = self.instances(candidacy, background);
        let settle = instances.iter().map(|id| async move {
            match probe::watch(&candidacy.engine, id, &Check::Running, SETTLE).await {
                Ok(()) => {
                    self.progress.tell(Event::Healthy(id.clone()));
                    Ok(())
                }
                Err(Unhealthy::Exited(exit)) if may_end(&candidacy.release, &id.process, exit.success()) => Ok(()),
                Err(reason) => Err(self.unhealthy(&candidacy.engine, id, reason, &Check::Running).await),
            }
        });
        self.unless_cancelled(async { try_join_all(settle).await.map(drop) }).await
    }

    async fn stop_background_of(&self, old: &Release) -> Result<(), Failure> {
        let needed = old.resolved().needed_to_serve();
        let names: BTreeSet<_> = old.processes().into_keys().filter(|name| !needed.contains(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.change_live(|live| live.suspended = names.clone());
        let engine = self.core.engine(old.artifact.engine)?;
        let mut running = self.settled_instances_of(engine, old).await?;
        running.retain(|id| names.contains(&id.process));
        self.core.stop_instances(engine, &running, old.spec.deploy.grace.duration()).await?;
        Ok(())
    }

    /// The instances that a rollout brings up.
    pub(super) fn instances(&self, candidacy: &Candidacy, which: impl Fn(&ProcessName) -> bool) -> Vec<InstanceId> {
        let wanted = self.core.wanted_instances(&candidacy.release, &[], &candidacy.wanted, which);
        wanted.into_iter().map(|spec| spec.id).collect()
    }
}

/// Whether a process that has ended may stay so.
fn may_end(release: &Release, process: &ProcessName, well: bool) -> bool {
    use coracle_model::container::RestartPolicy;
    match release.spec.part(process).map(|part| part.container.restart) {
        Some(RestartPolicy::Never) => well,
        Some(RestartPolicy::OnFailure(_)) => well,
        Some(RestartPolicy::Always) | None => false,
    }
}

/// Whether anybody who waits for a task cannot do without it (Compose Specification, `depends_on.required`).
fn is_required(release: &Release, task: &ProcessName) -> bool {
    release.spec.parts().any(|(_, part)| part.depends_on.get(task).is_some_and(|how| how.required))
}

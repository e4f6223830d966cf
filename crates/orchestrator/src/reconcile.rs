//! The reconcile loop: reads what is wanted and what is there, and acts on the difference. It takes no input; an engine's
//! event, a finished deployment or `ps scale` merely wake it, and so does a timer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_engine::{Engine, EngineError, Exit, Instance, InstanceEvent, InstanceSpec, InstanceState};
use coracle_model::container::RestartPolicy;
use coracle_model::{AppName, EngineKind, InstanceId, Release, ReleaseNumber, Span};
use coracle_store::{AppRecord, StoreError};
use futures::future::join_all;
use futures::stream::SelectAll;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::{BackOff, Core, Registry};
use crate::error::OrchestratorError;
use crate::probe;
use crate::remains;
use crate::services::instance_of;
use crate::table::HEALING_ATTEMPTS;

/// How often to look without being woken.
const EVERY: Duration = Duration::from_secs(10);
/// An instance that has run this long is forgiven its earlier ends.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// How long an instance may take to be started again; the app's lock is held meanwhile.
const START_LIMIT: Span = Span::seconds(60);
/// How long an engine may take to say how one instance stands that is said to have ended.
const INSPECT_LIMIT: Duration = Duration::from_secs(2);
/// How long an instance that somebody told to end is believed to do so; then it is taken for one that does not want to.
const BELIEVED_ENDING: Duration = Duration::from_secs(30);
/// How long a one-off process that nobody waits for may take to end.
const STRAY_GRACE: Duration = Duration::from_secs(10);

/// Runs until `stop` fires; what it started (probes, removals) ends with it, and the next start takes it up again.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut events: SelectAll<_> = core.engines.values().map(|engine| engine.runtime.events()).collect();
    let tasks = Tasks::default();
    let mut remains_due = Instant::now();
    loop {
        if remains_due <= Instant::now() {
            remains_due = Instant::now() + remains::EVERY;
            let core = core.clone();
            tasks.spawn(async move {
                if let Err(error) = core.remove_remains().await {
                    tracing::warn!(%error, "cannot look for what is left of destroyed apps");
                }
            });
        }
        if let Err(error) = core.reconcile(&tasks).await {
            tracing::warn!(%error, "reconciling failed; trying again");
        }
        let next = core.next_look();
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.wake.notified() => {}
            Some(event) = events.next(), if !events.is_empty() => {
                core.take_note(event).await;
                // Much may have happened during the last look.
                while let Some(Some(event)) = events.next().now_or_never() {
                    core.take_note(event).await;
                }
            }
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// What the loop has started and does not wait for. Ends with it.
#[derive(Default)]
struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Core {
    /// What has ended, or is about to, gets no requests from now on: its address will be nobody's before everything has been
    /// looked at.
    async fn take_note(&self, event: InstanceEvent) {
        let gone = match event {
            InstanceEvent::Exited(id) => {
                self.registry().ending.remove(&id);
                if self.runs_where_it_is_ready(&id).await {
                    // It was started again before anybody heard of its end.
                    return;
                }
                id
            }
            InstanceEvent::Ending(id) => {
                self.registry().ending.insert(id.clone(), Instant::now() + BELIEVED_ENDING);
                id
            }
            InstanceEvent::Started(id) => {
                self.registry().ending.remove(&id);
                return;
            }
            InstanceEvent::Health(..) => return,
        };
        if self.change(|registry| registry.ready.remove(&gone).is_some()) {
            self.publish().await.unwrap_or_else(|error| tracing::warn!(%error, "cannot publish"));
        }
    }

    async fn runs_where_it_is_ready(&self, id: &InstanceId) -> bool {
        let Some(ready) = self.registry().ready.get(id).copied() else { return false };
        let inspections = self.engines.values().map(|engine| async {
            let inspected = tokio::time::timeout(INSPECT_LIMIT, engine.runtime.inspect(id)).await;
            inspected.ok().and_then(Result::ok).flatten().and_then(|instance| instance.address()) == Some(ready)
        });
        join_all(inspections).await.contains(&true)
    }

    fn next_look(&self) -> Instant {
        let timer = Instant::now() + EVERY;
        let now = Instant::now();
        let soonest = self.registry().back_off.values().map(|back_off| back_off.not_before).filter(|at| *at > now).min();
        soonest.map_or(timer, |at| at.min(timer))
    }

    /// One look at everything.
    async fn reconcile(self: &Arc<Self>, tasks: &Tasks) -> Result<(), OrchestratorError> {
        // Instances first, wishes second: an instance seen here that nobody wishes for afterwards is really not wanted.
        let (instances, silent) = self.all_instances().await;
        let records = self.store.apps().await?;
        let adopted = self.adopt_late(&instances, &silent);
        if self.forget_ended(&instances, &silent) || adopted || self.unpublished.load(Ordering::Relaxed) {
            self.publish().await.unwrap_or_else(|error| tracing::warn!(%error, "cannot publish"));
        }
        // Each app by itself: a start that takes long holds up nobody else's.
        let heals = records.iter().map(|record| async {
            if let Err(error) = self.heal(record, &instances, &silent, tasks).await {
                tracing::warn!(app = %record.name, %error, "cannot heal");
            }
        });
        join_all(heals).await;
        self.remove_orphans(&instances, &records, tasks).await
    }

    /// Takes instances that run no more out of the ready ones; whether there were any.
    fn forget_ended(&self, instances: &[(EngineKind, Instance)], silent: &[EngineKind]) -> bool {
        let known: BTreeMap<&InstanceId, &Instance> = instances.iter().map(|(_, instance)| (&instance.id, instance)).collect();
        let mut registry = self.registry();
        let live = registry.live.clone();
        // A rollout may have started its instances since the list was made.
        let in_rollout = |id: &InstanceId| live.get(&id.app).is_some_and(|live| live.to == id.release);
        let serves = |id: &InstanceId, address: &SocketAddr| match known.get(id) {
            Some(instance) => instance.address() == Some(*address),
            // An engine that does not answer says nothing about its instances; they may well be serving.
            None => !silent.is_empty(),
        };
        let before = registry.ready.len();
        registry.ready.retain(|id, address| in_rollout(id) || serves(id, address));
        registry.ready.len() < before
    }

    /// Starts what is missing of the active release and stops what is too much.
    async fn heal(
        self: &Arc<Self>,
        record: &AppRecord,
        seen: &[(EngineKind, Instance)],
        silent: &[EngineKind],
        tasks: &Tasks,
    ) -> Result<(), OrchestratorError> {
        let lock = self.app_lock(&record.name);
        let _not_while_switching = lock.lock().await;
        let record = match self.store.app(&record.name).await {
            Err(StoreError::NoSuchApp(_)) => return Ok(()),
            record => record?,
        };
        let Some(number) = record.active else { return Ok(()) };
        let release = self.store.release(&record.name, number).await?;
        let engine = self.engine(release.artifact.engine)?;
        if silent.contains(&engine.kind) {
            return Ok(());
        }
        let suspended = match self.registry().live.get(&record.name) {
            Some(live) if live.from == Some(number) => live.suspended.clone(),
            _ => BTreeSet::new(),
        };
        self.heal_services(&release, seen, tasks).await?;
        let config = self.store.release_env(&record.name, number).await?;
        let wanted = Self::wanted(&release, &record.scale);
        let specs = self.wanted_instances(&release, &config, &wanted, |process| !suspended.contains(process));
        let there: BTreeMap<&InstanceId, &Instance> =
            seen.iter().map(|(_, i)| (&i.id, i)).filter(|(id, _)| id.app == record.name && id.release == number).collect();
        let leaving = self.registry().leaving.clone();
        for spec in specs.iter().filter(|spec| !leaving.contains(&spec.id)) {
            match there.get(&spec.id) {
                Some(instance) if instance.is_running() => {
                    self.forgive(instance);
                    self.ensure_ready(engine, &release, &spec.id, tasks);
                }
                Some(instance) if has_ended_for_good(&release, instance, &self.registry()) => {}
                seen => {
                    // One that cannot be started must not keep the others from it.
                    if let Err(error) = self.start_again(engine, &release, spec, seen.is_some(), tasks).await {
                        tracing::warn!(instance = %spec.id, %error, "cannot start");
                    }
                }
            }
        }
        let surplus: Vec<InstanceId> = there
            .keys()
            .filter(|id| !suspended.contains(&id.process) && wanted.contains_key(&id.process))
            .filter(|id| id.index > wanted.get(&id.process).copied().unwrap_or(0))
            .map(|id| (*id).clone())
            .collect();
        self.shrink(engine, &release, surplus, tasks);
        Ok(())
    }

    /// Starts what is missing of an app's stateful services, each as the store says it is described.
    async fn heal_services(
        self: &Arc<Self>,
        active: &Release,
        seen: &[(EngineKind, Instance)],
        tasks: &Tasks,
    ) -> Result<(), OrchestratorError> {
        let app = &active.app;
        let (changing, mut joins) = match self.registry().live.get(app) {
            Some(live) => (live.changing.clone(), if live.discarded { Vec::new() } else { vec![live.to] }),
            None => (BTreeSet::new(), Vec::new()),
        };
        joins.retain(|number| *number != active.number);
        joins.push(active.number);
        for record in self.store.services(app).await?.iter().filter(|record| !changing.contains(&record.name)) {
            let id = instance_of(app, record);
            let namesakes = |other: &&InstanceId| other.app == *app && other.process == id.process && **other != id;
            if let Some(other) = seen.iter().map(|(_, instance)| &instance.id).find(namesakes) {
                // Two of one kind must never work on the same data. It goes first: nobody wants it any more.
                tracing::info!(instance = %other, "is in the way of {id}");
                continue;
            }
            let (release, spec) = self.service_spec(app, record, joins.clone()).await?;
            let engine = self.engine(release.artifact_of(&record.name).engine)?;
            match seen.iter().map(|(_, instance)| instance).find(|instance| instance.id == id) {
                Some(instance) if instance.is_running() => {
                    self.forgive(instance);
                    self.ensure_ready(engine, &release, &id, tasks);
                }
                seen => {
                    if let Err(error) = self.start_again(engine, &release, &spec, seen.is_some(), tasks).await {
                        tracing::warn!(instance = %id, %error, "cannot start");
                    }
                }
            }
        }
        Ok(())
    }

    fn forgive(&self, instance: &Instance) {
        if let InstanceState::Running { since, .. } = instance.state {
            let age = jiff::Timestamp::now().duration_since(since);
            if age > jiff::SignedDuration::try_from(FORGIVEN_AFTER).unwrap_or(jiff::SignedDuration::MAX) {
                self.registry().back_off.remove(&instance.id);
            }
        }
    }

    /// Starts an instance that is not there or has ended, unless it is too early for that.
    async fn start_again(
        self: &Arc<Self>,
        engine: &Engine,
        release: &Release,
        spec: &InstanceSpec,
        has_ended: bool,
        tasks: &Tasks,
    ) -> Result<(), OrchestratorError> {
        let now = Instant::now();
        let previous = self.registry().back_off.get(&spec.id).copied();
        if previous.is_some_and(|back_off| back_off.not_before > now) {
            return Ok(());
        }
        if let Some(instance) = engine.runtime.inspect(&spec.id).await?.filter(Instance::is_running) {
            // It was started since the list was made.
            self.ensure_ready(engine, release, &instance.id, tasks);
            return Ok(());
        }
        let next = BackOff::next(previous, now);
        self.registry().back_off.insert(spec.id.clone(), next);
        let why = if has_ended { "has ended" } else { "is missing" };
        tracing::info!(instance = %spec.id, attempt = next.failures, "{why}; starting it");
        if next.failures == HEALING_ATTEMPTS + 1 {
            // From here on requests are refused instead of waiting.
            let core = self.clone();
            tasks.spawn(async move {
                core.publish().await.unwrap_or_else(|error| tracing::warn!(%error, "cannot publish"));
            });
        }
        let started = tokio::time::timeout(START_LIMIT.duration(), engine.runtime.start(spec)).await;
        let late = |_| EngineError::TimedOut { action: format!("start {}", spec.id), limit: START_LIMIT };
        started.map_err(late)??;
        self.ensure_ready(engine, release, &spec.id, tasks);
        Ok(())
    }

    /// Sees to it that a running instance of `web` is probed and, once healthy, gets requests.
    fn ensure_ready(self: &Arc<Self>, engine: &Engine, release: &Release, id: &InstanceId, tasks: &Tasks) {
        let needs_probe = |registry: &mut Registry| {
            !registry.ready.contains_key(id) && may_be_ready(registry, id) && registry.probing.insert(id.clone())
        };
        if !release.serves(&id.process) || !needs_probe(&mut self.registry()) {
            return;
        }
        let (core, engine, id) = (self.clone(), engine.clone(), id.clone());
        let (check, limit) = (probe::check_of(release, &id.process), release.spec.deploy.timeout.duration());
        tasks.spawn(async move {
            let healthy = probe::until_healthy(&engine, &id, &check, limit).await;
            core.registry().probing.remove(&id);
            match healthy {
                Ok(Some(address)) => {
                    // It may have been told to end, or be on its way out, since the probe began.
                    let is_ready = core.change(|registry| {
                        let may = may_be_ready(registry, &id);
                        if may {
                            registry.ready.insert(id.clone(), address);
                        }
                        may
                    });
                    if !is_ready {
                        return;
                    }
                    tracing::info!(instance = %id, "is healthy");
                    core.publish().await.unwrap_or_else(|error| tracing::warn!(%error, "cannot publish"));
                }
                // Nothing will be different at once; the timer looks again.
                Ok(None) => return tracing::warn!(instance = %id, "has no address"),
                Err(reason) => tracing::warn!(instance = %id, %reason, "is not healthy"),
            }
            core.wake.notify_one();
        });
    }

    /// Takes instances out of the table, lets their requests run out, and stops them.
    fn shrink(self: &Arc<Self>, engine: &Engine, release: &Release, mut surplus: Vec<InstanceId>, tasks: &Tasks) {
        surplus.retain(|id| self.registry().leaving.insert(id.clone()));
        if surplus.is_empty() {
            return;
        }
        self.change(|registry| registry.ready.retain(|id, _| !surplus.contains(id)));
        let (core, engine, policy) = (self.clone(), engine.clone(), release.spec.deploy.clone());
        tasks.spawn(async move {
            core.publish().await.unwrap_or_else(|error| tracing::warn!(%error, "cannot publish"));
            core.drain(&surplus, policy.drain.duration()).await;
            if let Err(error) = core.stop_instances(&engine, &surplus, policy.grace.duration()).await {
                tracing::warn!(%error, "cannot stop surplus instances; trying again");
            }
            core.change(|registry| registry.leaving.retain(|id| !surplus.contains(id)));
            core.wake.notify_one();
        });
    }

    /// Removes instances of releases that are neither active nor being worked on.
    async fn remove_orphans(
        self: &Arc<Self>,
        instances: &[(EngineKind, Instance)],
        records: &[AppRecord],
        tasks: &Tasks,
    ) -> Result<(), OrchestratorError> {
        let mut orphans: BTreeSet<(EngineKind, AppName, ReleaseNumber)> = BTreeSet::new();
        let mut stray = Vec::new();
        let mut services = BTreeSet::new();
        for record in records {
            let of_app = self.store.services(&record.name).await?;
            services.extend(of_app.iter().map(|service| instance_of(&record.name, service)));
        }
        for (kind, instance) in instances {
            let id = &instance.id;
            if services.contains(id) {
                continue;
            }
            let active = match records.iter().any(|record| record.name == id.app) {
                true => self.active_now(&id.app).await?,
                false => None,
            };
            let registry = self.registry();
            let live = registry.live.get(&id.app);
            let in_use =
                active == Some(id.release) || live.is_some_and(|live| live.to == id.release || live.from == Some(id.release));
            if registry.one_offs.contains(id) {
                continue;
            }
            let is_one_off = crate::instances::is_transient(&id.process);
            if !in_use {
                orphans.insert((*kind, id.app.clone(), id.release));
            } else if is_one_off && live.is_none() {
                stray.push((*kind, id.clone()));
            }
        }
        let unretired = self.registry().unretired.clone();
        for (kind, app, number) in unretired {
            let active = self.active_now(&app).await?;
            let is_worked_on = self.registry().live.contains_key(&app);
            if active != Some(number) && !is_worked_on {
                orphans.insert((kind, app, number));
            }
        }
        for (kind, id) in stray {
            let (core, engine) = (self.clone(), self.engine(kind)?.clone());
            tasks.spawn(async move {
                tracing::info!(instance = %id, "nobody waits for it; removing it");
                if let Err(error) = core.stop_instances(&engine, std::slice::from_ref(&id), STRAY_GRACE).await {
                    tracing::warn!(instance = %id, %error, "cannot remove; trying again");
                }
            });
        }
        for (kind, app, number) in orphans {
            let (core, engine) = (self.clone(), self.engine(kind)?.clone());
            tasks.spawn(async move {
                tracing::info!(%app, release = %number, engine = %kind, "is not active any more; removing what is left of it");
                match core.retire(&engine, &app, number).await {
                    Ok(()) => core.change(|registry| registry.unretired.remove(&(kind, app, number))),
                    Err(error) => {
                        tracing::warn!(%app, release = %number, %error, "cannot remove; trying again");
                        core.change(|registry| registry.unretired.insert((kind, app, number)))
                    }
                };
            });
        }
        Ok(())
    }

    /// The release that is active at this moment. Only an app that is not there has none for sure: a store that cannot be
    /// read says nothing, and nobody's instances are removed on its word.
    async fn active_now(&self, app: &AppName) -> Result<Option<ReleaseNumber>, OrchestratorError> {
        match self.store.app(app).await {
            Ok(record) => Ok(record.active),
            Err(StoreError::NoSuchApp(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an instance may get requests once it is healthy: it is not on its way out.
fn may_be_ready(registry: &mut Registry, id: &InstanceId) -> bool {
    let now = Instant::now();
    registry.ending.retain(|_, until| *until > now);
    let is_suspended =
        registry.live.get(&id.app).is_some_and(|live| live.from == Some(id.release) && live.suspended.contains(&id.process));
    !registry.ending.contains_key(id) && !registry.leaving.contains(id) && !is_suspended
}

/// Whether an instance that has ended is to stay so, by its process's own word. One that was lost with the machine is not:
/// nobody saw it end.
fn has_ended_for_good(release: &Release, instance: &Instance, registry: &Registry) -> bool {
    let InstanceState::Exited(exit) = instance.state else { return false };
    let policy = release.spec.part(&instance.id.process).map_or(RestartPolicy::Always, |part| part.container.restart);
    let failures = registry.back_off.get(&instance.id).map_or(0, |back_off| back_off.failures);
    match policy {
        RestartPolicy::Always => false,
        RestartPolicy::Never => exit != Exit::default(),
        RestartPolicy::OnFailure(most) => exit.success() || most.is_some_and(|most| failures >= most),
    }
}

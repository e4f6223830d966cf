//! What every part of the orchestrator shares: the seams, and the little state that lives in memory only. All of that
//! state can be rebuilt from the store and the engines, and is, after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_engine::{Engine, EngineError, Instance, InstanceSpec};
use coracle_model::{
    AppName, DeploymentId, EngineKind, EnvName, InstanceId, ProcessName, ProcessSpec, Release, ReleaseNumber, Secret, Span,
};
use coracle_proxy_table::Table;
use coracle_store::Store;
use futures::future::join_all;
use tokio::sync::{Notify, watch};

use crate::figures::Figures;
use crate::guests::Guests;
use crate::incumbent::Standby;
use crate::instances::Making;
use crate::mounts::Mounts;
use crate::orchestrator::Settings;
use crate::traffic::Traffic;

/// How long an engine may take to say what there is; one that takes longer counts as one that does not answer.
const LIST_LIMIT: Span = Span::seconds(20);

pub(crate) struct Core {
    pub store: Store,
    pub engines: BTreeMap<EngineKind, Engine>,
    pub traffic: Arc<dyn Traffic>,
    pub settings: Settings,
    pub mounts: Mounts,
    /// Wakes the reconcile loop.
    pub wake: Notify,
    /// Counts changes of [`Registry`], for those who wait for one.
    changed: watch::Sender<u64>,
    registry: Mutex<Registry>,
    app_locks: Mutex<HashMap<AppName, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a table is made and published, so that tables reach the proxy in the order they were made.
    pub publishing: tokio::sync::Mutex<u64>,
    /// Whether the proxy did not take the last table: the reconcile loop tells it again.
    pub unpublished: AtomicBool,
    /// Held while a release becomes active, so that two apps cannot both find a host free and take it.
    pub switching: tokio::sync::Mutex<()>,
    /// Routes that are no app's.
    pub guests: Guests,
    /// What had been counted of apps' requests at their last switches, where those were watched.
    switched: Mutex<HashMap<AppName, Figures>>,
}

/// What is true of running work, in memory only.
#[derive(Default)]
pub(crate) struct Registry {
    /// Deployments that a rollout is working on now.
    pub live: HashMap<AppName, Live>,
    /// Instances that have proven to be healthy, at the address where they did. Only they get requests.
    pub ready: BTreeMap<InstanceId, SocketAddr>,
    /// One-off processes that somebody waits for.
    pub one_offs: HashSet<InstanceId>,
    /// Releases whose instances are being drained and stopped.
    pub retiring: BTreeSet<(EngineKind, AppName, ReleaseNumber)>,
    /// Releases that an engine may have something left of, even if that is no instance: their networks, say.
    pub unretired: BTreeSet<(EngineKind, AppName, ReleaseNumber)>,
    /// Restarts of instances that end too soon.
    pub back_off: HashMap<InstanceId, BackOff>,
    /// Instances that have been started by the reconcile loop and are being probed.
    pub probing: HashSet<InstanceId>,
    /// Instances of active releases that are too many and are on their way out. Until they are gone they get no requests,
    /// even if they are wanted again meanwhile.
    pub leaving: HashSet<InstanceId>,
    /// Containers of projects that serve for apps which take their place.
    pub standbys: BTreeMap<AppName, Vec<Standby>>,
    /// Instances that somebody else has told to end, and until when they are believed to do so: they get no requests.
    pub ending: HashMap<InstanceId, tokio::time::Instant>,
    /// Engines that have not answered since this server started, so that nobody knows what runs there.
    pub unseen: BTreeSet<EngineKind>,
    /// What the proxy was told in this server's earlier life; it stands for the apps of unseen engines.
    pub inherited: Table,
}

/// A deployment that is being worked on.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub deployment: DeploymentId,
    pub to: ReleaseNumber,
    pub from: Option<ReleaseNumber>,
    /// Processes of `from` that the rollout has stopped on purpose and that must not be healed.
    pub suspended: BTreeSet<ProcessName>,
    /// Stateful services that the rollout is creating or changing.
    pub changing: BTreeSet<ProcessName>,
    /// Whether `to` is being discarded: nothing is started in its network any more.
    pub discarded: bool,
    /// Requests to the app wait in the proxy, each for so long at most.
    pub hold: Option<Duration>,
}

/// How often an instance ended and when it may be started again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackOff {
    pub failures: u32,
    pub not_before: tokio::time::Instant,
}

impl BackOff {
    /// The first restart is immediate; then 1, 2, 4 … seconds up to a minute.
    pub(crate) fn next(previous: Option<Self>, now: tokio::time::Instant) -> Self {
        let failures = previous.map_or(0, |back_off| back_off.failures) + 1;
        let delay = match failures {
            1 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 2).min(6)).min(Duration::from_secs(60)),
        };
        Self { failures, not_before: now + delay }
    }
}

impl Core {
    pub(crate) fn new(store: Store, engines: Vec<Engine>, traffic: Arc<dyn Traffic>, settings: Settings) -> Self {
        Self {
            store,
            engines: engines.into_iter().map(|engine| (engine.kind, engine)).collect(),
            traffic,
            mounts: Mounts::new(settings.mounts.clone()),
            settings,
            wake: Notify::new(),
            changed: watch::Sender::new(0),
            registry: Mutex::default(),
            app_locks: Mutex::default(),
            publishing: tokio::sync::Mutex::new(0),
            unpublished: AtomicBool::new(false),
            switching: tokio::sync::Mutex::default(),
            guests: Guests::default(),
            switched: Mutex::default(),
        }
    }

    /// What had been counted at an app's last switch, and what to remember of the one that comes now.
    pub(crate) fn last_switch(&self, app: &AppName, now: Option<Figures>) -> Option<Figures> {
        let mut switched = self.switched.lock().unwrap_or_else(PoisonError::into_inner);
        match now {
            Some(now) => switched.insert(app.clone(), now),
            None => switched.remove(app),
        }
    }

    /// The registry, to be read or changed at once; never held across an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the registry and tells those who wait.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let result = change(&mut self.registry());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Waits until `true_of` holds of the registry.
    pub(crate) async fn until(&self, true_of: impl Fn(&Registry) -> bool) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if true_of(&self.registry()) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The lock that keeps a switch and a look at what is active from crossing. Held for moments, never while probing.
    pub(crate) fn app_lock(&self, app: &AppName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.app_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(app.clone()).or_default().clone()
    }

    /// Forgets the lock of an app of which nothing is left. Not before: whoever asks for it then gets another one.
    pub(crate) fn forget_app_lock(&self, app: &AppName) {
        self.app_locks.lock().unwrap_or_else(PoisonError::into_inner).remove(app);
    }

    pub(crate) fn forget_app(&self, app: &AppName) {
        self.change(|registry| {
            registry.ready.retain(|id, _| id.app != *app);
            registry.back_off.retain(|id, _| id.app != *app);
        });
    }

    /// The engine of that kind; an error if this server does not have it.
    pub(crate) fn engine(&self, kind: EngineKind) -> Result<&Engine, EngineError> {
        self.engines.get(&kind).ok_or_else(|| EngineError::Unavailable {
            engine: kind,
            cause: "this server has no such engine; see `coracle doctor`".to_owned(),
        })
    }

    /// How many instances of each process of the release should run.
    pub(crate) fn wanted(release: &Release, scale: &BTreeMap<ProcessName, u16>) -> BTreeMap<ProcessName, u16> {
        let processes = release.processes();
        let count = |name: &ProcessName, replicas| scale.get(name).copied().unwrap_or(replicas);
        // What runs to its end is not kept running.
        processes
            .into_iter()
            .map(|(name, spec)| (name.clone(), if spec.task { 0 } else { count(&name, spec.replicas) }))
            .collect()
    }

    /// What to start for a release.
    pub(crate) fn wanted_instances(
        &self,
        release: &Release,
        config: &[(EnvName, Secret)],
        wanted: &BTreeMap<ProcessName, u16>,
        which: impl Fn(&ProcessName) -> bool,
    ) -> Vec<InstanceSpec> {
        let making = Making { release, config, mounts: &self.mounts };
        let of = |(name, spec): (&ProcessName, &ProcessSpec)| {
            let count = wanted.get(name).copied().unwrap_or(0);
            (1..=count).map(|index| making.instance(name, spec, index)).collect::<Vec<_>>()
        };
        release.processes().iter().filter(|(name, _)| which(name)).flat_map(of).collect()
    }

    /// Every instance of every engine that answers; the kinds that did not answer come second.
    pub(crate) async fn all_instances(&self) -> (Vec<(EngineKind, Instance)>, Vec<EngineKind>) {
        let mut found = Vec::new();
        let mut silent = Vec::new();
        // All at once: one that hangs must not keep the others' instances waiting.
        let lists = self.engines.iter().map(|(kind, engine)| async {
            let list = tokio::time::timeout(LIST_LIMIT.duration(), engine.runtime.list()).await;
            let late = |_| EngineError::TimedOut { action: "list instances".to_owned(), limit: LIST_LIMIT };
            (*kind, list.map_err(late).flatten())
        });
        for (kind, list) in join_all(lists).await {
            match list {
                Ok(instances) => found.extend(instances.into_iter().map(|instance| (kind, instance))),
                Err(error) => {
                    tracing::warn!(engine = %kind, %error, "cannot list instances");
                    silent.push(kind);
                }
            }
        }
        (found, silent)
    }

    /// The last lines an instance wrote, for an error to show.
    pub(crate) async fn evidence(&self, engine: &Engine, id: &InstanceId) -> Vec<String> {
        coracle_probe::last_lines(engine, id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_begins_at_once_and_ends_at_a_minute() {
        let now = tokio::time::Instant::now();
        let mut previous = None;
        let delays: Vec<u64> = (0..9)
            .map(|_| {
                let next = BackOff::next(previous, now);
                previous = Some(next);
                (next.not_before - now).as_secs()
            })
            .collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}

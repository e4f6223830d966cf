//! What every connection shares: the snapshot that is served by, and all that outlives it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coracle_proxy_table::{Admission, Table};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::forwarded::RequestIds;
use crate::hold::{Gates, Place, Wanted};
use crate::options::Limits;
use crate::refusal::Refusal;
use crate::router::Snapshot;
use crate::service::Service;
use crate::target::{Count, InFlight, Registry, Target};

/// The data plane's shared state.
pub(crate) struct Plane {
    pub(crate) limits: Limits,
    pub(crate) log: AccessLog,
    pub(crate) ids: RequestIds,
    pub(crate) targets: Registry,
    pub(crate) gates: Gates,
    snapshot: RwLock<Arc<Snapshot>>,
    closing: AtomicBool,
    tasks: TaskTracker,
    kill: CancellationToken,
}

/// Where a request goes.
pub(crate) enum Decision {
    /// To this target, of whose path it does not see the first `stripped` bytes.
    Go { in_flight: InFlight, stripped: usize },
    /// Nowhere yet.
    Wait { place: Place, at_most: Duration },
    /// Nowhere.
    Refuse(Refusal),
}

impl Plane {
    /// Serves by `table`.
    pub(crate) fn new(limits: Limits, log: AccessLog, ids: RequestIds, table: Table) -> Arc<Self> {
        let empty = Snapshot::compile(Table::default(), |_, plan| Service::new(plan.admission.clone(), Vec::new(), None, 0));
        let plane = Arc::new(Self {
            limits,
            log,
            ids,
            targets: Registry::default(),
            gates: Gates::default(),
            snapshot: RwLock::new(Arc::new(empty)),
            closing: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
        });
        plane.install(table);
        plane
    }

    /// The snapshot that is served by.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the table. When it returns, every request that was sent by the one before is counted in flight, and every
    /// later one goes by this one. One caller at a time.
    pub(crate) fn install(&self, table: Table) {
        let turn = usize::try_from(table.generation).unwrap_or_default();
        let snapshot = Arc::new(Snapshot::compile(table, |id, plan| {
            let targets = plan.targets.iter().map(|target| self.targets.obtain(target, &self.limits)).collect();
            let gate = match plan.admission {
                Admission::Hold { .. } => Some(self.gates.held(id)),
                Admission::Open => self.gates.remaining(id),
                Admission::Closed { .. } => None,
            };
            Service::new(plan.admission.clone(), targets, gate, turn)
        }));
        let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, Arc::clone(&snapshot));
        drop(current);
        drop(before);
        let to_release = self.gates.settle(|id| match snapshot.table.services.get(id).map(|service| &service.admission) {
            Some(Admission::Hold { .. }) => Wanted::Shut,
            Some(Admission::Open) => Wanted::Open,
            Some(Admission::Closed { .. }) | None => Wanted::Gone,
        });
        for gate in to_release {
            self.spawn(gate.release());
        }
        let needed: HashSet<*const Target> = snapshot.targets().map(Arc::as_ptr).collect();
        self.targets.sweep(|target| needed.contains(&Arc::as_ptr(target)));
    }

    /// Where a request goes. `tried` are targets that do not answer it; `called` says that it has waited for its turn.
    ///
    /// The request is counted in flight before the snapshot can be replaced, so whoever drains a target after a new table
    /// sees every request that the old one sent there.
    pub(crate) fn decide(&self, host: &str, path: &str, tried: &[Arc<Target>], called: bool) -> Decision {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rule) = snapshot.find(host, path) else { return Decision::Refuse(Refusal::NoRoute) };
        let service = &rule.service;
        match &service.admission {
            Admission::Open => {
                let behind = service.gate.as_ref().filter(|_| !called && tried.is_empty()).and_then(|gate| gate.queue_up());
                match (behind, service.pick(tried)) {
                    (Some(place), _) => Decision::Wait { place, at_most: self.limits.response_header },
                    (None, Some(target)) => {
                        Decision::Go { in_flight: InFlight::begin(target, Count::Plain), stripped: rule.stripped() }
                    }
                    (None, None) => Decision::Refuse(Refusal::NoTarget),
                }
            }
            Admission::Hold { deadline_ms, max_waiting } => {
                match service.gate.as_ref().and_then(|gate| gate.join(*max_waiting)) {
                    Some(place) => Decision::Wait { place, at_most: Duration::from_millis(*deadline_ms) },
                    None => Decision::Refuse(Refusal::TooManyWaiting),
                }
            }
            Admission::Closed { message, retry_after_s } => {
                Decision::Refuse(Refusal::Closed { message: message.clone(), retry_after_s: *retry_after_s })
            }
        }
    }

    /// From now on each answer asks its client to close the connection.
    pub(crate) fn close_connections(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether connections are being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Runs a task that belongs to the plane as a whole.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled(task).await;
        });
    }

    /// Waits until no such task is left.
    pub(crate) async fn until_tasks_end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends them all.
    pub(crate) fn kill_tasks(&self) {
        self.kill.cancel();
    }
}

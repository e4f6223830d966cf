//! Apps that are deployed from repositories elsewhere: when a forge tells that the branch has moved, it is fetched as it is *now*,
//! and deployed by the rules of a push.
//!
//! What a forge tells is no more than a reason to look: neither the commit nor anything else that it names is believed, so that
//! what is told twice, late or out of order does no harm. Each app has two lanes, one for the branch that is deployed and one for all
//! others; what comes while something is under way in a lane waits in one place, where the newer takes the place of the older. However
//! long a deployment takes, or waits for a person, it holds no preview up.

mod connected;
mod connecting;
mod deploying;
mod previewing;
mod reporting;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_forge::{Api, Branch, Event};
use coracle_git_door::Door;
use coracle_model::AppName;
use coracle_store::{ForgeRecord, Store};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use connected::{Connected, Fetched};
pub(crate) use connecting::HOOKS;

use crate::deployments::Deployments;
use crate::previews::Previews;

/// How many repositories are fetched at a time.
const FETCHES: usize = 2;

/// How many branches beside the one that is deployed may wait in an app's lane for them.
const BRANCHES: usize = 64;

/// The connections between apps and forges, and what goes on by them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forges {
    inner: Arc<Inner>,
}

/// What forges' events are carried out with.
pub(crate) struct Means {
    pub store: Store,
    pub door: Door,
    pub deployments: Deployments,
    pub previews: Previews,
    /// Where this server is reached from outside, if that was told.
    pub public_url: Option<String>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

struct Inner {
    means: Means,
    api: Api,
    fetches: Semaphore,
    lanes: Mutex<Lanes>,
}

/// The lanes in which something is under way.
#[derive(Default)]
struct Lanes(HashMap<LaneId, Arc<Lane>>);

/// Which lane it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LaneId {
    app: AppName,
    kind: Kind,
}

/// What a lane of an app is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The branch that is deployed.
    Deployed,
    /// All others.
    Beside,
}

/// What is to be done for an app, one thing after the other.
#[derive(Default)]
struct Lane {
    waits: Mutex<Waiting>,
    came: Notify,
    /// Held while something is fetched. Both lanes of an app have the same: into one repository, one fetch goes on at a time.
    fetching: Arc<AsyncMutex<()>>,
}

impl Lanes {
    /// A lane, and whether it is a new one, which nobody walks yet.
    fn open(&mut self, id: &LaneId) -> (Arc<Lane>, bool) {
        if let Some(lane) = self.0.get(id) {
            return (lane.clone(), false);
        }
        let fetching = self.0.get(&id.other()).map(|other| other.fetching.clone()).unwrap_or_default();
        let lane = Arc::new(Lane { fetching, ..Lane::default() });
        self.0.insert(id.clone(), lane.clone());
        (lane, true)
    }
}

impl LaneId {
    fn of(app: &AppName, kind: Kind) -> Self {
        Self { app: app.clone(), kind }
    }

    /// The same app's other lane.
    fn other(&self) -> Self {
        let kind = match self.kind {
            Kind::Deployed => Kind::Beside,
            Kind::Beside => Kind::Deployed,
        };
        Self::of(&self.app, kind)
    }
}

/// What has come that nobody has begun with. Each lane has its own kind of it.
#[derive(Default)]
struct Waiting {
    /// Whether the branch that is deployed has moved.
    deployed: bool,
    /// What has become of branches beside it.
    beside: BTreeMap<Branch, Change>,
}

/// What has become of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Moved,
    Gone,
}

/// What is begun with.
enum Turn {
    Deploy,
    Beside(Branch, Change),
}

impl Lane {
    fn waits(&self) -> MutexGuard<'_, Waiting> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Turn> {
        if std::mem::take(&mut self.deployed) {
            return Some(Turn::Deploy);
        }
        self.beside.pop_first().map(|(branch, change)| Turn::Beside(branch, change))
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The branch is going to be deployed.
    Deploys,
    /// Something is going to be done about another, as this sentence says.
    Beside(String),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Forges {
    pub(crate) fn new(means: Means) -> Self {
        let (api, fetches, lanes) = (Api::default(), Semaphore::new(FETCHES), Mutex::default());
        Self { inner: Arc::new(Inner { means, api, fetches, lanes }) }
    }

    /// Takes up what an earlier server was asked for and did not come to.
    pub(crate) async fn resume(&self) {
        match self.inner.means.store.wanted_forges().await {
            Ok(apps) => apps.iter().for_each(|app| self.wake(app)),
            Err(error) => tracing::error!(%error, "what forges asked for before the start is not known"),
        }
    }

    /// Where this server is reached from outside, without a slash at the end.
    pub(crate) fn public_url(&self) -> Option<&str> {
        self.inner.means.public_url.as_deref()
    }

    /// Takes a delivery of verified events; whether it is taken for the first time. If the branch that is deployed is among them,
    /// that is written down together with the delivery, before it is begun: what was taken is done, even by the next server.
    pub(crate) async fn take(
        &self,
        record: &ForgeRecord,
        events: &[Event],
        known_by: &[String],
    ) -> Result<bool, coracle_store::StoreError> {
        let wanted = events.iter().any(|event| deploys(record, event)).then_some(record.branch.as_str());
        let is_taken = self.inner.means.store.take_delivery(&record.app, known_by, wanted).await?;
        if is_taken && wanted.is_some() {
            self.wake(&record.app);
        }
        Ok(is_taken)
    }

    /// What becomes of a verified event of a delivery that was taken. What moves the app is begun by then.
    pub(crate) async fn hear(&self, record: &ForgeRecord, event: &Event) -> Result<Heard, coracle_store::StoreError> {
        match event {
            event if deploys(record, event) => Ok(Heard::Deploys),
            Event::BranchGone { branch } if branch.as_str() == record.branch => Ok(Heard::Nothing(format!(
                "{branch} is what is deployed; what is live stays: coracle destroy -a {} ends it",
                record.app
            ))),
            Event::Ping => Ok(Heard::Nothing(format!("well connected: {} is deployed from {}", record.app, record.branch))),
            Event::BranchMoved { branch, .. } => self.moved_beside(record, branch).await,
            Event::BranchGone { branch } => self.gone_beside(record, branch).await,
            beside => Ok(of_no_branch(record, beside)),
        }
    }

    /// Has the branch fetched and deployed, if it is not live already. It is written down before it is begun.
    pub(crate) async fn deploy(&self, app: &AppName) -> Result<(), coracle_store::StoreError> {
        self.inner.means.store.want_forge(app).await?;
        self.wake(app);
        Ok(())
    }

    fn wake(&self, app: &AppName) {
        self.put(LaneId::of(app, Kind::Deployed), |waiting| waiting.deployed = true);
    }

    /// Puts something into a lane, which is walked from then on if nobody does.
    fn put<T>(&self, id: LaneId, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut lanes = self.lanes();
        let (lane, is_new) = lanes.open(&id);
        if is_new {
            let walking = Walking { forges: self.clone(), id, lane: lane.clone() };
            self.inner.means.tasks.spawn(async move { walking.forges.walk(&walking.id, &walking.lane).await });
        }
        let put = change(&mut lane.waits());
        lane.came.notify_one();
        put
    }

    /// Does what waits in a lane until nothing does.
    async fn walk(&self, id: &LaneId, lane: &Lane) {
        let app = &id.app;
        loop {
            let turn = {
                // Whoever puts something there holds the lanes, so it is either seen here or finds no lane.
                let mut lanes = self.lanes();
                let next = lane.waits().next().filter(|_| !self.inner.means.stop.is_cancelled());
                let Some(turn) = next else {
                    lanes.0.remove(id);
                    return;
                };
                turn
            };
            match turn {
                Turn::Deploy => self.carry_out(app, lane).await,
                Turn::Beside(branch, Change::Moved) => self.preview(app, &branch, lane).await,
                Turn::Beside(branch, Change::Gone) => self.end_preview(app, &branch).await,
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event moves the app.
fn deploys(record: &ForgeRecord, event: &Event) -> bool {
    matches!(event, Event::BranchMoved { branch, .. } if branch.as_str() == record.branch)
}

/// What becomes of events that are about no branch of the repository.
fn of_no_branch(record: &ForgeRecord, event: &Event) -> Heard {
    Heard::Nothing(match event {
        // Its files are anybody's.
        Event::PullRequest { number, from_fork: true, .. } => format!("#{number} comes from a fork, which is never deployed"),
        Event::PullRequest { number, .. } => format!("#{number} is not deployed: its branch is, if [previews] names it"),
        Event::Tag => format!("tags are not deployed: {} is", record.branch),
        Event::Other(name) => format!("nothing is done about {name:?}"),
        Event::Ping | Event::BranchMoved { .. } | Event::BranchGone { .. } => String::new(),
    })
}

/// Somebody walks a lane. However that ends, the lane is gone then, so that the next event finds it free.
struct Walking {
    forges: Forges,
    id: LaneId,
    lane: Arc<Lane>,
}

impl Drop for Walking {
    fn drop(&mut self) {
        let mut lanes = self.forges.lanes();
        if lanes.0.get(&self.id).is_some_and(|lane| Arc::ptr_eq(lane, &self.lane)) {
            lanes.0.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_app_has_two_lanes_and_fetches_in_one_of_them_at_a_time() {
        let mut lanes = Lanes::default();
        let id = |app: &str, kind| LaneId::of(&app.parse().unwrap(), kind);
        let (deployed, is_new) = lanes.open(&id("shop", Kind::Deployed));
        assert!(is_new && !lanes.open(&id("shop", Kind::Deployed)).1);
        let (beside, is_new) = lanes.open(&id("shop", Kind::Beside));
        assert!(is_new && !Arc::ptr_eq(&deployed, &beside));
        let (other, _) = lanes.open(&id("blog", Kind::Beside));
        let fetching = deployed.fetching.try_lock().unwrap();
        assert!(beside.fetching.try_lock().is_err());
        assert!(other.fetching.try_lock().is_ok());
        // One that comes anew keeps to what goes on in the other.
        lanes.0.remove(&id("shop", Kind::Beside));
        let (again, is_new) = lanes.open(&id("shop", Kind::Beside));
        assert!(is_new && again.fetching.try_lock().is_err());
        drop(fetching);
        assert!(again.fetching.try_lock().is_ok());
    }
}

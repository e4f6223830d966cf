//! Taking targets out of service without losing what is in flight on them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_proxy_table::{Admission, TargetId};
use tokio::time::timeout;

use crate::plane::Plane;
use crate::target::{Count, Target};

/// How long those that were cut off may take to notice.
const NOTICE: Duration = Duration::from_secs(1);

/// Takes targets out of what later tables find: one that a later table brings back is another one, and nothing on it is ended.
/// What the table sends requests to at this moment is left alone. For whoever sees to it that no table comes meanwhile.
pub(crate) fn take_leave(plane: &Plane, ids: &[TargetId]) -> Vec<Arc<Target>> {
    let snapshot = plane.snapshot();
    let open = snapshot.services().filter(|(plan, _)| plan.admission == Admission::Open);
    let in_use: HashSet<*const Target> = open
        .flat_map(|(_, service)| service.balancer.targets())
        .filter(|target| ids.contains(&target.id))
        .map(Arc::as_ptr)
        .collect();
    let mut targets = plane.targets.all();
    targets.retain(|target| ids.contains(&target.id) && !in_use.contains(&Arc::as_ptr(target)));
    if !in_use.is_empty() {
        let generation = snapshot.table.generation;
        tracing::warn!(targets = in_use.len(), generation, "targets that the table sends requests to are not drained");
    }
    targets.iter().for_each(|target| plane.targets.take_leave(target));
    targets
}

/// Waits until these targets have no request in flight, at most for `deadline`, and ends what is left then: 504 for
/// requests without an answer, a broken connection for the rest. Upgraded connections end when the plain ones have.
/// Returns how many requests were cut off.
pub(crate) async fn drain(plane: &Plane, targets: &[Arc<Target>], deadline: Duration) -> usize {
    let drained = targets.iter().map(|target| drain_one(plane, target, deadline));
    let cut_off: usize = futures::future::join_all(drained).await.into_iter().sum();
    for target in targets {
        plane.targets.forget(target);
    }
    cut_off
}

/// Ends everything on every target at once. Returns how many requests were cut off.
pub(crate) async fn cut_all(plane: &Plane) -> usize {
    let targets = plane.targets.all();
    let drained = targets.iter().map(|target| drain_one(plane, target, Duration::ZERO));
    futures::future::join_all(drained).await.into_iter().sum()
}

async fn drain_one(plane: &Plane, target: &Arc<Target>, deadline: Duration) -> usize {
    let mut cut_off = 0;
    if timeout(deadline, target.until_none(Count::Plain)).await.is_err() {
        cut_off = target.in_flight();
        target.cut();
        plane.wake_all();
        if timeout(NOTICE, target.until_none(Count::Plain)).await.is_err() {
            tracing::warn!(target = target.id.0, in_flight = target.in_flight(), "requests outlive their target");
        }
    }
    target.close_upgraded();
    if target.upgraded() > 0 {
        plane.wake_all();
    }
    if timeout(NOTICE, target.until_none(Count::Upgraded)).await.is_err() {
        tracing::warn!(target = target.id.0, upgraded = target.upgraded(), "upgraded connections outlive their target");
    }
    target.clear_pools();
    cut_off
}

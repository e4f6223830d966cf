//! Taking targets out of service without losing what is in flight on them.

use std::sync::Arc;
use std::time::Duration;

use coracle_proxy_table::TargetId;
use tokio::time::timeout;

use crate::plane::Plane;
use crate::target::{Count, Target};

/// How long those that were cut off may take to notice.
const NOTICE: Duration = Duration::from_secs(1);

/// Waits until these targets have no request in flight, at most for `deadline`, and ends what is left then: 504 for
/// requests without an answer, a broken connection for the rest. Upgraded connections end when the plain ones have.
/// Returns how many requests were cut off.
pub(crate) async fn drain(plane: &Plane, ids: &[TargetId], deadline: Duration) -> usize {
    let mut targets = plane.targets.all();
    targets.retain(|target| ids.contains(&target.id));
    let drained = targets.iter().map(|target| drain_one(plane, target, deadline));
    let cut_off: usize = futures::future::join_all(drained).await.into_iter().sum();
    for target in &targets {
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

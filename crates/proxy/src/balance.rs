//! Which target of a service gets a request.
//!
//! Targets of equal weights take turns. Where weights differ, or grow over a slow start, the turns are weighted
//! (`rotation`); on demand the less loaded of two goes first (`chance`), or a cookie leads back to the target that a client
//! had (`sticky`).
//!
//! A target that is down gets nothing. One that is ejected gets a single request when its time is over, and all it can take
//! when nobody else is left: an ejection is a guess, and one that is wrong must not make a service unreachable. A target of
//! weight 0 gets only what its cookie leads there; if all have it, nobody answers.

pub(crate) mod chance;
pub(crate) mod rotation;
pub(crate) mod sticky;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_proxy_http::Fields;
use coracle_proxy_table::{Balance, Ejection};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::balance::rotation::Rotation;
use crate::balance::sticky::Stickiness;
use crate::standing::{DOWN, EJECTED};
use crate::target::Target;

/// Whether an answer of this status says that whoever gave it is of no use now.
pub(crate) fn says_failed(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// The targets of a service, and whose turn it is.
pub(crate) struct Balancer {
    targets: Vec<Arc<Target>>,
    weights: Vec<u32>,
    order: Order,
    /// What speaks against a target here.
    minds: u8,
    sticky: Option<Stickiness>,
    ejection: Option<Ejection>,
    /// Held while it is decided whether a target is ejected.
    ejecting: Mutex<()>,
}

enum Order {
    Turns(Turn),
    Weighted(Arc<Rotation>),
    LeastLoaded,
}

/// Every request writes to it: not beside what every request reads.
#[repr(align(128))]
struct Turn(AtomicUsize);

/// Who wants a target.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) worker: usize,
    /// Targets that did not answer it.
    pub(crate) tried: &'a [Arc<Target>],
    /// Of its request.
    pub(crate) fields: &'a Fields,
    /// Asked only if it matters.
    pub(crate) clock: fn() -> Instant,
}

/// A target that may get a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Among the service's targets.
    pub(crate) index: usize,
    /// In thousandths.
    pub(crate) weight: u64,
}

type Candidates = SmallVec<[Candidate; 8]>;

impl Balancer {
    /// Of a service with these targets. `before` is what the table before had in its place: if its targets and weights are the same,
    /// weighted turns go on where they are. Otherwise `turn` says where they begin.
    pub(crate) fn new(
        plan: &coracle_proxy_table::Service,
        targets: Vec<Arc<Target>>,
        before: Option<&Self>,
        workers: usize,
        turn: u64,
    ) -> Self {
        let weights: Vec<u32> = plan.targets.iter().map(|target| target.weight).collect();
        let equal = weights.iter().all(|weight| *weight == weights[0]);
        let is_same = |before: &&Self| {
            let same = |(a, b): (&Arc<Target>, &Arc<Target>)| Arc::ptr_eq(a, b);
            before.weights == weights && before.targets.iter().zip(&targets).all(same)
        };
        let order = match (plan.balance, before.filter(is_same).map(|before| &before.order)) {
            (Balance::LeastLoaded, _) => Order::LeastLoaded,
            (Balance::RoundRobin, _) if equal && plan.slow_start_ms == 0 => {
                Order::Turns(Turn(AtomicUsize::new(usize::try_from(turn).unwrap_or_default())))
            }
            (Balance::RoundRobin, Some(Order::Weighted(rotation))) => Order::Weighted(Arc::clone(rotation)),
            (Balance::RoundRobin, _) => Order::Weighted(Arc::new(Rotation::new(workers, &weights, turn))),
        };
        Self {
            order,
            minds: if plan.health.is_some() { DOWN } else { 0 } | if plan.ejection.is_some() { EJECTED } else { 0 },
            sticky: plan.sticky.as_ref().map(|sticky| Stickiness::new(sticky, targets.iter().map(|target| &target.id))),
            ejection: plan.ejection.clone(),
            ejecting: Mutex::new(()),
            targets,
            weights,
        }
    }

    /// Its targets.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// Who gets a request; nobody if none may, or all that may have been tried.
    pub(crate) fn pick(&self, asker: Asker<'_>) -> Option<&Arc<Target>> {
        if let Some(target) = self.wanted(asker) {
            return Some(target);
        }
        let Order::Turns(turn) = &self.order else { return self.choose(asker, 0) };
        let count = self.targets.len();
        let first = match count {
            0 => return None,
            1 => 0,
            _ => turn.0.fetch_add(1, Ordering::Relaxed),
        };
        let target = &self.targets[first % count];
        let is_fine = self.weights[0] > 0 && target.standing.against(self.minds) == 0 && !is_among(target, asker.tried);
        // If it is not, its turns are shared out among the others.
        if is_fine { Some(target) } else { self.choose(asker, first / count) }
    }

    /// The target that its client's cookie leads to.
    fn wanted(&self, asker: Asker<'_>) -> Option<&Arc<Target>> {
        let target = &self.targets[self.sticky.as_ref()?.wanted(asker.fields)?];
        let now = (asker.clock)();
        let admitted = !is_among(target, asker.tried) && target.standing.admits(self.minds, now);
        (admitted && self.claim(target, now)).then_some(target)
    }

    fn choose(&self, asker: Asker<'_>, turn: usize) -> Option<&Arc<Target>> {
        let now = (asker.clock)();
        loop {
            let candidates = self.candidates(asker, now, |target| target.standing.admits(self.minds, now));
            let Some(target) = self.order(asker.worker, &candidates, turn) else { break };
            // If another worker's request was faster, this one is no candidate any more.
            if self.claim(target, now) {
                return Some(target);
            }
        }
        let ejected = self.candidates(asker, now, |target| target.standing.against(self.minds) == EJECTED);
        let target = self.order(asker.worker, &ejected, turn)?;
        target.standing.need();
        Some(target)
    }

    fn candidates(&self, asker: Asker<'_>, now: Instant, admits: impl Fn(&Target) -> bool) -> Candidates {
        let all = self.targets.iter().zip(&self.weights).enumerate();
        let open = all.filter(|(_, (target, weight))| **weight > 0 && admits(target) && !is_among(target, asker.tried));
        let candidate = |(index, (target, weight)): (usize, (&Arc<Target>, &u32))| Candidate {
            index,
            weight: u64::from(*weight) * target.standing.share(now),
        };
        open.map(candidate).collect()
    }

    fn order(&self, worker: usize, candidates: &[Candidate], turn: usize) -> Option<&Arc<Target>> {
        let place = match &self.order {
            Order::Turns(_) => turn.checked_rem(candidates.len()),
            Order::Weighted(rotation) => rotation.next(worker, candidates),
            Order::LeastLoaded => chance::less_loaded(candidates, |index| self.targets[index].in_flight()),
        };
        Some(&self.targets[candidates[place?].index])
    }

    /// Whether a target that was admitted is: of an ejected one, only one request may try.
    fn claim(&self, target: &Target, now: Instant) -> bool {
        target.standing.against(self.minds) & EJECTED == 0 || target.standing.try_again(now)
    }

    /// The `Set-Cookie` that a client needs to come back to this target; nothing if it has it already.
    pub(crate) fn cookie(&self, target: &Arc<Target>, fields: &Fields) -> Option<String> {
        let sticky = self.sticky.as_ref()?;
        let index = self.targets.iter().position(|other| Arc::ptr_eq(other, target))?;
        (sticky.wanted(fields) != Some(index)).then(|| sticky.cookie(index))
    }

    /// Whether it wants to be told how requests end.
    pub(crate) fn ejects(&self) -> bool {
        self.ejection.is_some()
    }

    /// A target has answered properly.
    pub(crate) fn succeeded(&self, target: &Target, now: Instant) {
        if self.ejects() && target.standing.succeeded(now) {
            tracing::info!(target = target.id.0, "a target that was ejected answers again");
        }
    }

    /// A target has not answered properly. It is ejected if that was once too often, unless half of them would be out then.
    pub(crate) fn failed(&self, target: &Target, now: Instant) {
        let Some(plan) = &self.ejection else { return };
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let may = || {
            let serving = || self.targets.iter().zip(&self.weights).filter(|(_, weight)| **weight > 0);
            let out = serving().filter(|(target, _)| target.standing.against(DOWN | EJECTED) != 0).count();
            (out + 1) * 2 <= serving().count()
        };
        if target.standing.failed(plan, now, may) {
            // What is kept may be as broken as the rest.
            target.clear_pools();
            tracing::warn!(target = target.id.0, address = %target.address, "a target is ejected: it fails its requests");
        }
    }
}

fn is_among(target: &Arc<Target>, tried: &[Arc<Target>]) -> bool {
    tried.iter().any(|other| Arc::ptr_eq(other, target))
}

#[cfg(test)]
mod tests;

//! How a target stands: whether it is healthy, whether it has been ejected, and since when it gets requests.
//!
//! It lives on the target, so that it outlives tables. What every request asks is one atomic load; everything else happens
//! only when something changes, or to services that want a slow start.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use coracle_proxy_table::Ejection;
use tokio::time::Instant;

use crate::control::TargetState;

/// Its health checks fail.
pub(crate) const DOWN: u8 = 1;
/// It has failed too many requests in a row.
pub(crate) const EJECTED: u8 = 2;
/// The longest ejection, as a multiple of the first one.
const LONGEST: u32 = 10;
/// A share that is whole, in thousandths.
pub(crate) const WHOLE: u64 = 1000;
/// A new target's share, in thousandths: with nothing at all it would never begin.
const LITTLE: u64 = 10;

/// How one target stands. Times are milliseconds after `epoch`.
pub(crate) struct Standing {
    epoch: Instant,
    /// [`DOWN`], [`EJECTED`], both or none.
    flags: AtomicU8,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// When one request may try an ejected target.
    trial_at: AtomicU64,
    /// One does, and its end decides.
    on_trial: AtomicBool,
    /// How long it is ejected this time.
    ejected_for: AtomicU64,
    /// Since when it has got requests without a break.
    since: AtomicU64,
    /// Over how long its share grows, in milliseconds.
    slow_start: AtomicU64,
    ejections: AtomicU64,
    failed_checks: AtomicU64,
}

impl Standing {
    /// A target that is new at this moment.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            flags: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            trial_at: AtomicU64::new(0),
            on_trial: AtomicBool::new(false),
            ejected_for: AtomicU64::new(0),
            since: AtomicU64::new(0),
            slow_start: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            failed_checks: AtomicU64::new(0),
        }
    }

    /// What speaks against it, of what somebody minds.
    pub(crate) fn against(&self, minds: u8) -> u8 {
        self.flags.load(Ordering::Relaxed) & minds
    }

    /// Whether it may get a request of somebody who minds this.
    pub(crate) fn admits(&self, minds: u8, now: Instant) -> bool {
        match self.against(minds) {
            0 => true,
            EJECTED => self.trial_at.load(Ordering::Relaxed) <= self.millis(now),
            _ => false,
        }
    }

    /// Begins the trial of an ejected target. False if another request was faster. If a trial ends without a verdict, because
    /// its client left, there is another one as long after it as the ejection took.
    pub(crate) fn try_again(&self, now: Instant) -> bool {
        let now = self.millis(now);
        let next = now.saturating_add(self.ejected_for.load(Ordering::Relaxed));
        let claim = |at| (at <= now).then_some(next);
        let claimed = self.trial_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).is_ok();
        if claimed {
            self.on_trial.store(true, Ordering::Relaxed);
        }
        claimed
    }

    /// A request goes there although it is ejected: there is nobody else. That is a trial, too.
    pub(crate) fn need(&self) {
        self.on_trial.store(true, Ordering::Relaxed);
    }

    /// A request was answered properly. Whether that ended an ejection.
    pub(crate) fn succeeded(&self, now: Instant) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        // What was sent before the ejection says nothing.
        if self.against(EJECTED) == 0 || !self.on_trial.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.raise(EJECTED, now)
    }

    /// A request was not answered properly. Ejects the target if these were too many in a row and it `may` be ejected; true
    /// then. To be called by one thread at a time.
    pub(crate) fn failed(&self, plan: &Ejection, now: Instant, may: impl FnOnce() -> bool) -> bool {
        if self.against(EJECTED) != 0 {
            if !self.on_trial.swap(false, Ordering::Relaxed) {
                return false;
            }
        } else {
            let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
            self.failures.store(failures, Ordering::Relaxed);
            if failures < plan.failures || !may() {
                return false;
            }
        }
        self.eject(plan, self.millis(now));
        true
    }

    fn eject(&self, plan: &Ejection, now: u64) {
        let longest = plan.for_ms.saturating_mul(LONGEST.into());
        let stood = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let again = self.against(EJECTED) != 0 || stood < longest;
        let before = if again { self.ejected_for.load(Ordering::Relaxed) } else { 0 };
        let length = before.saturating_mul(2).clamp(plan.for_ms, longest);
        self.ejected_for.store(length, Ordering::Relaxed);
        self.trial_at.store(now.saturating_add(length), Ordering::Relaxed);
        self.on_trial.store(false, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.flags.fetch_or(EJECTED, Ordering::Relaxed);
    }

    /// Its checks fail. Whether that is new.
    pub(crate) fn went_down(&self) -> bool {
        self.flags.fetch_or(DOWN, Ordering::Relaxed) & DOWN == 0
    }

    /// Its checks succeed, or there are none. Whether that is new.
    pub(crate) fn came_up(&self, now: Instant) -> bool {
        self.raise(DOWN, now)
    }

    fn raise(&self, flag: u8, now: Instant) -> bool {
        // Its share has to be small before it gets the first request.
        if self.against(flag) != 0 {
            self.since.store(self.millis(now), Ordering::Relaxed);
        }
        self.flags.fetch_and(!flag, Ordering::Relaxed) & flag != 0
    }

    /// A check failed.
    pub(crate) fn check_failed(&self) {
        self.failed_checks.fetch_add(1, Ordering::Relaxed);
    }

    /// Over how long its share grows.
    pub(crate) fn set_slow_start(&self, millis: u64) {
        if self.slow_start.load(Ordering::Relaxed) != millis {
            self.slow_start.store(millis, Ordering::Relaxed);
        }
    }

    /// How much of its weight counts at this moment, in thousandths.
    pub(crate) fn share(&self, now: Instant) -> u64 {
        let slow_start = self.slow_start.load(Ordering::Relaxed);
        if slow_start == 0 {
            return WHOLE;
        }
        let stood = self.millis(now).saturating_sub(self.since.load(Ordering::Relaxed));
        (stood.saturating_mul(WHOLE) / slow_start).clamp(LITTLE, WHOLE)
    }

    /// How it stands at this moment.
    pub(crate) fn state(&self, now: Instant) -> TargetState {
        match self.against(DOWN | EJECTED) {
            0 if self.share(now) < WHOLE => TargetState::Starting,
            0 => TargetState::Up,
            EJECTED => TargetState::Ejected,
            _ => TargetState::Down,
        }
    }

    /// How often it has been ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How many of its checks have failed.
    pub(crate) fn failed_checks(&self) -> u64 {
        self.failed_checks.load(Ordering::Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    const PLAN: Ejection = Ejection { failures: 3, for_ms: 100 };

    fn fail(standing: &Standing, times: u32, now: Instant) -> bool {
        (0..times).any(|_| standing.failed(&PLAN, now, || true))
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let begin = Instant::now();
        let standing = Standing::new(begin);
        assert!(!fail(&standing, 2, begin));
        standing.succeeded(begin);
        assert!(!fail(&standing, 2, begin));
        assert!(!standing.failed(&PLAN, begin, || false), "others are out already");
        assert!(standing.failed(&PLAN, begin, || true));
        assert_eq!((standing.state(begin), standing.ejections()), (TargetState::Ejected, 1));
        // To a service without ejection it is as good as any.
        assert!(standing.admits(DOWN, begin));
    }

    #[test]
    fn one_trial_decides_and_each_ejection_is_longer_up_to_ten_times() {
        let begin = Instant::now();
        let standing = Standing::new(begin);
        let mut now = begin;
        assert!(fail(&standing, 3, now));
        for length in [100, 200, 400, 800, 1000, 1000] {
            let minds = DOWN | EJECTED;
            assert!(!standing.admits(minds, after(now, length - 1)));
            // Late ends of what was sent before decide nothing.
            assert!(!standing.succeeded(now));
            assert!(!standing.failed(&PLAN, now, || true));
            now = after(now, length);
            assert!(standing.admits(minds, now));
            assert!(standing.try_again(now));
            assert!(!standing.try_again(now) && !standing.admits(minds, now), "one request at a time");
            assert!(standing.failed(&PLAN, now, || true));
        }
        now = after(now, 1000);
        assert!(standing.try_again(now) && standing.succeeded(now));
        assert_eq!(standing.state(now), TargetState::Up);
        // Right after it came back it is as bad as before; after a long time its past is forgotten.
        assert!(fail(&standing, 3, now));
        assert!(!standing.admits(EJECTED, after(now, 999)));
        now = after(now, 1000);
        assert!(standing.try_again(now) && standing.succeeded(now));
        now = after(now, 1000);
        assert!(fail(&standing, 3, now));
        assert!(standing.admits(EJECTED, after(now, 100)));
    }

    #[test]
    fn a_trial_without_a_verdict_is_followed_by_another() {
        let begin = Instant::now();
        let standing = Standing::new(begin);
        assert!(fail(&standing, 3, begin));
        assert!(standing.try_again(after(begin, 100)));
        assert!(!standing.try_again(after(begin, 199)));
        assert!(standing.try_again(after(begin, 200)));
    }

    #[test]
    fn a_share_grows_steadily_from_little_to_all_and_anew_after_an_outage() {
        let begin = Instant::now();
        let standing = Standing::new(begin);
        assert_eq!(standing.share(begin), WHOLE);
        standing.set_slow_start(1000);
        for started in [0, 5000] {
            let shares: Vec<u64> = (0..=1200).step_by(10).map(|ms| standing.share(after(begin, started + ms))).collect();
            assert!(shares.is_sorted());
            assert_eq!((shares[0], shares[50], shares[100], shares[120]), (LITTLE, 500, WHOLE, WHOLE));
            assert_eq!(standing.state(after(begin, started + 10)), TargetState::Starting);
            assert!(standing.went_down() && !standing.went_down());
            assert!(!standing.admits(DOWN, after(begin, 4000)) && standing.admits(EJECTED, after(begin, 4000)));
            assert_eq!(standing.state(after(begin, 4000)), TargetState::Down);
            assert!(standing.came_up(after(begin, 5000)) && !standing.came_up(after(begin, 6000)));
        }
    }
}

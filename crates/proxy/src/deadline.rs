//! The one deadline of a connection, and the alarm that tells when it has passed.
//!
//! A timer per request would be started and stopped thousands of times a second without ever ringing. Here a connection has
//! one alarm, which is set again only when the deadline comes nearer than what it is set to: for a busy connection about
//! once a minute. When it rings too early, it is set to where the deadline is by then.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

const NEVER: u64 = u64::MAX;

/// When whatever goes on has to be over. All by one task: the atomics are there because its future may be moved.
pub(crate) struct Deadline {
    since: Instant,
    /// Milliseconds after `since`.
    at: AtomicU64,
    passed: AtomicBool,
}

impl Deadline {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), at: AtomicU64::new(NEVER), passed: AtomicBool::new(false) }
    }

    /// So long from now.
    pub(crate) fn set(&self, after: Duration) {
        self.set_from(Instant::now(), after);
    }

    /// So long after `now`, which the caller has looked up already.
    pub(crate) fn set_from(&self, now: Instant, after: Duration) {
        let at = now.saturating_duration_since(self.since).saturating_add(after).as_millis();
        self.at.store(u64::try_from(at).unwrap_or(NEVER), Ordering::Relaxed);
        self.passed.store(false, Ordering::Relaxed);
    }

    /// Sets it unless there is one.
    pub(crate) fn set_if_none(&self, after: Duration) {
        if self.at.load(Ordering::Relaxed) == NEVER && !self.has_passed() {
            self.set(after);
        }
    }

    /// No deadline from here on.
    pub(crate) fn clear(&self) {
        self.at.store(NEVER, Ordering::Relaxed);
        self.passed.store(false, Ordering::Relaxed);
    }

    /// Whether it has passed; every wait under it has to ask whenever it is polled.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Runs `work`, which is polled once more when the deadline has passed. To be awaited by the task itself, not within a
    /// combinator: the alarm remembers whom to wake.
    pub(crate) async fn watch<F: Future>(&self, mut work: Pin<&mut F>) -> F::Output {
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut set_to = NEVER;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = work.as_mut().poll(cx) {
                    return Poll::Ready(output);
                }
                if !self.rings(cx, alarm.as_mut(), &mut set_to) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Keeps the alarm where it has to be. Whether the deadline has passed just now.
    fn rings(&self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>, set_to: &mut u64) -> bool {
        loop {
            let at = self.at.load(Ordering::Relaxed);
            if at < *set_to {
                *set_to = at;
                alarm.as_mut().reset(self.since + Duration::from_millis(at));
            } else if *set_to == NEVER || !alarm.is_elapsed() {
                return false;
            } else if at != NEVER && self.since + Duration::from_millis(at) <= Instant::now() {
                *set_to = NEVER;
                self.at.store(NEVER, Ordering::Relaxed);
                self.passed.store(true, Ordering::Relaxed);
                return true;
            } else {
                // It rang for a deadline that is no more.
                *set_to = NEVER;
                continue;
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_that_moves_passes_where_it_is_last() {
        let (deadline, begun) = (Deadline::new(), Instant::now());
        deadline.set(Duration::from_secs(75));
        let passed = || poll_fn(|_| if deadline.has_passed() { Poll::Ready(()) } else { Poll::Pending });
        let mut work = pin!(async {
            deadline.set(Duration::from_millis(10));
            tokio::task::yield_now().await;
            deadline.clear();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!deadline.has_passed());
            deadline.set(Duration::from_millis(30));
            tokio::task::yield_now().await;
            deadline.set(Duration::from_millis(50));
            passed().await;
            assert!(begun.elapsed() >= Duration::from_millis(70));
            deadline.set(Duration::from_secs(100));
            assert!(!deadline.has_passed());
        });
        deadline.watch(work.as_mut()).await;
    }
}

//! How fast a request's body comes: a client may pause, but not all the time. One that sends a byte now and then would otherwise
//! keep a connection to a target, and whatever the target has for it, for as long as it likes.

use std::time::Duration;

use tokio::time::Instant;

/// The time that a client has been waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Waited for since then.
    since: Option<Instant>,
    /// And for so long before.
    waited: Duration,
}

impl Pace {
    /// The client is not waited for just now; what takes time is the target's affair.
    pub(super) fn rests(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// The client is waited for, and has sent so many bytes of its body. How much longer it may be waited for, if a body may take
    /// `grace` longer than it would at `rate` bytes a second (0 for any time).
    pub(super) fn waits(&mut self, now: Instant, bytes: u64, rate: u64, grace: Duration) -> Duration {
        let since = *self.since.get_or_insert(now);
        if rate == 0 {
            return Duration::MAX;
        }
        let allowed = grace.saturating_add(Duration::from_micros((bytes / rate).saturating_mul(1_000_000)));
        allowed.saturating_sub(self.waited + now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_that_a_client_is_waited_for_counts() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::default();
        assert_eq!(pace.waits(begun, 0, 100, 10 * second), 10 * second);
        assert_eq!(pace.waits(begun + 4 * second, 200, 100, 10 * second), 8 * second);
        assert_eq!(pace.waits(begun + 12 * second, 200, 100, 10 * second), Duration::ZERO);
        assert_eq!(pace.waits(begun + 12 * second, 200, 0, 10 * second), Duration::MAX);
        pace = Pace { since: None, waited: 3 * second };
        assert_eq!(pace.waits(begun + 100 * second, 0, 100, 10 * second), 7 * second);
        assert!(pace.waits(begun, u64::MAX, 1, Duration::MAX) > second);
    }
}

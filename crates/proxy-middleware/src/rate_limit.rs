//! So many requests in a time, for each source.
//!
//! A token bucket, kept as the one moment at which it will be full again (the generic cell rate algorithm): sixteen bytes for a
//! source, and nothing at all for one that was quiet for long enough.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::RateLimit as Settings;
use http::StatusCode;

use crate::answer::Answer;
use crate::client::Client;
use crate::source::{Criterion, Usual};
use crate::{pages, wrong};

/// Parts of the table, each with its own lock.
const SHARDS: usize = 16;
/// Sources in one part. With more at once, those that used least of their bucket are forgotten first.
const SOURCES: usize = 4096;
/// Between two looks for sources that may be forgotten.
const SWEEP: Nanos = 100_000_000;

/// Since the limiter was made.
type Nanos = u64;

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct RateLimit {
    source: Criterion,
    /// Between two requests at the average rate; 0 for no limit.
    interval: Nanos,
    /// What a bucket takes beyond that.
    slack: Nanos,
    born: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

/// When each source's bucket will be full again.
#[derive(Debug, Default)]
struct Shard {
    full_at: HashMap<u64, Nanos>,
    swept: Nanos,
}

impl RateLimit {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        if settings.period_ms == 0 {
            return Err(wrong("period_ms", "must be at least 1"));
        }
        let interval = match settings.average {
            0 => 0,
            average => (u128::from(settings.period_ms) * 1_000_000 / u128::from(average)).clamp(1, u128::from(u64::MAX)) as Nanos,
        };
        Ok(Self {
            source: Criterion::compile(settings.source_criterion.as_ref(), Usual::Ip)?,
            interval,
            slack: interval.saturating_mul(settings.burst.max(1) - 1),
            born: Instant::now(),
            shards: Default::default(),
        })
    }

    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        if self.interval == 0 {
            return Ok(());
        }
        let now = Nanos::try_from(self.born.elapsed().as_nanos()).unwrap_or(Nanos::MAX);
        self.take(self.source.key(client, head), now).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            pages::refusal(head, StatusCode::TOO_MANY_REQUESTS, "").with(Known::RetryAfter, seconds.max(1).to_string())
        })
    }

    /// Takes a token, or says how long it will be until there is one.
    fn take(&self, key: u64, now: Nanos) -> Result<(), Duration> {
        let mut shard = self.shards[key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = shard.full_at.get(&key).copied().unwrap_or(0).max(now);
        let wait = (full_at - now).saturating_sub(self.slack);
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        shard.make_room(key, now);
        shard.full_at.insert(key, full_at.saturating_add(self.interval));
        Ok(())
    }
}

impl Shard {
    fn make_room(&mut self, key: u64, now: Nanos) {
        if self.full_at.len() < SOURCES || self.full_at.contains_key(&key) {
            return;
        }
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() >= SOURCES {
            // The fullest of a few, which are as good as chosen by chance.
            let fullest = self.full_at.iter().take(16).min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key);
            fullest.map(|key| self.full_at.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn limit(average: u64, period_ms: u64, burst: u64) -> RateLimit {
        RateLimit::compile(&Settings { average, period_ms, burst, source_criterion: None }).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_average() {
        let limit = limit(10, 1000, 3);
        let passed = |key, now| limit.take(key, now).is_ok();
        assert_eq!([passed(1, 0), passed(1, 0), passed(1, 0), passed(1, 0)], [true, true, true, false]);
        assert!(passed(2, 0), "another source has a bucket of its own");
        assert_eq!(limit.take(1, SECOND / 20), Err(Duration::from_millis(50)));
        assert_eq!([passed(1, SECOND / 10), passed(1, SECOND / 10)], [true, false]);
        // After a long time the bucket is full, and no fuller than that.
        let later = 100 * SECOND;
        assert_eq!([passed(1, later), passed(1, later), passed(1, later), passed(1, later)], [true, true, true, false]);
    }

    #[test]
    fn periods_longer_than_a_second_give_fractions() {
        let limit = limit(6, 60_000, 1);
        assert!(limit.take(1, 0).is_ok());
        assert_eq!(limit.take(1, SECOND), Err(Duration::from_secs(9)));
        assert!(limit.take(1, 10 * SECOND).is_ok());
    }

    #[test]
    fn the_table_of_sources_is_bounded_and_who_asks_too_much_stays_in_it() {
        let limit = limit(1, 1000, 100);
        for _ in 0..100 {
            limit.take(0, 0).unwrap();
        }
        for key in 1..20_000 {
            limit.take(key * SHARDS as u64, key).unwrap();
        }
        let shard = limit.shards[0].lock().unwrap();
        assert!(shard.full_at.len() <= SOURCES, "{}", shard.full_at.len());
        drop(shard);
        assert!(limit.take(0, 20_000).is_err());
        // Once the others are quiet, they go.
        limit.take(SHARDS as u64 * 20_000, 1000 * SECOND).unwrap();
        assert_eq!(limit.shards[0].lock().unwrap().full_at.len(), 1);
    }
}

//! How often a client may call: a token bucket for each (one that fills evenly over the hour and holds an hour's worth).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::caller::ClientId;

const HOUR: f64 = 3600.0;

/// Buckets that are full tell nothing, and are forgotten when there are so many.
const MOST_BUCKETS: usize = 100_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How a bucket stands after a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    /// Calls an hour; the bucket's size.
    pub(crate) limit: u32,
    /// Calls that may be made now.
    pub(crate) remaining: u32,
    /// Until the bucket is full again.
    pub(crate) full_in: Duration,
}

impl Standing {
    /// The fields of draft-ietf-httpapi-ratelimit-headers-07: `RateLimit-Limit`, `-Remaining`, `-Reset` (seconds), `-Policy`.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.full_in.as_secs_f64().ceil() as u64));
        if let Ok(policy) = HeaderValue::try_from(format!("{};w=3600", self.limit)) {
            headers.insert(POLICY, policy);
        }
    }
}

/// The buckets of all clients.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    buckets: Mutex<HashMap<ClientId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, limit: u32, now: Instant) {
        let limit = f64::from(limit);
        self.tokens = (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * limit / HOUR).min(limit);
        self.at = now;
    }

    fn standing(&self, limit: u32) -> Standing {
        let missing = (f64::from(limit) - self.tokens).max(0.0);
        Standing {
            limit,
            remaining: self.tokens.max(0.0) as u32,
            full_in: Duration::from_secs_f64(missing * HOUR / f64::from(limit.max(1))),
        }
    }
}

impl Rates {
    /// Takes so many calls out of a client's bucket of `limit` calls an hour. `Err`: there are not so many, none is taken, and
    /// in this long there will be (never, if it is more than the bucket holds: then until it is full).
    pub(crate) fn take(&self, client: ClientId, limit: u32, calls: u32, now: Instant) -> Result<Standing, (Standing, Duration)> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_BUCKETS && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(3600));
        }
        let bucket = buckets.entry(client).or_insert(Bucket { tokens: f64::from(limit), at: now });
        bucket.fill(limit, now);
        // Filling adds up parts of a call; what is short of a whole one by rounding only is one.
        let wanted = f64::from(calls) - 1e-9;
        if bucket.tokens >= wanted {
            bucket.tokens -= f64::from(calls);
            return Ok(bucket.standing(limit));
        }
        let missing = (f64::from(calls.min(limit)) - bucket.tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing * HOUR / f64::from(limit.max(1)));
        Err((bucket.standing(limit), wait))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOMEBODY: ClientId = ClientId::Key(1);

    #[test]
    fn a_bucket_empties_by_calls_and_fills_evenly() {
        let (rates, start) = (Rates::default(), Instant::now());
        for left in (0..100).rev() {
            assert_eq!(rates.take(SOMEBODY, 100, 1, start).unwrap().remaining, left);
        }
        let (standing, wait) = rates.take(SOMEBODY, 100, 1, start).unwrap_err();
        assert_eq!((standing.remaining, wait), (0, Duration::from_secs(36)));
        assert!(rates.take(SOMEBODY, 100, 1, start + Duration::from_secs(35)).is_err());
        assert!(rates.take(SOMEBODY, 100, 1, start + Duration::from_secs(36)).is_ok());
        assert!(rates.take(SOMEBODY, 100, 1, start + Duration::from_secs(36)).is_err());
        let later = start + Duration::from_secs(100_000);
        assert_eq!(rates.take(SOMEBODY, 100, 1, later).unwrap().remaining, 99);
    }

    #[test]
    fn one_clients_calls_are_none_of_anothers() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert!(rates.take(SOMEBODY, 1, 1, now).is_ok());
        assert!(rates.take(SOMEBODY, 1, 1, now).is_err());
        assert!(rates.take(ClientId::Key(2), 1, 1, now).is_ok());
    }

    #[test]
    fn several_calls_are_taken_together_or_not_at_all() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert!(rates.take(SOMEBODY, 10, 11, now).is_err());
        assert_eq!(rates.take(SOMEBODY, 10, 10, now).unwrap().remaining, 0);
    }

    #[test]
    fn the_headers_say_limit_rest_and_seconds() {
        let mut headers = HeaderMap::new();
        Standing { limit: 100, remaining: 99, full_in: Duration::from_millis(35_200) }.tell(&mut headers);
        let of = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            (of("RateLimit-Limit"), of("RateLimit-Remaining"), of("RateLimit-Reset")),
            ("100".into(), "99".into(), "36".into())
        );
        assert_eq!(of("RateLimit-Policy"), "100;w=3600");
    }
}

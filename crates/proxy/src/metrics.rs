//! What is counted while requests are answered, per route.
//!
//! Each worker counts for itself, in numbers that nobody else writes to: a count costs an addition, not a locked instruction
//! or a cache line that travels. Whoever renders the metrics adds the workers up. The counts of a route go on across tables
//! for as long as the route has the same id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_table::RouteId;

/// Upper bounds of the latency buckets, in microseconds; above the last one there is one bucket more.
pub(crate) const BOUNDS_US: [u64; 11] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000];

/// A number that one thread writes and others read.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        // One writer: nothing can come between.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What most requests count (they are answered well, and soon) comes first and lies in one cache line; of its three, that
/// line is never beside another worker's.
#[repr(C, align(64))]
#[derive(Default)]
struct Share {
    begun: Counter,
    microseconds: Counter,
    sent: Counter,
    /// Answers with a status of 2xx.
    successes: Counter,
    buckets: [Counter; BOUNDS_US.len() + 1],
    /// The others by the first digit of the status; at 0, those whose client went away first.
    failures: [Counter; 6],
    received: Counter,
    upstream_errors: Counter,
}

const SUCCESS: usize = 2;

impl Share {
    /// Answers whose status begins with this digit.
    fn answers(&self, class: usize) -> &Counter {
        if class == SUCCESS { &self.successes } else { &self.failures[class] }
    }
}

/// What is counted on one route. Its clones count together.
#[derive(Clone)]
pub(crate) struct RouteMetrics(Arc<[Share]>);

/// What is counted on a route, added up over the workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RouteTotals {
    /// Requests that have begun and not ended.
    pub(crate) in_flight: u64,
    /// By the first digit of the status; at 0, those whose client went away first.
    pub(crate) answers: [u64; 6],
    /// By duration, each up to its bound in [`BOUNDS_US`] and not to the one before.
    pub(crate) buckets: [u64; BOUNDS_US.len() + 1],
    /// The sum of all durations.
    pub(crate) microseconds: u64,
    /// Bytes of request bodies.
    pub(crate) received: u64,
    /// Bytes of answers' bodies.
    pub(crate) sent: u64,
    /// Attempts that a target did not answer properly.
    pub(crate) upstream_errors: u64,
}

impl RouteMetrics {
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Share::default()).collect())
    }

    /// A request has come.
    pub(crate) fn begin(&self, worker: usize) {
        self.0[worker].begun.add(1);
    }

    /// A request has ended; with status 499 if its client went away first.
    pub(crate) fn end(&self, worker: usize, status: u16, duration: Duration, received: u64, sent: u64) {
        let share = &self.0[worker];
        let class = if status == 499 { 0 } else { usize::from(status / 100).min(5) };
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        share.answers(class).add(1);
        share.buckets[BOUNDS_US.iter().position(|bound| microseconds <= *bound).unwrap_or(BOUNDS_US.len())].add(1);
        share.microseconds.add(microseconds);
        if received > 0 {
            share.received.add(received);
        }
        share.sent.add(sent);
    }

    /// A target did not answer properly.
    pub(crate) fn upstream_error(&self, worker: usize) {
        self.0[worker].upstream_errors.add(1);
    }

    /// Adds the workers up.
    pub(crate) fn totals(&self) -> RouteTotals {
        let mut totals = RouteTotals::default();
        let mut ended = 0;
        for share in self.0.iter() {
            for (class, total) in totals.answers.iter_mut().enumerate() {
                *total += share.answers(class).get();
                ended += share.answers(class).get();
            }
            for (total, counter) in totals.buckets.iter_mut().zip(&share.buckets) {
                *total += counter.get();
            }
            totals.microseconds += share.microseconds.get();
            totals.received += share.received.get();
            totals.sent += share.sent.get();
            totals.upstream_errors += share.upstream_errors.get();
        }
        let begun: u64 = self.0.iter().map(|share| share.begun.get()).sum();
        totals.in_flight = begun.saturating_sub(ended);
        totals
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Well.
    Full,
    /// Well, with a ticket of a session before.
    Resumed,
    /// There is no certificate for the name.
    Unknown,
    /// It took too long.
    Late,
    /// The client left, or what it sent is no handshake of a version that is spoken here.
    Broken,
}

impl Handshake {
    /// All of them, with their names in metrics.
    pub(crate) const ALL: [(Self, &str); 5] = [
        (Self::Full, "full"),
        (Self::Resumed, "resumed"),
        (Self::Unknown, "unknown-name"),
        (Self::Late, "late"),
        (Self::Broken, "broken"),
    ];
}

/// Counts TLS handshakes by how they ended.
pub(crate) struct Handshakes(Box<[HandshakeShare]>);

#[repr(align(128))]
#[derive(Default)]
struct HandshakeShare([Counter; Handshake::ALL.len()]);

impl Handshakes {
    /// One has ended.
    pub(crate) fn count(&self, worker: usize, handshake: Handshake) {
        self.0[worker].0[handshake as usize].add(1);
    }

    /// Adds the workers up.
    pub(crate) fn total(&self, handshake: Handshake) -> u64 {
        self.0.iter().map(|share| share.0[handshake as usize].get()).sum()
    }
}

/// The counts of all routes of the table, and of the requests that fit none.
pub(crate) struct Metrics {
    routes: Mutex<HashMap<RouteId, RouteMetrics>>,
    /// Requests that no route matched.
    pub(crate) unrouted: RouteMetrics,
    pub(crate) handshakes: Handshakes,
    workers: usize,
}

impl Metrics {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            routes: Mutex::default(),
            unrouted: RouteMetrics::new(workers),
            handshakes: Handshakes((0..workers).map(|_| HandshakeShare::default()).collect()),
            workers,
        }
    }

    /// Those of a route, known or new.
    pub(crate) fn of(&self, route: &RouteId) -> RouteMetrics {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(route) {
            return known.clone();
        }
        let new = RouteMetrics::new(self.workers);
        routes.insert(route.clone(), new.clone());
        new
    }

    /// Forgets routes that are gone; `count` are needed, all of them known.
    pub(crate) fn sweep(&self, count: usize, needed: impl Fn(&RouteId) -> bool) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // Most tables have the routes that the one before had.
        if routes.len() != count {
            routes.retain(|route, _| needed(route));
        }
    }

    /// Every route that is counted.
    pub(crate) fn all(&self) -> Vec<(RouteId, RouteMetrics)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(id, metrics)| (id.clone(), metrics.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up() {
        let metrics = Metrics::new(2);
        let route = RouteId("r".into());
        for worker in 0..2 {
            metrics.of(&route).begin(worker);
            metrics.of(&route).begin(worker);
            metrics.of(&route).end(worker, 204, Duration::from_micros(2_500), 3, 4);
        }
        metrics.of(&route).end(0, 499, Duration::from_secs(60), 0, 0);
        metrics.of(&route).upstream_error(1);
        let totals = metrics.of(&route).totals();
        assert_eq!((totals.in_flight, totals.received, totals.sent, totals.upstream_errors), (1, 6, 8, 1));
        assert_eq!((totals.answers, totals.microseconds), ([1, 0, 2, 0, 0, 0], 60_005_000));
        assert_eq!((totals.buckets[1], totals.buckets[BOUNDS_US.len()]), (2, 1));
        metrics.sweep(1, |_| true);
        assert_eq!(metrics.of(&route).totals(), totals);
        metrics.sweep(0, |_| false);
        assert_eq!(metrics.of(&route).totals(), RouteTotals::default());
    }
}

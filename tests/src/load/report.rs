//! What a load has seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// No connection could be made.
    Refused,
    /// The connection ended before an answer.
    Reset,
    /// The answer was not 2xx.
    Status(u16),
    /// The answer ended in the middle, or the app saw another body than was sent.
    Truncated,
    /// No answer in time.
    Timeout,
    /// Too many requests were unanswered for another one.
    Flooded,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.pad("refused"),
            Self::Reset => f.pad("reset"),
            Self::Status(status) => f.pad(&format!("status {status}")),
            Self::Truncated => f.pad("truncated"),
            Self::Timeout => f.pad("timeout"),
            Self::Flooded => f.pad("flooded"),
        }
    }
}

/// One request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was due, from the beginning of the load.
    pub at: Duration,
    /// How.
    pub kind: FailureKind,
    /// In words.
    pub details: String,
}

/// Everything a load has seen.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How long it lasted.
    pub lasted: Duration,
    /// Failures, counted by kind.
    pub failures: BTreeMap<FailureKind, usize>,
    /// The first failures.
    pub examples: Vec<Failure>,
    /// How often each answer came; only the first few different ones are told apart.
    pub answers: BTreeMap<String, usize>,
    /// When the first and the last request was due that was answered so.
    pub seen: BTreeMap<String, (Duration, Duration)>,
    latencies: Vec<Duration>,
}

impl Report {
    const FIRST: usize = 20;
    const DIFFERENT: usize = 200;

    pub(super) fn answered(&mut self, text: String, due: Duration, latency: Duration) {
        self.latencies.push(latency);
        if self.answers.len() < Self::DIFFERENT || self.answers.contains_key(&text) {
            let (first, last) = self.seen.entry(text.clone()).or_insert((due, due));
            (*first, *last) = (due.min(*first), due.max(*last));
            *self.answers.entry(text).or_default() += 1;
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure.kind).or_default() += 1;
        if self.examples.len() < Self::FIRST {
            self.examples.push(failure);
        }
    }

    /// Requests that were answered well.
    pub fn succeeded(&self) -> usize {
        self.latencies.len()
    }

    /// Requests that failed.
    pub fn failed_count(&self) -> usize {
        self.failures.values().sum()
    }

    /// How long a request took, from the moment it was due, at this share (0.5 is the median) of those that succeeded.
    pub fn latency(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        sorted.get(at).copied().unwrap_or_default()
    }

    /// How often an answer came that contains `text`.
    pub fn saw(&self, text: &str) -> usize {
        self.answers.iter().filter(|(answer, _)| answer.contains(text)).map(|(_, count)| count).sum()
    }

    /// When the first request was due that was answered with `text` in it.
    pub fn first(&self, text: &str) -> Option<Duration> {
        self.seen.iter().filter(|(answer, _)| answer.contains(text)).map(|(_, (first, _))| *first).min()
    }

    /// When the last request was due that was answered with `text` in it.
    pub fn last(&self, text: &str) -> Option<Duration> {
        self.seen.iter().filter(|(answer, _)| answer.contains(text)).map(|(_, (_, last))| *last).max()
    }

    /// Panics with the first failures unless every request succeeded and there were any.
    #[track_caller]
    pub fn lost_nothing(&self) {
        assert!(self.succeeded() > 0, "the load asked nothing");
        assert!(self.failed_count() == 0, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |share| self.latency(share).as_secs_f64() * 1000.0;
        write!(
            f,
            "{} requests in {:.1} s, {} failed; median {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            self.succeeded() + self.failed_count(),
            self.lasted.as_secs_f64(),
            self.failed_count(),
            millis(0.5),
            millis(0.99),
            millis(1.0),
        )?;
        for (kind, count) in &self.failures {
            write!(f, "\n  {count} × {kind}")?;
        }
        for failure in &self.examples {
            write!(f, "\n  at {:.3} s: {}: {}", failure.at.as_secs_f64(), failure.kind, failure.details)?;
        }
        Ok(())
    }
}

//! What all callers have seen, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::CallError;

/// Times of right answers, and failures by kind.
#[derive(Debug)]
pub(super) struct Tally {
    server: String,
    callers: usize,
    /// The shortest first, once all are there.
    times: Vec<Duration>,
    failures: BTreeMap<String, usize>,
    first_failure: Option<CallError>,
    lasted: Duration,
}

impl Tally {
    pub(super) fn of(callers: usize, server: &str) -> Self {
        let server = server.to_owned();
        Self { server, callers, times: Vec::new(), failures: BTreeMap::new(), first_failure: None, lasted: Duration::ZERO }
    }

    /// Adds what one caller has seen.
    pub(super) fn add(&mut self, times: Vec<Duration>, failures: Vec<CallError>) {
        self.times.extend(times);
        for failure in &failures {
            *self.failures.entry(failure.kind()).or_default() += 1;
        }
        self.first_failure = self.first_failure.take().or_else(|| failures.into_iter().next());
    }

    /// All have been added.
    pub(super) fn end(&mut self, lasted: Duration) {
        self.lasted = lasted;
        self.times.sort_unstable();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// What went wrong first.
    pub(super) fn failure(&self) -> String {
        self.first_failure.as_ref().map_or_else(|| "it was over before the first answer".to_owned(), ToString::to_string)
    }

    /// The milliseconds within which this share of the answers came.
    fn at(&self, share: f64) -> f64 {
        let rank = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(rank.max(1) - 1).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    pub(super) fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "server": self.server,
            "callers": self.callers,
            "seconds": rounded(self.lasted.as_secs_f64()),
            "executions": self.times.len(),
            "per_second": rounded(self.rate()),
            "p50_ms": rounded(self.at(0.5)),
            "p90_ms": rounded(self.at(0.9)),
            "p99_ms": rounded(self.at(0.99)),
            "longest_ms": rounded(self.at(1.0)),
            "failed": self.failures.values().sum::<usize>(),
            "failures": self.failures,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, callers, times, lasted, .. } = self;
        let callers = if *callers == 1 { "1 caller".to_owned() } else { format!("{callers} callers") };
        writeln!(
            f,
            "{server}, {callers}, {:.1} s: {} executions, {:.1} a second",
            lasted.as_secs_f64(),
            times.len(),
            self.rate()
        )?;
        let [p50, p90, p99, longest] = [0.5, 0.9, 0.99, 1.0].map(|share| self.at(share));
        write!(f, "p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, longest {longest:.2} ms")?;
        for (kind, count) in &self.failures {
            write!(f, "\n{count} failed: {kind}")?;
        }
        match &self.first_failure {
            Some(first) => write!(f, "\nthe first that failed: {first}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_failures_are_told() {
        let mut tally = Tally::of(2, "localhost");
        tally.add((1..=60).map(Duration::from_millis).collect(), vec![CallError::Late]);
        tally.add(
            (61..=100).rev().map(Duration::from_millis).collect(),
            vec![CallError::Late, CallError::Program("oom".to_owned())],
        );
        tally.end(Duration::from_secs(4));
        let json = tally.json();
        for (name, value) in [("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("longest_ms", 100.0), ("per_second", 25.0)] {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!(json["failures"], json!({ "no answer in time": 2, "program: oom": 1 }));
        let text = tally.to_string();
        assert!(text.contains("100 executions, 25.0 a second") && text.contains("2 failed: no answer in time"), "{text}");
    }
}

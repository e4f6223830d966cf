//! What is counted, for Prometheus. Labels have few values, all of our own making.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use coracle_sandbox::{End, Reason};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::context::Context;
use crate::problem::ProblemKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: u16,
}

/// All counters.
pub(crate) struct Metrics {
    registry: Registry,
    executions: Family<ByReason, Counter>,
    refused: Family<ByReason, Counter>,
    answers: Family<ByStatus, Counter>,
    wall: Histogram,
    cpu: Counter<f64, AtomicU64>,
    queued: Histogram,
    running: Gauge,
    waiting: Gauge,
    connections: Gauge,
    history_queued: Gauge,
    history_written: Gauge,
    history_dropped: Gauge,
}

/// From a millisecond to a quarter of a minute.
const SECONDS: [f64; 14] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("pyrunner");
        let metrics = Self {
            executions: Family::default(),
            refused: Family::default(),
            answers: Family::default(),
            wall: Histogram::new(SECONDS),
            cpu: Counter::default(),
            queued: Histogram::new(SECONDS),
            running: Gauge::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            history_queued: Gauge::default(),
            history_written: Gauge::default(),
            history_dropped: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("executions", "Executions by the reason of their end", metrics.executions.clone());
        registry.register("refused", "Executions that were not started, by kind of problem", metrics.refused.clone());
        registry.register("answers", "Answers by HTTP status", metrics.answers.clone());
        registry.register_with_unit("wall", "Time of executions", Unit::Seconds, metrics.wall.clone());
        registry.register_with_unit("cpu", "Processor time of executions", Unit::Seconds, metrics.cpu.clone());
        registry.register_with_unit("queue", "Time before executions start", Unit::Seconds, metrics.queued.clone());
        registry.register("running", "Executions that run now", metrics.running.clone());
        registry.register("waiting", "Executions that wait for their turn now", metrics.waiting.clone());
        registry.register("connections", "Connections now", metrics.connections.clone());
        registry.register("history_queued", "Records that wait to be written", metrics.history_queued.clone());
        registry.register("history_written", "Records written since the start", metrics.history_written.clone());
        registry.register("history_dropped", "Records dropped since the start", metrics.history_dropped.clone());
        Self { registry, ..metrics }
    }

    /// An execution has ended.
    pub(crate) fn ended(&self, end: &End, queued: Duration) {
        self.executions.get_or_create(&ByReason { reason: end.reason.as_str() }).inc();
        self.wall.observe(end.usage.wall.as_secs_f64());
        self.cpu.inc_by(end.usage.cpu.as_secs_f64());
        self.queued.observe(queued.as_secs_f64());
    }

    /// An execution was given up before its end, or broke off.
    pub(crate) fn abandoned(&self) {
        self.executions.get_or_create(&ByReason { reason: Reason::Cancelled.as_str() }).inc();
    }

    /// An execution was not started.
    pub(crate) fn refused(&self, kind: ProblemKind) {
        self.refused.get_or_create(&ByReason { reason: kind.as_str() }).inc();
    }

    /// A request was answered.
    pub(crate) fn answered(&self, status: u16) {
        self.answers.get_or_create(&ByStatus { status }).inc();
    }

    /// A connection was opened (1) or has ended (-1).
    pub(crate) fn connected(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// All of it in the text format of OpenMetrics.
    pub(crate) fn text(&self, context: &Context) -> Result<String, std::fmt::Error> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (running, waiting) = context.queue.counts();
        self.running.set(count(running));
        self.waiting.set(count(waiting));
        let history = context.history.recorder.health();
        self.history_queued.set(count(history.queued_records));
        self.history_written.set(i64::try_from(history.written).unwrap_or(i64::MAX));
        self.history_dropped.set(i64::try_from(history.dropped.total()).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

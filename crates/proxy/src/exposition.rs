//! What is counted, as Prometheus reads it.
//!
//! Labels are bounded by the table: route and target ids, and five classes of statuses. Nothing that a client sends becomes a
//! label.

use std::fmt;

use coracle_certs::CertificateStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::control::TargetState;
use crate::metrics::{BOUNDS_US, Handshake, RouteTotals};
use crate::plane::Plane;

/// The media type of what [`render`] makes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The classes of answers, in the order of [`RouteTotals::answers`].
const CLASSES: [&str; 6] = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Everything that is counted on a plane, at one moment.
#[derive(Debug)]
struct Scrape {
    generation: u64,
    /// Per worker.
    connections: Vec<usize>,
    /// Requests without a route have the id "".
    routes: Vec<(String, RouteTotals)>,
    targets: Vec<Target>,
    /// By how they ended; nothing where nobody speaks TLS.
    handshakes: Vec<(&'static str, u64)>,
    /// Names and when they end, in seconds since 1970.
    certificates: Vec<(String, i64)>,
}

#[derive(Debug)]
struct Target {
    id: String,
    in_flight: usize,
    upgraded: usize,
    gets_requests: bool,
    ejections: u64,
    failed_checks: u64,
}

/// The text that Prometheus scrapes.
pub(crate) fn render(plane: &Plane) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("coracle_proxy");
    registry.register_collector(Box::new(Scrape::of(plane)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Scrape {
    fn of(plane: &Plane) -> Self {
        let mut routes: Vec<_> = plane.metrics.all().into_iter().map(|(id, metrics)| (id.0, metrics.totals())).collect();
        routes.push((String::new(), plane.metrics.unrouted.totals()));
        routes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let target = |target: &std::sync::Arc<crate::target::Target>| Target {
            id: target.id.0.clone(),
            in_flight: target.in_flight(),
            upgraded: target.upgraded(),
            gets_requests: matches!(target.state(), TargetState::Up | TargetState::Starting),
            ejections: target.standing.ejections(),
            failed_checks: target.standing.failed_checks(),
        };
        let mut targets: Vec<_> = plane.targets.all().iter().map(target).collect();
        targets.sort_by(|a, b| a.id.cmp(&b.id));
        let handshakes = Handshake::ALL.iter().map(|(kind, name)| (*name, plane.metrics.handshakes.total(*kind)));
        let certificates = plane.tls.as_ref().map_or_else(Vec::new, |tls| tls.certificates.status());
        let end = |status: CertificateStatus| Some((status.name, status.certificate?.not_after.as_second()));
        Self {
            handshakes: handshakes.filter(|_| plane.tls.is_some()).collect(),
            certificates: certificates.into_iter().filter_map(end).collect(),
            generation: plane.snapshot().table.generation,
            connections: plane.workers.iter().map(|worker| worker.connections()).collect(),
            routes,
            targets,
        }
    }

    fn counters<L: EncodeLabelSet>(
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the first byte of a request to the last of its answer";
        let mut metric = encoder.encode_descriptor("request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (route, totals) in &self.routes {
            let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(totals.buckets).collect();
            let labels = [("route", route.as_str())];
            let mut family = metric.encode_family(&labels)?;
            let count = totals.buckets.iter().sum();
            family.encode_histogram::<[(&str, &str); 0]>(totals.microseconds as f64 / 1e6, count, &buckets, None)?;
        }
        Ok(())
    }

    fn by_route(&self, value: impl Fn(&RouteTotals) -> u64) -> impl Iterator<Item = ([(&'static str, &str); 1], u64)> {
        self.routes.iter().map(move |(route, totals)| ([("route", route.as_str())], value(totals)))
    }

    fn by_target(&self, value: impl Fn(&Target) -> u64) -> impl Iterator<Item = ([(&'static str, &str); 1], u64)> {
        self.targets.iter().map(move |target| ([("target", target.id.as_str())], value(target)))
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let answers = self.routes.iter().flat_map(|(route, totals)| {
            let labels = move |class| [("route", route.as_str()), ("class", class)];
            CLASSES.iter().zip(totals.answers).map(move |(class, count)| (labels(*class), count))
        });
        Self::counters(to, ("requests", "Answered requests, by the class of their status"), answers)?;
        self.durations(to)?;
        let in_flight = ("requests_in_flight", "Requests that have begun and not ended");
        Self::gauges(to, in_flight, self.by_route(|totals| totals.in_flight))?;
        let errors = ("upstream_errors", "Attempts that a target did not answer properly");
        Self::counters(to, errors, self.by_route(|totals| totals.upstream_errors))?;
        Self::counters(to, ("received_bytes", "Bytes of request bodies"), self.by_route(|totals| totals.received))?;
        Self::counters(to, ("sent_bytes", "Bytes of answers' bodies"), self.by_route(|totals| totals.sent))?;
        let on_targets = ("target_requests_in_flight", "Requests in flight on a target");
        Self::gauges(to, on_targets, self.by_target(|target| target.in_flight as u64))?;
        let upgraded = ("target_upgraded_connections", "WebSockets and the like that lead to a target");
        Self::gauges(to, upgraded, self.by_target(|target| target.upgraded as u64))?;
        let up = ("target_up", "Whether a target gets requests: 0 while its checks fail or it has been ejected");
        Self::gauges(to, up, self.by_target(|target| u64::from(target.gets_requests)))?;
        let ejections = ("target_ejections", "How often a target failed too many requests in a row");
        Self::counters(to, ejections, self.by_target(|target| target.ejections))?;
        let checks = ("target_failed_checks", "Health checks that a target did not pass");
        Self::counters(to, checks, self.by_target(|target| target.failed_checks))?;
        let workers: Vec<String> = (0..self.connections.len()).map(|index| index.to_string()).collect();
        let connections = workers.iter().zip(&self.connections);
        let connections = connections.map(|(worker, count)| ([("worker", worker.as_str())], *count as u64));
        Self::gauges(to, ("connections", "Open client connections"), connections)?;
        let handshakes = self.handshakes.iter().map(|(kind, count)| ([("result", *kind)], *count));
        Self::counters(to, ("tls_handshakes", "TLS handshakes, by how they ended"), handshakes)?;
        let ends = self.certificates.iter().map(|(name, end)| ([("name", name.as_str())], u64::try_from(*end).unwrap_or(0)));
        Self::gauges(to, ("certificate_end_seconds", "When a certificate ends, in seconds since 1970"), ends)?;
        let generation = std::iter::once(([("table", "current")], self.generation));
        Self::gauges(to, ("table_generation", "Of the table that is served by"), generation)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_proxy_table::RouteId;

    use super::*;

    #[test]
    fn counts_are_told_by_route() {
        let plane = crate::plane::tests::plane(2);
        let route = plane.metrics.of(&RouteId("shop".into()));
        route.begin(0);
        route.begin(1);
        route.end(1, 200, Duration::from_millis(3), 10, 20);
        let text = render(&plane).unwrap();
        for line in [
            "coracle_proxy_requests_total{route=\"shop\",class=\"2xx\"} 1",
            "coracle_proxy_requests_total{route=\"\",class=\"2xx\"} 0",
            "coracle_proxy_request_duration_seconds_bucket{le=\"0.0025\",route=\"shop\"} 0",
            "coracle_proxy_request_duration_seconds_bucket{le=\"0.005\",route=\"shop\"} 1",
            "coracle_proxy_request_duration_seconds_bucket{le=\"+Inf\",route=\"shop\"} 1",
            "coracle_proxy_request_duration_seconds_count{route=\"shop\"} 1",
            "coracle_proxy_requests_in_flight{route=\"shop\"} 1",
            "coracle_proxy_received_bytes_total{route=\"shop\"} 10",
            "coracle_proxy_connections{worker=\"1\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }
}

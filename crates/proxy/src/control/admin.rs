//! What the proxy says about itself, for people and their programs.

use std::net::SocketAddr;

use coracle_proxy_rules::{Dialect, Rule};
use coracle_proxy_table::{self as table, Admission, CertificateSource, MiddlewareId, Protocol, RouteId, ServiceId, TargetId};
use serde::{Deserialize, Serialize};

use super::TargetState;
use crate::metrics::BOUNDS_US;
use crate::plane::Plane;

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// By which routes name it.
    pub name: String,
    /// With its real port.
    pub address: SocketAddr,
    /// Whether clients speak TLS.
    pub tls: bool,
}

/// A route that is served by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its id.
    pub id: RouteId,
    /// What it matches, as it was written.
    pub rule: String,
    /// The rule's grammar.
    pub dialect: table::Dialect,
    /// The one that counts, told or made of the rule.
    pub priority: i64,
    /// The names of the listeners it serves; empty for all.
    pub listeners: Vec<String>,
    /// Only requests over TLS, or without; nothing for both.
    pub tls: Option<bool>,
    /// Where certificates for its hosts come from.
    pub certificate: CertificateSource,
    /// In their order.
    pub middlewares: Vec<MiddlewareStatus>,
    /// Who answers; nobody, if a middleware does.
    pub service: Option<ServiceStatus>,
}

/// A middleware on a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiddlewareStatus {
    /// Its id.
    pub id: MiddlewareId,
    /// As tables say it: `strip-prefix`.
    pub kind: String,
}

/// A service, as a route leads to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its id.
    pub id: ServiceId,
    /// Whether requests are let through.
    pub admission: Admission,
    /// What its targets speak.
    pub protocol: Protocol,
    /// Who answers.
    pub targets: Vec<ServiceTarget>,
}

/// A target of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTarget {
    /// Its id.
    pub id: TargetId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests.
    pub weight: u32,
    /// Requests in flight, until the last byte of their answer.
    pub in_flight: usize,
    /// WebSockets and the like.
    pub upgraded: usize,
    /// Whether it gets requests.
    pub state: TargetState,
}

/// What was counted on routes since the proxy began; clients that go away and upgraded connections are neither answers nor errors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Answers with a status from 200 on.
    pub answered: u64,
    /// Those of them with a status from 500 on.
    pub errors: u64,
    /// What has ended otherwise.
    pub others: u64,
    /// By duration: upper bounds in microseconds (the last one is the greatest number), and how many took so long.
    pub durations: Vec<(u64, u64)>,
    /// Requests in flight on the targets of the table, upgraded connections aside.
    pub in_flight: u64,
}

impl Plane {
    /// What was counted on the routes that lead to a service or to those below it, as `shop` and `shop.api`.
    pub(crate) fn figures(&self, service: &str) -> Figures {
        let table = &self.snapshot().table;
        let is_of = |id: &ServiceId| id.0.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let bounds = BOUNDS_US.into_iter().chain([u64::MAX]);
        let mut figures = Figures { durations: bounds.map(|bound| (bound, 0)).collect(), ..Figures::default() };
        for route in table.routes.iter().filter(|route| route.service.as_ref().is_some_and(is_of)) {
            let totals = self.metrics.of(&route.id).totals();
            let [gone, informed, answers @ .., errors] = totals.answers;
            figures.answered += answers.iter().sum::<u64>() + errors;
            figures.errors += errors;
            figures.others += gone + informed;
            figures.durations.iter_mut().zip(totals.buckets).for_each(|((_, sum), count)| *sum += count);
        }
        let targets = table.services.iter().filter(|(id, _)| is_of(id)).flat_map(|(_, service)| &service.targets);
        let ids: std::collections::BTreeSet<&TargetId> = targets.map(|target| &target.id).collect();
        let live = self.targets.all();
        figures.in_flight = live.iter().filter(|target| ids.contains(&target.id)).map(|target| target.in_flight() as u64).sum();
        figures
    }

    /// The routes that are served by, in the order in which they are asked.
    pub(crate) fn routes(&self) -> Vec<RouteStatus> {
        let table = &self.snapshot().table;
        let mut routes: Vec<_> = table.routes.iter().map(|route| self.route_status(table, route)).collect();
        routes.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
        routes
    }

    fn route_status(&self, table: &table::Table, route: &table::Route) -> RouteStatus {
        let dialect = match route.dialect {
            table::Dialect::V3 => Dialect::V3,
            table::Dialect::V2 => Dialect::V2,
        };
        let kind = |id: &MiddlewareId| table.middlewares.get(id).map(|middleware| middleware.kind().to_owned());
        let middlewares =
            route.middlewares.iter().filter_map(|id| Some(MiddlewareStatus { id: id.clone(), kind: kind(id)? })).collect();
        let service = route.service.as_ref().and_then(|id| Some((id, table.services.get(id)?)));
        RouteStatus {
            id: route.id.clone(),
            rule: route.rule.clone(),
            dialect: route.dialect,
            // Its table has been compiled: the rule can be read.
            priority: route.priority.or_else(|| Some(Rule::parse(&route.rule, dialect).ok()?.priority())).unwrap_or_default(),
            listeners: route.listeners.clone(),
            tls: route.tls,
            certificate: route.certificate,
            middlewares,
            service: service.map(|(id, service)| self.service_status(id, service)),
        }
    }

    fn service_status(&self, id: &ServiceId, service: &table::Service) -> ServiceStatus {
        let live = self.targets.all();
        let targets = service.targets.iter().map(|plan| {
            let target = live.iter().find(|target| target.id == plan.id && target.address == plan.address);
            ServiceTarget {
                id: plan.id.clone(),
                address: plan.address,
                weight: plan.weight,
                in_flight: target.map_or(0, |target| target.in_flight()),
                upgraded: target.map_or(0, |target| target.upgraded()),
                state: target.map_or(TargetState::Up, |target| target.state()),
            }
        });
        ServiceStatus {
            id: id.clone(),
            admission: service.admission.clone(),
            protocol: service.protocol,
            targets: targets.collect(),
        }
    }
}

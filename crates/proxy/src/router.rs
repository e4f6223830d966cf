//! The table, compiled for looking up: which route does a request go by?

use std::collections::HashMap;
use std::sync::Arc;

use coracle_proxy_rules::{Dialect, Facts, Router, Rule};
use coracle_proxy_table::{Middleware, RouteId, ServiceId, Table};

use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::route::Route;
use crate::service::Service;
use crate::target::Target;

/// One table, never changed once it serves.
pub(crate) struct Snapshot {
    /// What it was made of.
    pub(crate) table: Table,
    router: Router<Arc<Route>>,
    routes: HashMap<RouteId, Arc<Route>>,
    /// Its services, also those without a route.
    services: HashMap<ServiceId, Arc<Service>>,
}

/// Why a table cannot be served by.
#[derive(Debug, thiserror::Error)]
pub enum BadTable {
    /// It contradicts itself.
    #[error(transparent)]
    Contradiction(#[from] coracle_proxy_table::TableError),
    /// A route's rule cannot be understood.
    #[error("the rule of route {route:?}: {error}")]
    Rule {
        /// The route.
        route: String,
        /// What is wrong, and where.
        error: coracle_proxy_rules::RuleError,
    },
}

impl Snapshot {
    /// Nothing is served.
    pub(crate) fn empty() -> Self {
        let router = Router::new(std::iter::empty::<(Rule, i64, Arc<Route>)>());
        Self { table: Table::default(), router, routes: HashMap::new(), services: HashMap::new() }
    }

    /// Compiles a table; `service` makes the services.
    pub(crate) fn compile(
        table: Table,
        metrics: &Metrics,
        mut service: impl FnMut(&ServiceId, &coracle_proxy_table::Service) -> Service,
    ) -> Result<Self, BadTable> {
        table.check()?;
        // What can fail comes first: a table that is refused has changed nothing.
        let mut rules = Vec::with_capacity(table.routes.len());
        for route in &table.routes {
            let dialect = match route.dialect {
                coracle_proxy_table::Dialect::V3 => Dialect::V3,
                coracle_proxy_table::Dialect::V2 => Dialect::V2,
            };
            let rule = Rule::parse(&route.rule, dialect);
            rules.push(rule.map_err(|error| BadTable::Rule { route: route.id.0.clone(), error })?);
        }
        let services: HashMap<ServiceId, Arc<Service>> =
            table.services.iter().map(|(id, plan)| (id.clone(), Arc::new(service(id, plan)))).collect();
        let mut routes: Vec<_> = table
            .routes
            .iter()
            .zip(rules)
            .map(|(plan, rule)| {
                let service = plan.service.as_ref().and_then(|id| services.get(id)).cloned();
                let route = Arc::new(Route::new(plan, strip(plan, &table), service, metrics.of(&plan.id)));
                let priority = plan.priority.unwrap_or_else(|| rule.priority());
                (rule, priority, route)
            })
            .collect();
        // Of equal priorities the one that stands first wins.
        routes.sort_by(|(_, _, a), (_, _, b)| a.id.cmp(&b.id));
        let by_id = routes.iter().map(|(_, _, route)| (route.id.clone(), Arc::clone(route))).collect();
        Ok(Self { router: Router::new(routes), routes: by_id, services, table })
    }

    /// All targets of its services.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.services.values().flat_map(|service| service.targets())
    }

    /// The route of a request that came in there.
    pub(crate) fn find(&self, facts: &impl Facts, listener: &Listener) -> Option<&Arc<Route>> {
        self.router.find_where(facts, |route| route.serves(listener))
    }

    /// The route of this id.
    pub(crate) fn route(&self, id: &RouteId) -> Option<&Arc<Route>> {
        self.routes.get(id)
    }
}

/// The prefixes that a route's middlewares take off.
fn strip(route: &coracle_proxy_table::Route, table: &Table) -> Vec<String> {
    let middlewares = route.middlewares.iter().filter_map(|id| table.middlewares.get(id));
    let prefixes = middlewares.flat_map(|middleware| match middleware {
        Middleware::StripPrefix(strip) => strip.prefixes.clone(),
        #[allow(unreachable_patterns, reason = "there will be others")]
        _ => Vec::new(),
    });
    prefixes.collect()
}

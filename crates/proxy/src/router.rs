//! The table, compiled for looking up: which route does a request go by?

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use coracle_proxy_middleware::{Chain, ConfigError};
use coracle_proxy_rules::{Dialect, Facts, Router, Rule};
use coracle_proxy_table::{RouteId, ServiceId, Table};

use crate::chains::{Chains, Kept};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::route::Route;
use crate::service::Service;
use crate::target::Target;

/// One table, never changed once it serves.
pub(crate) struct Snapshot {
    /// What it was made of.
    pub(crate) table: Arc<Table>,
    /// Finds places in `routes`. Shared by tables that differ in nothing that it is made of.
    router: Arc<Router<u32>>,
    /// By id.
    routes: Vec<Arc<Route>>,
    /// Where they stand in the table.
    places: Vec<usize>,
    chains: Chains,
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
    /// A middleware of a route cannot be made of its settings.
    #[error("route {route:?}: {error}")]
    Middleware {
        /// The route.
        route: String,
        /// Which one, and what is wrong.
        error: ConfigError,
    },
}

impl Snapshot {
    /// Nothing is served.
    pub(crate) fn empty() -> Self {
        let router = Arc::new(Router::new(std::iter::empty()));
        let (routes, places) = (Vec::new(), Vec::new());
        Self { table: Arc::default(), router, routes, places, chains: Chains::default(), services: HashMap::new() }
    }

    /// Compiles a table, with what need not be made anew of the one `before`; `service` makes the services.
    pub(crate) fn compile(
        table: Arc<Table>,
        before: &Self,
        kept: &Kept,
        metrics: &Metrics,
        mut service: impl FnMut(&ServiceId, &coracle_proxy_table::Service) -> Arc<Service>,
    ) -> Result<Self, BadTable> {
        table.check()?;
        // What can fail comes first: a table that is refused has changed nothing.
        let mut places: Vec<usize> = (0..table.routes.len()).collect();
        // Of equal priorities the one whose id sorts first wins.
        places.sort_unstable_by(|a, b| table.routes[*a].id.cmp(&table.routes[*b].id));
        let router = before.router_for(&table, &places)?;
        let chains = Chains::compile(&table, (&before.table, &before.chains), kept)?;
        let services: HashMap<ServiceId, Arc<Service>> =
            table.services.iter().map(|(id, plan)| (id.clone(), service(id, plan))).collect();
        let mut former = Former::of(before);
        let route = |place: &usize| {
            let plan = &table.routes[*place];
            let (chain, service) = (chains.of(plan), plan.service.as_ref().and_then(|id| services.get(id)));
            let known = former.place_of(&plan.id).and_then(|place| before.route_as(place, plan, chain, service));
            known.unwrap_or_else(|| Arc::new(Route::new(plan, chain.cloned(), service.cloned(), metrics.of(&plan.id))))
        };
        let routes = places.iter().map(route).collect();
        Ok(Self { router, routes, places, chains, services, table })
    }

    /// A router for a table's routes, in this order: the one there is if their rules are the same, otherwise one with the rules of
    /// those that have not changed. Tables come many times a second when many targets come and go; most differ in targets only.
    fn router_for(&self, table: &Table, places: &[usize]) -> Result<Arc<Router<u32>>, BadTable> {
        let same = |(new, old): (&usize, &usize)| {
            let (new, old) = (&table.routes[*new], &self.table.routes[*old]);
            (&new.id, &new.rule, new.dialect, new.priority) == (&old.id, &old.rule, old.dialect, old.priority)
        };
        if places.len() == self.places.len() && places.iter().zip(&self.places).all(same) {
            return Ok(Arc::clone(&self.router));
        }
        let mut known: Vec<Option<&Rule>> = vec![None; self.routes.len()];
        self.router.iter().for_each(|(rule, number)| known[*number as usize] = Some(rule));
        let mut former = Former::of(self);
        let mut rules = Vec::with_capacity(places.len());
        for (number, plan) in (0..).zip(places.iter().map(|place| &table.routes[*place])) {
            let dialect = match plan.dialect {
                coracle_proxy_table::Dialect::V3 => Dialect::V3,
                coracle_proxy_table::Dialect::V2 => Dialect::V2,
            };
            let is_same = |rule: &&Rule| rule.text() == plan.rule && rule.dialect() == dialect;
            let rule = match former.place_of(&plan.id).and_then(|place| known[place]).filter(is_same) {
                Some(rule) => rule.clone(),
                None => Rule::parse(&plan.rule, dialect).map_err(|error| BadTable::Rule { route: plan.id.0.clone(), error })?,
            };
            let priority = plan.priority.unwrap_or_else(|| rule.priority());
            rules.push((rule, priority, number));
        }
        Ok(Arc::new(Router::new(rules)))
    }

    /// All targets of its services.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.services.values().flat_map(|service| service.balancer.targets())
    }

    /// The service of this id.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// All its services, as they were written and as they serve, in the order of their ids.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&coracle_proxy_table::Service, &Arc<Service>)> {
        self.table.services.iter().filter_map(|(id, plan)| Some((plan, self.services.get(id)?)))
    }

    /// The route of a request that came in there.
    pub(crate) fn find(&self, facts: &impl Facts, listener: &Listener) -> Option<&Arc<Route>> {
        let place = self
            .router
            .find_where(facts, |place| self.routes.get(*place as usize).is_some_and(|route| route.serves(listener)))?;
        self.routes.get(*place as usize)
    }

    /// The route of this id.
    pub(crate) fn route(&self, id: &RouteId) -> Option<&Arc<Route>> {
        let place = self.routes.binary_search_by(|route| route.id.cmp(id)).ok()?;
        self.routes.get(place)
    }

    /// The route at this place, if it was made of the same as this one would be.
    fn route_as(
        &self,
        place: usize,
        plan: &coracle_proxy_table::Route,
        chain: Option<&Arc<Chain>>,
        service: Option<&Arc<Service>>,
    ) -> Option<Arc<Route>> {
        let route = &self.routes[place];
        let is_same = self.table.routes[self.places[place]] == *plan
            && route.chain.as_ref().map(Arc::as_ptr) == chain.map(Arc::as_ptr)
            && route.service.as_ref().map(Arc::as_ptr) == service.map(Arc::as_ptr);
        is_same.then(|| Arc::clone(route))
    }
}

/// Finds routes of the table before by their ids, if these are asked for in their order: most tables have the routes that the one
/// before had, and to go along both is less than to look each of them up.
struct Former<'s> {
    routes: &'s [Arc<Route>],
    next: usize,
}

impl<'s> Former<'s> {
    fn of(snapshot: &'s Snapshot) -> Self {
        Self { routes: &snapshot.routes, next: 0 }
    }

    /// The place of this id; it comes after all that were asked for before.
    fn place_of(&mut self, id: &RouteId) -> Option<usize> {
        loop {
            match self.routes.get(self.next)?.id.cmp(id) {
                Ordering::Less => self.next += 1,
                Ordering::Equal => return Some(self.next),
                Ordering::Greater => return None,
            }
        }
    }
}

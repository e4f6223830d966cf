//! The chains of middlewares that a table's routes have: one for each list of middlewares, however many routes name it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_proxy_middleware::{Chain, ConfigError, State};
use coracle_proxy_table::{Middleware, MiddlewareId, Route, Table};

use crate::router::BadTable;

/// What middlewares keep from one table to the next.
pub(crate) type Kept = State;

/// By what they are made of.
#[derive(Default)]
pub(crate) struct Chains(HashMap<Vec<MiddlewareId>, Arc<Chain>>);

impl Chains {
    /// Compiles those of a table. A list whose middlewares have not changed since the table before keeps its chain.
    pub(crate) fn compile(table: &Table, (before, chains): (&Table, &Self), kept: &Kept) -> Result<Self, BadTable> {
        let mut compiled = HashMap::new();
        for route in table.routes.iter().filter(|route| !route.middlewares.is_empty()) {
            let list = &route.middlewares;
            if compiled.contains_key(list) {
                continue;
            }
            let unchanged = || list.iter().all(|id| table.middlewares.get(id) == before.middlewares.get(id));
            let chain = match chains.0.get(list).filter(|_| unchanged()) {
                Some(chain) => Arc::clone(chain),
                None => {
                    let chain = compile(list, &table.middlewares, kept);
                    Arc::new(chain.map_err(|error| BadTable::Middleware { route: route.id.0.clone(), error })?)
                }
            };
            compiled.insert(list.clone(), chain);
        }
        Ok(Self(compiled))
    }

    /// A route's chain; nothing if it has no middlewares.
    pub(crate) fn of(&self, route: &Route) -> Option<Arc<Chain>> {
        self.0.get(&route.middlewares).cloned()
    }
}

fn compile(list: &[MiddlewareId], all: &BTreeMap<MiddlewareId, Middleware>, kept: &Kept) -> Result<Chain, ConfigError> {
    let named: Vec<_> = list.iter().filter_map(|id| Some((id.clone(), all.get(id)?.clone()))).collect();
    for (id, middleware) in &named {
        if let Middleware::ForwardAuth(settings) = middleware
            && settings.address.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
        {
            let reason = "address: services are asked over http:// only; over https:// is not supported";
            return Err(ConfigError { middleware: id.clone(), reason: reason.to_owned() });
        }
    }
    Chain::compile(&named, kept)
}

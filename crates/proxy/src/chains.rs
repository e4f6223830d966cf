//! The chains of middlewares that a table's routes have: one for each list of middlewares, however many routes name it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_proxy_middleware::{Chain, ConfigError, State};
use coracle_proxy_table::{Middleware, MiddlewareId, Route, Table};
use tokio::sync::Notify;

use crate::https::{Trusts, asks_over_tls};
use crate::plane::Plane;
use crate::router::BadTable;

/// Between two looks at the files of middlewares.
const BETWEEN: Duration = Duration::from_secs(1);

/// What middlewares keep from one table to the next.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    state: State,
    /// Whom services asked over TLS are trusted by.
    pub(crate) trusts: Trusts,
    /// A chain has been made, perhaps of files.
    made: Arc<Notify>,
}

impl Kept {
    /// Reads files that middlewares are made of again when they change. Never ends. They are looked at on a thread where nobody
    /// waits, and nothing wakes up while there are none.
    pub(crate) async fn watch_files(plane: Weak<Plane>) {
        loop {
            let made = match plane.upgrade() {
                None => return,
                Some(plane) if plane.middlewares.has_files() => None,
                Some(plane) => Some(Arc::clone(&plane.middlewares.made)),
            };
            if let Some(made) = made {
                made.notified().await;
                continue;
            }
            tokio::time::sleep(BETWEEN).await;
            let Some(plane) = plane.upgrade() else { return };
            let looked = tokio::task::spawn_blocking(move || plane.middlewares.look_again()).await;
            if let Err(error) = looked {
                tracing::error!(%error, "files of middlewares could not be looked at");
            }
        }
    }

    fn has_files(&self) -> bool {
        self.state.has_files() || self.trusts.has_files()
    }

    fn look_again(&self) {
        self.state.look_again();
        self.trusts.look_again();
    }
}

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
            let wrong = |error| BadTable::Middleware { route: route.id.0.clone(), error };
            let chain = match chains.0.get(list).filter(|_| unchanged()) {
                Some(chain) => Arc::clone(chain),
                None => Arc::new(compile(list, &table.middlewares, kept).map_err(wrong)?),
            };
            // Services come and go while middlewares stay as they are.
            if chain.asks() {
                check_services(list, table).map_err(wrong)?;
            }
            compiled.insert(list.clone(), chain);
        }
        Ok(Self(compiled))
    }

    /// A route's chain; nothing if it has no middlewares.
    pub(crate) fn of(&self, route: &Route) -> Option<&Arc<Chain>> {
        self.0.get(&route.middlewares)
    }
}

fn check_services(list: &[MiddlewareId], table: &Table) -> Result<(), ConfigError> {
    for id in list {
        let service = table.middlewares.get(id).and_then(Middleware::service);
        if let Some(service) = service.filter(|service| !table.services.contains_key(service)) {
            let reason = format!("service: the table has none that is called {:?}", service.0);
            return Err(ConfigError { middleware: id.clone(), reason });
        }
    }
    Ok(())
}

fn compile(list: &[MiddlewareId], all: &BTreeMap<MiddlewareId, Middleware>, kept: &Kept) -> Result<Chain, ConfigError> {
    let named: Vec<_> = list.iter().filter_map(|id| Some((id.clone(), all.get(id)?.clone()))).collect();
    let chain = Chain::compile(&named, &kept.state)?;
    kept.made.notify_one();
    for (id, middleware) in &named {
        if let Some(tls) = asks_over_tls(middleware) {
            let wrong = |reason| ConfigError { middleware: id.clone(), reason: format!("tls: {reason}") };
            kept.trusts.take(tls).map_err(wrong)?;
        }
    }
    Ok(chain)
}

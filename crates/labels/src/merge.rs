//! What several containers say, put together: replicas become servers of one service, what is said twice in the same words
//! is said once, and what is said in different words is not taken at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::configuration::{Configuration, Kind, Problem};
use crate::dynamic::{Http, Service};

/// What one container says, and its name.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) container: String,
    pub(crate) http: Http,
}

/// Puts together what containers say, in the order of their keys.
pub(crate) fn merge(said: BTreeMap<String, Said>, mut problems: Vec<Problem>) -> Configuration {
    let mut routers = Names::new("router");
    let mut services = Names::new("service");
    let mut middlewares = Names::new("middleware");
    for Said { container, http } in said.into_values() {
        for (name, service) in http.services {
            services.add(&container, name, service, join);
        }
        for (name, router) in http.routers {
            routers.add(&container, name, router, |known, new| known == &new);
        }
        for (name, middleware) in http.middlewares {
            middlewares.add(&container, name, middleware, |known, new| known == &new);
        }
    }
    let (services, service_sources) = services.agreed(&mut problems);
    let (routers, router_sources) = routers.agreed(&mut problems);
    let (middlewares, middleware_sources) = middlewares.agreed(&mut problems);
    problems.sort();
    problems.dedup();
    Configuration { routers, services, middlewares, problems, router_sources, service_sources, middleware_sources }
}

/// Adds the servers of a replica, each URL once; not if the two say different things otherwise.
fn join(known: &mut Service, new: Service) -> bool {
    let (Some(known), Some(new)) = (&mut known.load_balancer, new.load_balancer) else { return false };
    if !known.is_mergeable_with(&new) {
        return false;
    }
    for server in new.servers {
        if known.servers.iter().all(|other| other.url != server.url) {
            known.servers.push(server);
        }
    }
    true
}

/// Things of one kind, by name.
struct Names<T> {
    kind: &'static str,
    things: BTreeMap<String, T>,
    sources: BTreeMap<String, Vec<String>>,
    contradicted: BTreeSet<String>,
}

impl<T> Names<T> {
    fn new(kind: &'static str) -> Self {
        Self { kind, things: BTreeMap::new(), sources: BTreeMap::new(), contradicted: BTreeSet::new() }
    }

    fn add(&mut self, container: &str, name: String, thing: T, agree: impl FnOnce(&mut T, T) -> bool) {
        self.sources.entry(name.clone()).or_default().push(container.to_owned());
        match self.things.get_mut(&name) {
            Some(known) => {
                if !agree(known, thing) {
                    self.contradicted.insert(name);
                }
            }
            None => {
                self.things.insert(name, thing);
            }
        }
    }

    fn agreed(mut self, problems: &mut Vec<Problem>) -> (BTreeMap<String, T>, BTreeMap<String, Vec<String>>) {
        for name in &self.contradicted {
            self.things.remove(name);
            problems.push(Problem {
                kind: Kind::Conflict,
                containers: self.sources.remove(name).unwrap_or_default(),
                about: Some(format!("{} {name}", self.kind)),
                message:
                    "defined several times with different configurations, so none of them is taken; give it another name in \
                          one of them, or the same labels in all"
                        .to_owned(),
            });
        }
        (self.things, self.sources)
    }
}

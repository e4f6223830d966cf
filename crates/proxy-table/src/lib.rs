//! The routing table that the proxy is told, as plain data: who asks (routes), what is done on the way (middlewares) and who
//! answers (services and their targets). One [`Table`] is one snapshot; the proxy replaces the one it has by the next as a
//! whole.
//!
//! Nothing here knows of apps, releases or containers: identifiers are opaque texts chosen by whoever makes the table.
//! Nothing here parses a rule or compiles a middleware either: the proxy does, before it takes a table, and refuses the whole
//! table if it cannot.

mod middleware;
mod service;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use middleware::*;
pub use service::*;

/// A whole routing table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Counts up with every table that a control plane publishes; told back in status answers.
    #[serde(default)]
    pub generation: u64,
    /// In any order; see [`Route::priority`].
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Middlewares by id.
    #[serde(default)]
    pub middlewares: BTreeMap<MiddlewareId, Middleware>,
    /// Services by id.
    #[serde(default)]
    pub services: BTreeMap<ServiceId, Service>,
}

/// Identifies a route within a table: in metrics, in the access log, and to whoever reads the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteId(pub String);

/// Identifies a middleware within a table. One that is the same in two tables keeps its state (counts, rates).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MiddlewareId(pub String);

/// Which grammar a rule is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Traefik 3: one value per matcher, regular expressions as they are. Ours.
    #[default]
    V3,
    /// Traefik 2: several values per matcher, `{name:regexp}` in hosts and paths.
    V2,
}

/// Leads requests that match to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its identity.
    pub id: RouteId,
    /// What it matches, as ``Host(`shop.example`) && PathPrefix(`/api`)``.
    pub rule: String,
    /// The rule's grammar.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dialect: Dialect,
    /// Of several routes that match, the one with the highest priority gets the request; of equals, the one whose id sorts
    /// first. Without one it is the length of the rule's text, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The names of the listeners it serves; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Only requests that came over TLS (true) or without (false); nothing for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// What is done on the way there and back, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub middlewares: Vec<MiddlewareId>,
    /// The service that answers. Without one, a middleware has to (a redirect, static files); otherwise it is 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Where the certificates for the host names of its rule come from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub certificate: CertificateSource,
}

/// Where the certificates for a route's host names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateSource {
    /// From whoever configured the proxy, if it has a fitting one; nothing is ordered.
    #[default]
    Given,
    /// Ordered by ACME.
    Acme,
    /// Signed by the proxy's own local authority.
    Local,
}

impl Route {
    /// A route that matches by `rule` and leads to `service`.
    pub fn new(id: impl Into<String>, rule: impl Into<String>, service: ServiceId) -> Self {
        Self {
            id: RouteId(id.into()),
            rule: rule.into(),
            dialect: Dialect::V3,
            priority: None,
            listeners: Vec::new(),
            tls: None,
            middlewares: Vec::new(),
            service: Some(service),
            certificate: CertificateSource::Given,
        }
    }
}

/// Something that a table says twice, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// A route leads to a service that the table does not have.
    MissingService {
        /// The route.
        route: RouteId,
        /// The service.
        service: ServiceId,
    },
    /// A route goes through a middleware that the table does not have.
    MissingMiddleware {
        /// The route.
        route: RouteId,
        /// The middleware.
        middleware: MiddlewareId,
    },
    /// Two routes have the same id.
    DuplicateRoute(RouteId),
    /// A service has more than one target with the same id.
    DuplicateTarget {
        /// The service.
        service: ServiceId,
        /// The target.
        target: TargetId,
    },
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingService { route, service } => {
                write!(f, "route {:?} leads to service {:?}, which the table does not have", route.0, service.0)
            }
            Self::MissingMiddleware { route, middleware } => {
                write!(f, "route {:?} goes through middleware {:?}, which the table does not have", route.0, middleware.0)
            }
            Self::DuplicateRoute(id) => write!(f, "two routes are called {:?}", id.0),
            Self::DuplicateTarget { service, target } => {
                write!(f, "service {:?} has two targets called {:?}", service.0, target.0)
            }
        }
    }
}

impl std::error::Error for TableError {}

impl Table {
    /// Checks what the types cannot: every reference leads somewhere and no two things have the same name.
    pub fn check(&self) -> Result<(), TableError> {
        if let Some(id) = twice(self.routes.iter().map(|route| &route.id)) {
            return Err(TableError::DuplicateRoute(id.clone()));
        }
        for route in &self.routes {
            if let Some(service) = route.service.as_ref().filter(|service| !self.services.contains_key(service)) {
                return Err(TableError::MissingService { route: route.id.clone(), service: service.clone() });
            }
            if let Some(middleware) = route.middlewares.iter().find(|id| !self.middlewares.contains_key(id)) {
                return Err(TableError::MissingMiddleware { route: route.id.clone(), middleware: middleware.clone() });
            }
        }
        for (id, service) in &self.services {
            if let Some(target) = twice(service.targets.iter().map(|target| &target.id)) {
                return Err(TableError::DuplicateTarget { service: id.clone(), target: target.clone() });
            }
        }
        Ok(())
    }
}

/// What is there twice; of several the one that sorts first.
fn twice<'a, T: Ord>(all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut all: Vec<&T> = all.collect();
    all.sort_unstable();
    all.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Writes the rule that matches a host (`*.` before it takes one label more, `*` any) and a path prefix by whole segments.
pub fn host_and_prefix(host: &str, path_prefix: &str) -> String {
    let host_rule = match host.strip_prefix("*.") {
        _ if host == "*" => None,
        Some(parent) => Some(format!("HostRegexp(`^[^.]+\\.{}$`)", parent.replace('.', "\\."))),
        None => Some(format!("Host(`{host}`)")),
    };
    // PathPrefix alone takes `/apiary` for `/api`.
    let path_rule = (path_prefix != "/").then(|| format!("(Path(`{path_prefix}`) || PathPrefix(`{path_prefix}/`))"));
    match (host_rule, path_rule) {
        (Some(host), Some(path)) => format!("{host} && {path}"),
        (Some(rule), None) | (None, Some(rule)) => rule,
        (None, None) => "PathPrefix(`/`)".to_owned(),
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;

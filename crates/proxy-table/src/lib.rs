//! The routing table that the proxy is told, as plain data: who asks (routes) and who answers (services and their
//! targets). One [`Table`] is one snapshot; the proxy replaces the one it has by the next as a whole.
//!
//! Nothing here knows of apps, releases or containers: identifiers are opaque texts chosen by whoever makes the table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A whole routing table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Counts up with every table that a control plane publishes; told back in status answers.
    pub generation: u64,
    /// In any order; precedence comes from the rules themselves (see [`Route`]).
    pub routes: Vec<Route>,
    /// Services by id.
    pub services: BTreeMap<ServiceId, Service>,
}

/// Identifies a service within a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub String);

/// Identifies a target across tables: a target with the same id and address keeps its connections and its count of
/// requests in flight when the table around it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetId(pub String);

/// Leads requests that match to a service. Precedence: exact host before `*.host` before any host; then the longer path
/// prefix, counted in whole segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A host name in lower case without port, `*.` and a host name (one label more), or `*`.
    pub host: String,
    /// Matches this path and everything below it, by whole segments: `/api` takes `/api` and `/api/x`, not `/apiary`.
    pub path_prefix: String,
    /// Whether the prefix is taken off before the target sees the path.
    #[serde(default)]
    pub strip_prefix: bool,
    /// The service that answers.
    pub service: ServiceId,
}

/// Who answers, and whether requests may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Whether requests are let through.
    pub admission: Admission,
    /// Only targets that may get requests now.
    pub targets: Vec<Target>,
}

/// What happens to a request that matches a service's route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Admission {
    /// It goes to a target. Without any target: 503 with `Retry-After`.
    Open,
    /// It waits until a later table opens the service, at most this long (then 504), and at most so many at once (then 503).
    Hold {
        /// Milliseconds, counted from the request's arrival.
        deadline_ms: u64,
        /// How many requests may wait.
        max_waiting: usize,
    },
    /// 503 at once.
    Closed {
        /// Shown to the client as plain text.
        message: String,
        /// Seconds, for `Retry-After`.
        retry_after_s: u64,
    },
}

/// One address that answers for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its identity across tables.
    pub id: TargetId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Something that a table says twice, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// A route leads to a service that the table does not have.
    MissingService(ServiceId),
    /// Two routes match exactly the same requests.
    DuplicateRoute {
        /// Their host.
        host: String,
        /// Their path prefix.
        path_prefix: String,
    },
    /// A host that is not in lower case, has a port, or has a `*` that is not its first label.
    BadHost(String),
    /// A path prefix that does not begin with `/`, or ends with one without being `/`.
    BadPrefix(String),
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingService(id) => write!(f, "a route leads to service {:?}, which the table does not have", id.0),
            Self::DuplicateRoute { host, path_prefix } => write!(f, "two routes for {host}{path_prefix}"),
            Self::BadHost(host) => {
                write!(f, "host {host:?} must be a name in lower case without port, `*.` and such a name, or `*`")
            }
            Self::BadPrefix(prefix) => write!(f, "path prefix {prefix:?} must begin with / and not end with it"),
        }
    }
}

impl std::error::Error for TableError {}

impl Table {
    /// Checks what the types cannot: every route leads somewhere and no two routes are the same.
    pub fn check(&self) -> Result<(), TableError> {
        let mut seen = std::collections::BTreeSet::new();
        for route in &self.routes {
            if !is_host(&route.host) {
                return Err(TableError::BadHost(route.host.clone()));
            }
            let prefix = route.path_prefix.as_str();
            if !prefix.starts_with('/') || (prefix.len() > 1 && prefix.ends_with('/')) {
                return Err(TableError::BadPrefix(prefix.to_owned()));
            }
            if !self.services.contains_key(&route.service) {
                return Err(TableError::MissingService(route.service.clone()));
            }
            if !seen.insert((&route.host, prefix)) {
                return Err(TableError::DuplicateRoute { host: route.host.clone(), path_prefix: prefix.to_owned() });
            }
        }
        Ok(())
    }
}

/// Whether a route can have this host: one that could never match is a mistake of whoever made the table.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    host == "*"
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())
        || name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests;

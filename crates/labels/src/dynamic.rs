//! Traefik's dynamic configuration for HTTP: routers and services, with the names, the defaults and the nesting that its
//! reference documents for labels. Middlewares and what is not HTTP have files of their own.

mod middleware;
mod streams;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use middleware::Middleware;
pub(crate) use middleware::*;
pub(crate) use streams::*;

use crate::decode::switch;
use crate::go_duration::GoDuration;

/// What labels of one container can say; each part of it may be left out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Labels {
    pub(crate) http: Http,
    pub(crate) tcp: Tcp,
    pub(crate) udp: Udp,
    pub(crate) tls: Tls,
}

/// Labels below `traefik.http`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Http {
    pub(crate) routers: BTreeMap<String, Router>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) middlewares: BTreeMap<String, Middleware>,
}

/// A router: which requests go to which service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Router {
    /// Names of places where requests come in; empty for all.
    pub entry_points: Vec<String>,
    /// What is done on the way, in this order; each a name, maybe with `@provider`.
    pub middlewares: Vec<String>,
    /// Who answers; a name, maybe with `@provider`.
    pub service: String,
    /// What it matches.
    pub rule: String,
    /// What the rule is written in: `v2`, `v3`, or nothing for what is usual.
    pub rule_syntax: String,
    /// Of several that match, the highest gets the request; 0 for the length of the rule.
    pub priority: i64,
    /// Takes requests over TLS only; without it, requests without TLS only.
    #[serde(deserialize_with = "switch")]
    pub(crate) tls: Option<RouterTls>,
    #[serde(deserialize_with = "switch")]
    pub(crate) observability: Option<Value>,
    pub(crate) parent_refs: Vec<String>,
    /// Whether the rule is that of routers which have none.
    #[serde(skip_deserializing)]
    pub default_rule: bool,
}

/// Which certificates a router's requests need.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RouterTls {
    pub(crate) options: String,
    pub(crate) cert_resolver: String,
    pub(crate) domains: Vec<Domain>,
}

/// Names of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Domain {
    pub(crate) main: String,
    pub(crate) sans: Vec<String>,
}

/// A service. Labels make load balancers only; of the others it is known that they were asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// Who answers, and how requests are shared out.
    pub load_balancer: Option<LoadBalancer>,
    #[serde(skip_serializing)]
    pub(crate) weighted: Option<Value>,
    #[serde(skip_serializing)]
    pub(crate) mirroring: Option<Value>,
    #[serde(skip_serializing)]
    pub(crate) failover: Option<Value>,
}

/// Servers among which requests are shared out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Who answers. Labels describe one, which is the container; replicas add theirs.
    #[serde(rename(deserialize = "server"), deserialize_with = "one_server")]
    pub servers: Vec<Server>,
    #[serde(deserialize_with = "switch")]
    pub(crate) sticky: Option<Sticky>,
    pub(crate) strategy: String,
    pub(crate) health_check: Option<HealthCheck>,
    pub(crate) passive_health_check: Option<PassiveHealthCheck>,
    pub(crate) pass_host_header: bool,
    pub(crate) response_forwarding: Option<ResponseForwarding>,
    pub(crate) servers_transport: String,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            sticky: None,
            strategy: "wrr".to_owned(),
            health_check: None,
            passive_health_check: None,
            pass_host_header: true,
            response_forwarding: None,
            servers_transport: String::new(),
        }
    }
}

impl LoadBalancer {
    /// Whether replicas that say this and that can be one service: all is the same but the servers.
    pub(crate) fn is_mergeable_with(&self, other: &Self) -> bool {
        let without_servers = |it: &Self| Self { servers: Vec::new(), ..it.clone() };
        without_servers(self) == without_servers(other)
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    /// Where it is.
    pub url: String,
    pub(crate) weight: Option<i64>,
    pub(crate) preserve_path: bool,
    pub(crate) fenced: bool,
    #[serde(skip_serializing)]
    pub(crate) scheme: String,
    #[serde(skip_serializing)]
    pub(crate) port: String,
    /// The container that it is: its name, and the beginning of its id.
    #[serde(skip)]
    pub(crate) container: String,
}

/// `server.port=80` describes the only element of a list.
fn one_server<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Server>, D::Error> {
    Server::deserialize(deserializer).map(|server| vec![server])
}

/// How a client stays with the server it had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Sticky {
    #[serde(deserialize_with = "switch")]
    pub(crate) cookie: Option<Cookie>,
}

/// A cookie that names a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) same_site: String,
    pub(crate) max_age: i64,
    pub(crate) path: String,
    pub(crate) domain: String,
}

impl Default for Cookie {
    fn default() -> Self {
        let empty = String::new;
        Self {
            name: empty(),
            secure: false,
            http_only: false,
            same_site: empty(),
            max_age: 0,
            path: "/".to_owned(),
            domain: empty(),
        }
    }
}

/// By which servers are asked for their health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HealthCheck {
    pub(crate) mode: String,
    pub(crate) scheme: String,
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) status: u16,
    pub(crate) port: u16,
    pub(crate) interval: GoDuration,
    pub(crate) unhealthy_interval: Option<GoDuration>,
    pub(crate) timeout: GoDuration,
    pub(crate) hostname: String,
    pub(crate) follow_redirects: bool,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            mode: "http".to_owned(),
            scheme: String::new(),
            path: String::new(),
            method: String::new(),
            status: 0,
            port: 0,
            interval: GoDuration::milliseconds(30_000),
            unhealthy_interval: None,
            timeout: GoDuration::milliseconds(5000),
            hostname: String::new(),
            follow_redirects: true,
            headers: BTreeMap::new(),
        }
    }
}

/// How servers that fail requests are left out for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PassiveHealthCheck {
    pub(crate) failure_window: GoDuration,
    pub(crate) max_failed_attempts: u32,
}

impl Default for PassiveHealthCheck {
    fn default() -> Self {
        Self { failure_window: GoDuration::milliseconds(10_000), max_failed_attempts: 1 }
    }
}

/// When parts of an answer are passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ResponseForwarding {
    pub(crate) flush_interval: GoDuration,
}

impl Default for ResponseForwarding {
    fn default() -> Self {
        Self { flush_interval: GoDuration::milliseconds(100) }
    }
}

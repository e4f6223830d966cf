//! Labels that are not about HTTP. They are read as strictly as the others, since a mistake in them makes Traefik leave the
//! whole container aside; nothing is served by them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::decode::switch;

/// Labels below `traefik.tcp`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tcp {
    pub(crate) routers: BTreeMap<String, TcpRouter>,
    pub(crate) services: BTreeMap<String, StreamService>,
    pub(crate) middlewares: BTreeMap<String, TcpMiddleware>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TcpRouter {
    entry_points: Vec<String>,
    middlewares: Vec<String>,
    service: String,
    rule: String,
    rule_syntax: String,
    priority: i64,
    #[serde(deserialize_with = "switch")]
    tls: Option<TcpRouterTls>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TcpRouterTls {
    passthrough: bool,
    options: String,
    cert_resolver: String,
    domains: Vec<super::Domain>,
}

/// A service of TCP or UDP.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StreamService {
    pub(crate) load_balancer: Option<StreamLoadBalancer>,
    weighted: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StreamLoadBalancer {
    pub(crate) server: Option<StreamServer>,
    #[serde(deserialize_with = "switch")]
    proxy_protocol: Option<Value>,
    servers_transport: String,
    termination_delay: i64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StreamServer {
    pub(crate) port: String,
    tls: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TcpMiddleware {
    in_flight_conn: Option<Value>,
    ip_white_list: Option<Value>,
    ip_allow_list: Option<Value>,
}

/// Labels below `traefik.udp`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Udp {
    pub(crate) routers: BTreeMap<String, UdpRouter>,
    pub(crate) services: BTreeMap<String, StreamService>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct UdpRouter {
    entry_points: Vec<String>,
    service: String,
}

/// Labels below `traefik.tls`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    pub(crate) stores: BTreeMap<String, Store>,
}

/// Certificates for those who ask for a name that nobody else has one for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Store {
    default_certificate: Option<Value>,
    default_generated_cert: Option<GeneratedCertificate>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GeneratedCertificate {
    resolver: String,
    domain: Option<super::Domain>,
}

impl Tcp {
    pub(crate) fn is_there(&self) -> bool {
        !self.routers.is_empty() || !self.services.is_empty()
    }
}

impl Udp {
    pub(crate) fn is_there(&self) -> bool {
        !self.routers.is_empty() || !self.services.is_empty()
    }
}

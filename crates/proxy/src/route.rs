//! A route as it serves, and what rules ask of a request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_proxy_http::RequestHead;
use coracle_proxy_middleware::Chain;
use coracle_proxy_rules::Facts;
use coracle_proxy_table::RouteId;

use crate::listener::Listener;
use crate::metrics::RouteMetrics;
use crate::service::Service;

/// A route of one snapshot. What every request looks at comes first: with thousands of routes it is in no cache, and lies in as
/// few lines of memory as can be.
#[repr(C)]
pub(crate) struct Route {
    /// Whether its requests come over TLS.
    tls: Option<bool>,
    /// Whose requests it takes; everybody's if empty.
    listeners: Box<[String]>,
    /// What is done with its requests and answers; nothing if there is nothing to do.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Who answers; nobody, if a middleware has to.
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) metrics: RouteMetrics,
    pub(crate) id: RouteId,
}

impl Route {
    /// Of the table's route.
    pub(crate) fn new(
        plan: &coracle_proxy_table::Route,
        chain: Option<Arc<Chain>>,
        service: Option<Arc<Service>>,
        metrics: RouteMetrics,
    ) -> Self {
        Self { id: plan.id.clone(), listeners: plan.listeners.clone().into(), tls: plan.tls, chain, service, metrics }
    }

    /// Whether it takes requests that came in there.
    pub(crate) fn serves(&self, listener: &Listener) -> bool {
        self.tls.is_none_or(|tls| tls == listener.tls) && (self.listeners.is_empty() || self.listeners.contains(&listener.name))
    }
}

/// A request as rules look at it.
pub(crate) struct RequestFacts<'r> {
    head: &'r RequestHead,
    host: Cow<'r, str>,
    client: IpAddr,
}

impl<'r> RequestFacts<'r> {
    /// Of a request as the client sent it.
    pub(crate) fn new(head: &'r RequestHead, client: IpAddr) -> Self {
        Self { head, host: bare_host(head.host()), client }
    }
}

/// In lower case and without the port.
pub(crate) fn bare_host(host: &str) -> Cow<'_, str> {
    let host = match host.rfind(':') {
        // The colons of an IPv6 address are within its brackets.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

impl Facts for RequestFacts<'_> {
    fn host(&self) -> &str {
        &self.host
    }

    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn path(&self) -> &str {
        match self.head.path() {
            // A question about the server as a whole, in either form, goes to whoever has its root.
            "*" => "/",
            path => path,
        }
    }

    fn query(&self) -> &str {
        self.head.query().unwrap_or_default()
    }

    fn header_values(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) {
        for value in self.head.fields.get_all(name) {
            if visit(value) {
                return;
            }
        }
    }

    fn client_ip(&self) -> IpAddr {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port_and_capitals() {
        for (host, bare) in
            [("h", "h"), ("APP.Example.com:8080", "app.example.com"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(bare_host(host), bare);
        }
    }
}

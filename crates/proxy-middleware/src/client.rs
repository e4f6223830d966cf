//! Who asks.

use std::net::{IpAddr, SocketAddr};

use coracle_proxy_http::{Known, RequestHead};

/// Who asks, and how the request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address as far as the proxy believes it: the connection's, or what a trusted proxy before it said.
    pub ip: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The port that the request came in by.
    pub listener_port: u16,
}

impl Client {
    /// Whether the client, wherever it is, spoke TLS: by the connection, or by `X-Forwarded-Proto`, which is here only if the
    /// engine trusts whoever sent it. `ws` and `wss` are what some proxies write for upgrades.
    pub(crate) fn secure(&self, head: &RequestHead) -> bool {
        match head.fields.get_known_str(Known::XForwardedProto) {
            Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => true,
            Some(proto) if proto.eq_ignore_ascii_case("http") || proto.eq_ignore_ascii_case("ws") => false,
            _ => self.tls,
        }
    }
}

/// Splits an authority into its host, brackets kept, and its port.
pub(crate) fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (authority, None),
    }
}

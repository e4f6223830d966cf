//! Who calls: the holder of a key, or an address. What a proxy says about addresses is believed only of proxies that are
//! named.

use std::net::{IpAddr, Ipv6Addr};

use coracle_pyrunner_store::Scope;
use coracle_sandbox::Limits;
use http::HeaderMap;
use ipnet::IpNet;

/// A client, as rates, queues and histories tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ClientId {
    /// The holder of a key.
    Key(u64),
    /// Whoever calls from this address; of IPv6, from this /64, which is what one customer gets.
    Address(IpAddr),
}

impl ClientId {
    /// The client at an address.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 => v4,
        })
    }
}

/// Whoever sent a request, and what it may do.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) client: ClientId,
    /// Whose executions these are: `key:…` or `address:…`.
    pub(crate) owner: String,
    /// Whether it may see everybody's.
    pub(crate) admin: bool,
    /// Calls an hour, where that is another number than for everybody; 0: as many as it likes.
    pub(crate) rate: Option<u32>,
    /// How many of its executions may run at the same time, where that is less than the server's own bound.
    pub(crate) most_running: Option<usize>,
    /// The highest limits of its executions.
    pub(crate) limits: Limits,
}

impl Caller {
    /// Somebody without a key.
    pub(crate) fn anonymous(address: IpAddr, limits: Limits) -> Self {
        let client = ClientId::at(address);
        let owner = match client {
            ClientId::Address(address) => format!("address:{address}"),
            ClientId::Key(key) => format!("key:{key}"),
        };
        Self { client, owner, admin: false, rate: None, most_running: None, limits }
    }

    /// Whose executions it may see.
    pub(crate) fn scope(&self) -> Scope {
        if self.admin { Scope::Everyone } else { Scope::Owner(self.owner.clone()) }
    }

    /// Whoever sent a job, which waits in its owner's line after a restart too. Its own limits are in the job.
    pub(crate) fn of_job(owner: &str, limits: Limits) -> Self {
        let key = owner.strip_prefix("key:").and_then(|id| u64::from_str_radix(id, 16).ok()).map(ClientId::Key);
        let address = || owner.strip_prefix("address:").and_then(|address| address.parse().ok()).map(ClientId::at);
        let client = key.or_else(address).unwrap_or(ClientId::Key(u64::MAX));
        Self { client, owner: owner.to_owned(), admin: false, rate: None, most_running: None, limits }
    }
}

/// The address that a request comes from: the connection's, or, if that is a trusted proxy's, the last address in
/// `X-Forwarded-For` that is not a trusted proxy's itself.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let mut nearest = peer;
    // All fields of this name are one list (RFC 9110 section 5.3).
    let fields: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|field| field.to_str().ok()).collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        let Some(address) = parse(entry.trim()) else { break };
        nearest = address;
        if !is_trusted(&address) {
            break;
        }
    }
    nearest
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(entry, |(address, _)| address);
    let address = bare.parse::<IpAddr>().ok().or_else(|| entry.parse::<std::net::SocketAddr>().ok().map(|found| found.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for field in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(field));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_named_proxies_are_believed() {
        assert_eq!(seen("192.0.2.9", &["198.51.100.1"], &[]), "192.0.2.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
    }

    #[test]
    fn what_a_client_puts_in_front_is_not_believed() {
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, 198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.7"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.7"], &["10.0.0.0/8"]), "10.0.0.7");
        assert_eq!(seen("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        assert_eq!(seen("10.0.0.1", &["198.51.100.1:4711"], &["10.0.0.1/32"]), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:80"], &["10.0.0.1/32"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["2001:db8::1"], &["10.0.0.1/32"]), "2001:db8::1");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let client = |text: &str| ClientId::at(text.parse().unwrap());
        assert_eq!(client("2001:db8:1:2:3::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}

//! Where a request comes from, for lists and limits.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::{IpStrategy, SourceCriterion};

use crate::client::{Client, host_and_port};
use crate::networks::Networks;
use crate::wrong;

/// How a client's address is found.
#[derive(Debug)]
pub(crate) struct Strategy {
    choice: Choice,
    ipv6_subnet: Option<u8>,
}

#[derive(Debug)]
enum Choice {
    /// The one the proxy sees.
    Client,
    /// The so-manieth of `X-Forwarded-For` from the right, from 1.
    Depth(usize),
    /// The first of `X-Forwarded-For` from the right that is none of these.
    Excluding(Networks),
}

impl Strategy {
    pub(crate) fn compile(settings: Option<&IpStrategy>) -> Result<Self, String> {
        let Some(settings) = settings else { return Ok(Self { choice: Choice::Client, ipv6_subnet: None }) };
        if settings.ipv6_subnet.is_some_and(|bits| bits == 0 || bits > 128) {
            return Err(wrong("ip_strategy.ipv6_subnet", "must be from 1 to 128"));
        }
        let choice = match settings.depth {
            0 if settings.excluded_ips.is_empty() => Choice::Client,
            0 => Choice::Excluding(Networks::compile("ip_strategy.excluded_ips", &settings.excluded_ips)?),
            depth => Choice::Depth(depth),
        };
        Ok(Self { choice, ipv6_subnet: settings.ipv6_subnet })
    }

    /// The client's address; none if `X-Forwarded-For` does not have it, or something else in its place.
    pub(crate) fn find(&self, client: &Client, head: &RequestHead) -> Option<IpAddr> {
        match &self.choice {
            Choice::Client => Some(client.ip),
            Choice::Depth(depth) => forwarded_for(head).nth(depth - 1).and_then(address),
            Choice::Excluding(others) => {
                let mut addresses = forwarded_for(head).filter(|member| !member.is_empty()).map(address);
                addresses.find(|ip| ip.is_none_or(|ip| !others.contain(ip))).flatten()
            }
        }
    }

    /// The same with the low bits of IPv6 addresses cleared, as a key for limits.
    fn key(&self, client: &Client, head: &RequestHead) -> Option<IpAddr> {
        let ip = self.find(client, head)?.to_canonical();
        match (ip, self.ipv6_subnet) {
            (IpAddr::V6(v6), Some(bits)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Some(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)))
            }
            _ => Some(ip),
        }
    }
}

/// The members of all `X-Forwarded-For` fields, from the right. An empty one is a member: it takes a place.
fn forwarded_for(head: &RequestHead) -> impl Iterator<Item = &str> {
    let lines: Vec<&[u8]> = head.fields.get_all_known(Known::XForwardedFor).collect();
    lines.into_iter().rev().flat_map(|line| std::str::from_utf8(line).unwrap_or("?").rsplit(',').map(str::trim))
}

/// An address as proxies write it: bare, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(with_port)
}

/// What makes two requests come from one source.
#[derive(Debug)]
pub(crate) struct Criterion {
    kind: Kind,
    /// Keys are hashes, so that they are of one size; a random one, so that nobody can choose names that share a key.
    hasher: RandomState,
}

#[derive(Debug)]
enum Kind {
    Ip(Strategy),
    Header(String),
    Host,
}

/// What is a source if the settings do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Usual {
    /// The client's address.
    Ip,
    /// The host asked for.
    Host,
}

impl Criterion {
    pub(crate) fn compile(settings: Option<&SourceCriterion>, usual: Usual) -> Result<Self, String> {
        let none = SourceCriterion::default();
        let settings = settings.unwrap_or(&none);
        let said = [settings.ip_strategy.is_some(), settings.request_header_name.is_some(), settings.request_host];
        if said.into_iter().filter(|said| *said).count() > 1 {
            return Err(wrong("source_criterion", "only one of ip_strategy, request_header_name and request_host"));
        }
        let kind = match (&settings.request_header_name, usual) {
            (Some(name), _) if name.parse::<http::HeaderName>().is_err() => {
                return Err(wrong("source_criterion.request_header_name", "is no name of a header field"));
            }
            (Some(name), _) => Kind::Header(name.clone()),
            (None, Usual::Host) if settings.ip_strategy.is_none() => Kind::Host,
            (None, _) if settings.request_host => Kind::Host,
            (None, _) => Kind::Ip(Strategy::compile(settings.ip_strategy.as_ref())?),
        };
        Ok(Self { kind, hasher: RandomState::new() })
    }

    /// The same number for requests of the same source. Those of which the source cannot be told share one.
    pub(crate) fn key(&self, client: &Client, head: &RequestHead) -> u64 {
        match &self.kind {
            Kind::Ip(strategy) => self.hasher.hash_one(strategy.key(client, head)),
            Kind::Header(name) => self.hasher.hash_one(head.fields.get(name)),
            Kind::Host => self.hasher.hash_one(host_and_port(head.host()).0.to_ascii_lowercase()),
        }
    }
}

//! What a target is told about the client: `X-Forwarded-*` and `X-Real-Ip`.
//!
//! What a client claims about itself is replaced by what this proxy knows, unless the peer is one that may be believed.
//! `Forwarded` (RFC 7239) is not written: it is passed on from peers that may be believed and dropped from others.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::fields::Fields;
use crate::known::{Folded, Known};
use crate::octet;
use crate::request::RequestHead;

/// Which peers are believed in what they say about whom they forward for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    everybody: bool,
    nets: Vec<IpNet>,
}

/// A text that is neither an address nor a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a range as 10.0.0.0/8")]
pub struct BadRange(pub String);

impl Trust {
    /// Nobody is believed. The default.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Everybody is. Only where no client can reach this proxy but through another.
    pub fn everybody() -> Self {
        Self { everybody: true, nets: Vec::new() }
    }

    /// Addresses (`10.0.0.1`) and ranges (`10.0.0.0/8`, also written `10.1.2.3/8`) are believed.
    ///
    /// # Errors
    /// [`BadRange`] names the first text that is neither.
    pub fn parse<T: AsRef<str>>(ranges: impl IntoIterator<Item = T>) -> Result<Self, BadRange> {
        let nets = ranges.into_iter().map(|range| {
            let text = range.as_ref().trim();
            let net = text.parse().or_else(|_not_a_range| text.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_invalid| BadRange(range.as_ref().to_owned()))
        });
        Ok(Self { everybody: false, nets: nets.collect::<Result<_, _>>()? })
    }

    /// Whether this peer is believed. An IPv4 address within IPv6 is looked at as IPv4.
    pub fn covers(&self, peer: IpAddr) -> bool {
        self.everybody || !self.nets.is_empty() && self.nets.iter().any(|net| net.contains(&peer.to_canonical()))
    }
}

/// The address that the request came from in the first place, as far as that can be believed: seen from the peer backwards,
/// the first address of `X-Forwarded-For` that is not itself believed. What is no address ends the search.
pub fn client_ip(fields: &Fields, peer: IpAddr, trust: &Trust) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trust.covers(client) {
        return client;
    }
    let lines = fields.get_all_known(Known::XForwardedFor);
    let mut hops: smallvec::SmallVec<[&[u8]; 8]> = lines.flat_map(|line| line.split(|b| *b == b',')).collect();
    while let Some(hop) = hops.pop() {
        let Some(address) = read_address(octet::trim(hop)) else { break };
        client = address;
        if !trust.covers(client) {
            break;
        }
    }
    client
}

/// An address as it stands in `X-Forwarded-For`: some write a port behind it.
fn read_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse().ok()?,
        None => match text.parse() {
            Ok(address) => address,
            Err(_) => IpAddr::V4(text.split_once(':')?.0.parse().ok()?),
        },
    };
    Some(address.to_canonical())
}

/// How requests reach this proxy. Made once per connection.
#[derive(Debug, Clone)]
pub struct Arrival {
    peer: IpAddr,
    tls: bool,
    text: Text,
}

impl Arrival {
    /// From `peer`, over TLS or not. With a PROXY header, `peer` is whom that names.
    pub fn new(peer: IpAddr, tls: bool) -> Self {
        let peer = peer.to_canonical();
        Self { peer, tls, text: Text::of(peer) }
    }

    /// Whose address that is.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whether it is over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

/// An address in text, without an allocation.
#[derive(Debug, Clone)]
struct Text {
    bytes: [u8; 48],
    len: usize,
}

impl Text {
    fn of(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 48], len: 0 };
        // The longest address has 45 characters.
        let _fits = write!(text, "{address}");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// How targets are told about clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Which peers are believed.
    pub trust: Trust,
    /// Whether the peer is added to the `X-Forwarded-For` of a peer that is believed. The default.
    pub append_peer: bool,
    /// Whether `X-Forwarded-Scheme` and `X-Scheme` are set as well, to what `X-Forwarded-Proto` says.
    pub scheme_fields: bool,
    /// What is written into `X-Forwarded-Server`; without it, the field is not set.
    pub server: Option<Box<str>>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { trust: Trust::nobody(), append_peer: true, scheme_fields: false, server: None }
    }
}

impl Forwarding {
    /// Sets the fields of a request from what is known; claims of a peer that is not believed are dropped first, and always
    /// those that are spelled with `_`, which those who hand fields on as variables cannot tell from the others.
    ///
    /// * `X-Forwarded-For`: the peer, behind what a believed peer said.
    /// * `X-Forwarded-Proto`: `http` or `https`, for WebSockets `ws` or `wss`.
    /// * `X-Forwarded-Host`: the host asked for, with its port.
    /// * `X-Forwarded-Port`: the port of that, or else 443 or 80.
    /// * `X-Real-Ip`: [`client_ip`].
    ///
    /// What a believed peer has said in the latter four is left as it is. `X-Forwarded-Prefix` is for whoever takes a prefix
    /// off the path. It is to be called after [`strip_request`](crate::strip_request), while the head still has the host that
    /// the client asked for.
    pub fn apply(&self, head: &mut RequestHead, arrival: &Arrival) {
        let believed = self.trust.covers(arrival.peer);
        head.fields.keep(|known, name| !is_claim(known, name, believed));
        let websocket = head.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        let mut host: smallvec::SmallVec<[u8; 64]> = smallvec::SmallVec::new();
        host.extend_from_slice(head.host().as_bytes());
        let fields = &mut head.fields;
        if !fields.contains_known(Known::XRealIp) {
            match client_ip(fields, arrival.peer, &self.trust) {
                client if client == arrival.peer => fields.put(Known::XRealIp, arrival.text.as_bytes()),
                client => fields.put(Known::XRealIp, Text::of(client).as_bytes()),
            }
        }
        self.put_for(fields, arrival);
        if !fields.contains_known(Known::XForwardedProto) {
            let scheme = match (websocket, arrival.tls) {
                (false, false) => "http",
                (false, true) => "https",
                (true, false) => "ws",
                (true, true) => "wss",
            };
            fields.put(Known::XForwardedProto, scheme.as_bytes());
        }
        if !fields.contains_known(Known::XForwardedPort) {
            let secure = arrival.tls || matches!(fields.get_known(Known::XForwardedProto), Some(b"https" | b"wss"));
            let port = octet::split_port(&host).1.filter(|port| !port.is_empty());
            fields.put(Known::XForwardedPort, port.unwrap_or(if secure { b"443" } else { b"80" }));
        }
        if !host.is_empty() && !fields.contains_known(Known::XForwardedHost) {
            fields.put(Known::XForwardedHost, &host);
        }
        if let Some(server) = &self.server {
            // What the configuration says is left out if it is no field value.
            let _set = fields.set_known(Known::XForwardedServer, server.as_bytes());
        }
        if self.scheme_fields {
            let scheme: smallvec::SmallVec<[u8; 16]> = fields.get_known(Known::XForwardedProto).unwrap_or_default().into();
            replace(fields, Known::XForwardedScheme, &scheme);
            replace(fields, Known::XScheme, &scheme);
        }
    }

    fn put_for(&self, fields: &mut Fields, arrival: &Arrival) {
        let peer = arrival.text.as_bytes();
        if !fields.contains_known(Known::XForwardedFor) {
            // Nobody in front, so it is the client itself; without appending it is named by `X-Real-Ip` only.
            if self.append_peer {
                fields.put(Known::XForwardedFor, peer);
            }
            return;
        }
        let lines = fields.get_all_known(Known::XForwardedFor);
        let mut all: smallvec::SmallVec<[u8; 128]> = smallvec::SmallVec::new();
        for line in lines.chain(self.append_peer.then_some(peer)) {
            if !all.is_empty() {
                all.extend_from_slice(b", ");
            }
            all.extend_from_slice(line);
        }
        replace(fields, Known::XForwardedFor, &all);
    }
}

/// Whether a field is to be dropped: it tells about the client, and nobody who is believed says so.
fn is_claim(known: Known, name: &[u8], believed: bool) -> bool {
    match known {
        known if known.is_claim() => !believed,
        Known::Other => {
            if !matches!(name.first(), Some(b'x' | b'X')) {
                return false;
            }
            let folded = Folded::of(name);
            let spelled_otherwise = folded.known() != Known::Other || folded.as_bytes().starts_with(b"x-forwarded-");
            spelled_otherwise && (!believed || name.contains(&b'_'))
        }
        _ => false,
    }
}

fn replace(fields: &mut Fields, known: Known, value: &[u8]) {
    fields.remove_known(known);
    fields.put(known, value);
}

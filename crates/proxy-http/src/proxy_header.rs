//! The PROXY header, versions 1 and 2 (haproxy.org, proxy-protocol.txt), by which a balancer in front tells whom it forwards
//! for. It is read only where the configuration says that there is one, since anybody could claim anything in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::octet;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included, in bytes.
const LONGEST_LINE: usize = 107;
/// The most bytes that are read behind the fixed part of version 2: addresses and further information.
const MOST_BYTES: usize = 4096;

/// What a PROXY header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it takes; the connection's own bytes begin there.
    pub len: usize,
    /// The client and the address it connected to; none if the balancer speaks for itself (LOCAL, UNKNOWN) or for something
    /// that is not TCP. The connection's own addresses are right then.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Bytes that are no PROXY header. The connection is to be closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY header is missing or malformed")]
pub struct BadProxyHeader;

/// Reads the header that `buf` begins with; `None` if more bytes are needed, of which there are never more than some
/// thousands.
///
/// # Errors
/// [`BadProxyHeader`] as soon as no further byte could make one of it.
pub fn parse_proxy_header(buf: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let start = &buf[..buf.len().min(SIGNATURE.len())];
    if SIGNATURE.starts_with(start) {
        return read_v2(buf);
    }
    if !b"PROXY ".starts_with(&buf[..buf.len().min(6)]) {
        return Err(BadProxyHeader);
    }
    let line = &buf[..buf.len().min(LONGEST_LINE)];
    match memchr::memchr(b'\n', line) {
        Some(lf) => read_v1(&line[..=lf]).map(Some),
        None if line.len() == LONGEST_LINE => Err(BadProxyHeader),
        None => Ok(None),
    }
}

/// Reads `PROXY TCP4|TCP6 source destination source-port destination-port CRLF`, or `PROXY UNKNOWN … CRLF`.
fn read_v1(line: &[u8]) -> Result<ProxyHeader, BadProxyHeader> {
    let len = line.len();
    let text = line.strip_suffix(b"\r\n").and_then(|text| std::str::from_utf8(text).ok()).ok_or(BadProxyHeader)?;
    if !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(BadProxyHeader);
    }
    let mut words = text.split(' ').skip(1);
    let addresses = match words.next() {
        // Whatever else it says is to be ignored.
        Some("UNKNOWN") => return Ok(ProxyHeader { len, addresses: None }),
        Some("TCP4") => read_words::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => read_words::<Ipv6Addr>(&mut words)?,
        _ => return Err(BadProxyHeader),
    };
    if words.next().is_some() {
        return Err(BadProxyHeader);
    }
    Ok(ProxyHeader { len, addresses: Some(addresses) })
}

fn read_words<'w, A: std::str::FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'w str>,
) -> Result<(SocketAddr, SocketAddr), BadProxyHeader> {
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok()).map(Into::into).ok_or(BadProxyHeader);
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(read_port).ok_or(BadProxyHeader);
    Ok((SocketAddr::new(source, port()?), SocketAddr::new(destination, port()?)))
}

/// A port as the specification writes it: no sign, no leading zero.
fn read_port(word: &str) -> Option<u16> {
    let canonical = word == "0" || !word.starts_with('0');
    octet::decimal(word.as_bytes()).filter(|_| canonical).and_then(|port| port.try_into().ok())
}

fn read_v2(buf: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    // Every byte is judged when it comes: a stranger is not waited for.
    let version = buf.get(12).map(|byte| byte >> 4);
    let command = buf.get(12).map(|byte| byte & 0xf);
    let transport = buf.get(13).copied();
    if version.is_some_and(|version| version != 2)
        || command.is_some_and(|command| command > 1)
        || transport.is_some_and(|byte| byte >> 4 > 3 || byte & 0xf > 2)
    {
        return Err(BadProxyHeader);
    }
    let (Some(command), Some(transport), Some(&[high, low])) =
        (command, transport, buf.get(14..16).and_then(<[u8]>::first_chunk))
    else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MOST_BYTES {
        return Err(BadProxyHeader);
    }
    let Some(body) = buf.get(16..16 + len) else { return Ok(None) };
    let addresses = match (command, transport) {
        // The balancer's own: checks of whether this is alive.
        (0, _) => None,
        (_, 0x11) => Some(read_pair::<4>(body)?),
        (_, 0x21) => Some(read_pair::<16>(body)?),
        _ => None,
    };
    Ok(Some(ProxyHeader { len: 16 + len, addresses }))
}

/// Two addresses of `N` bytes, two ports; what follows is further information of no interest here.
fn read_pair<const N: usize>(body: &[u8]) -> Result<(SocketAddr, SocketAddr), BadProxyHeader> {
    let (source, rest) = body.split_first_chunk::<N>().ok_or(BadProxyHeader)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(BadProxyHeader)?;
    let ([a, b, c, d], _) = rest.split_first_chunk::<4>().ok_or(BadProxyHeader)?;
    let address = |bytes: &[u8; N]| match bytes.first_chunk::<16>() {
        Some(sixteen) => IpAddr::from(*sixteen),
        None => bytes.first_chunk::<4>().map_or(Ipv4Addr::UNSPECIFIED.into(), |four| IpAddr::from(*four)),
    };
    let source = SocketAddr::new(address(source), u16::from_be_bytes([*a, *b]));
    Ok((source, SocketAddr::new(address(destination), u16::from_be_bytes([*c, *d]))))
}

/// Writes a header of version 1.
pub fn write_proxy_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (source, destination) = same_family(source, destination);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Writes a header of version 2; without addresses, one that says LOCAL.
pub fn write_proxy_v2(addresses: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let Some((source, destination)) = addresses else {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return;
    };
    let (source, destination) = same_family(source, destination);
    out.extend_from_slice(if source.is_ipv4() { &[0x21, 0x11, 0, 12] } else { &[0x21, 0x21, 0, 36] });
    for address in [source.ip(), destination.ip()] {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// Both as IPv4 or both as IPv6; the header has one family for the two.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let as_v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if source.is_ipv4() == destination.is_ipv4() { (source, destination) } else { (as_v6(source), as_v6(destination)) }
}

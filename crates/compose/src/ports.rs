//! The short form of `ports`: `[[ip:]host:]container[/protocol]`, host and container each a port or a range of them.
//!
//! One entry becomes one mapping for each container port. A range of host ports for a single container port stays a range: the
//! engine takes the first free one. The long form is the caller's.

use std::net::IpAddr;

use thiserror::Error;

/// One container port and where it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// The host address, empty for all of them.
    pub host_ip: String,
    /// The container's port.
    pub target: u16,
    /// The host port, or a range of them `first-last` to choose from; empty for one that the engine picks.
    pub published: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Why a text is no port mapping.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Neither tcp, udp nor sctp.
    #[error("invalid proto: {0}; it is tcp, udp or sctp")]
    Protocol(String),
    /// The part before the ports is no address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Nothing behind the last colon.
    #[error("no port specified: {0}<empty>")]
    Empty(String),
    /// No port, or a range that ends before it begins.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// No port, or a range that ends before it begins.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Two ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Lengths {
        /// The container's ports.
        container: String,
        /// The host's ports.
        host: String,
    },
}

/// Reads one entry of `ports`. Mappings are in the order of the reference loader: by container port as text, so that 10 comes
/// before 9.
///
/// # Errors
/// See [`PortError`].
pub fn parse(entry: &str) -> Result<Vec<PortMapping>, PortError> {
    let (address, host, container) = parts(entry);
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(PortError::Empty(entry.to_owned()));
    }
    let protocol = match protocol.to_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => known,
        unknown => return Err(PortError::Protocol(unknown)),
    };
    let host_ip = host_ip(address)?;
    // The engine could not connect anything to port 0, which the reference loader takes and then prints as none.
    let ports = range(container).filter(|(first, _)| *first > 0);
    let (first, last) = ports.ok_or_else(|| PortError::Container(container.to_owned()))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| PortError::Host(host.to_owned()))?),
    };
    if let Some((host_first, host_last)) = host_range
        && host_last - host_first != last - first
        && first != last
    {
        return Err(PortError::Lengths { container: container.to_owned(), host: host.to_owned() });
    }
    let mut mappings: Vec<PortMapping> = (first..=last)
        .map(|target| PortMapping {
            host_ip: host_ip.to_owned(),
            target,
            published: published(host_range, target - first, first == last),
            protocol: protocol.clone(),
        })
        .collect();
    if first != last {
        mappings.sort_by_key(|mapping| format!("{}/{}", mapping.target, mapping.protocol));
    }
    Ok(mappings)
}

/// The host port `offset` into the range, or the whole range where a single container port chooses from it.
fn published(host: Option<(u16, u16)>, offset: u16, single: bool) -> String {
    match host {
        None => String::new(),
        Some((first, last)) if single && first != last => format!("{first}-{last}"),
        Some((first, _)) => (first + offset).to_string(),
    }
}

/// Address, host ports and container ports; what colons an address has are left in it.
fn parts(entry: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = entry.rsplit_once(':') else {
        return ("", "", entry);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn host_ip(address: &str) -> Result<&str, PortError> {
    let invalid = || PortError::Address(address.to_owned());
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(invalid)?,
        None => address,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(invalid());
    }
    Ok(bare)
}

/// A port or a range of ports, both ends included.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

fn port(text: &str) -> Option<u16> {
    // A sign would be read, too; no port has one.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    /// Mappings as `ip|published|target|protocol`.
    fn shown(entry: &str) -> Vec<String> {
        let show = |m: PortMapping| format!("{}|{}|{}|{}", m.host_ip, m.published, m.target, m.protocol);
        parse(entry).unwrap().into_iter().map(show).collect()
    }

    #[track_caller]
    fn check(entry: &str, expected: &[&str]) {
        assert_eq!(shown(entry), expected, "{entry}");
    }

    #[test]
    fn single_ports() {
        check("8000", &["||8000|tcp"]);
        check("9000:8000", &["|9000|8000|tcp"]);
        check("9000:8000/UDP", &["|9000|8000|udp"]);
        check("8000/sctp", &["||8000|sctp"]);
        check("8000/", &["||8000|tcp"]);
        check(":8000", &["||8000|tcp"]);
        check("08:080", &["|8|80|tcp"]);
    }

    #[test]
    fn addresses() {
        check("127.0.0.1:9000:8000", &["127.0.0.1|9000|8000|tcp"]);
        check("127.0.0.1::8000", &["127.0.0.1||8000|tcp"]);
        check("::1:9000:8000", &["::1|9000|8000|tcp"]);
        check("[::1]:9000:8000", &["::1|9000|8000|tcp"]);
        check("[2001:db8::1]::8000/udp", &["2001:db8::1||8000|udp"]);
        check("[127.0.0.1]:9:8", &["127.0.0.1|9|8|tcp"]);
    }

    #[test]
    fn ranges() {
        check("8000-8002", &["||8000|tcp", "||8001|tcp", "||8002|tcp"]);
        check("9000-9001:8000-8001", &["|9000|8000|tcp", "|9001|8001|tcp"]);
        check("9000-9005:8000", &["|9000-9005|8000|tcp"]);
        check("127.0.0.1:9-10:9-10/udp", &["127.0.0.1|10|10|udp", "127.0.0.1|9|9|udp"]);
        check("9000-9000:8000-8000", &["|9000|8000|tcp"]);
    }

    #[test]
    fn what_is_refused() {
        let refused = |entry: &str| parse(entry).unwrap_err().to_string();
        assert!(refused("80/http").starts_with("invalid proto: http"));
        assert_eq!(refused("300.0.0.1:80:80"), "invalid IP address: 300.0.0.1");
        assert_eq!(refused("[::1:80:80"), "invalid IP address: [::1");
        assert_eq!(refused("localhost:80:80"), "invalid IP address: localhost");
        assert_eq!(refused("80:"), "no port specified: 80:<empty>");
        assert_eq!(refused(""), "no port specified: <empty>");
        assert_eq!(refused("0"), "invalid containerPort: 0");
        assert_eq!(refused("70000"), "invalid containerPort: 70000");
        assert_eq!(refused("80-"), "invalid containerPort: 80-");
        assert_eq!(refused("90-80"), "invalid containerPort: 90-80");
        assert_eq!(refused(" 80:80"), "invalid hostPort:  80");
        assert_eq!(refused("80:80-90"), "invalid ranges specified for container and host Ports: 80-90 and 80");
        assert_eq!(refused("80-82:80-81"), "invalid ranges specified for container and host Ports: 80-81 and 80-82");
        assert_eq!(refused("-1"), "invalid containerPort: -1");
        assert_eq!(refused("+80"), "invalid containerPort: +80");
    }
}

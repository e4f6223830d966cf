//! What a rule asks of one part of a request.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::pattern::Pattern;
use crate::request::{Request, plain_host};
use crate::{Facts, RuleError, encoding};

/// One question to a request. Dialect v2 has no questions of its own but [`Matcher::FirstQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Matcher {
    Host(HostName),
    HostRegexp(Pattern),
    Path(String),
    PathPrefix(String),
    PathRegexp(Pattern),
    Method(String),
    Header {
        name: String,
        value: String,
    },
    HeaderRegexp {
        name: String,
        value: Pattern,
    },
    Query {
        key: String,
        value: String,
    },
    QueryRegexp {
        key: String,
        value: Pattern,
    },
    /// Of several values of a key, v2 looks at the first alone.
    FirstQuery {
        key: String,
        value: Pattern,
    },
    ClientIp(IpNet),
}

/// A host as a rule names it: lower case, without a dot at the end or brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostName {
    /// This name or address.
    Exact(String),
    /// `*.` and this: with one label before it.
    OneBelow(String),
    /// `**.` and this: with one or more labels before it.
    AnyBelow(String),
}

impl HostName {
    /// As v3 writes it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err(format!("{text:?} is not ASCII; write an international name in its xn-- form"));
        }
        let (kind, name): (fn(String) -> Self, &str) = if let Some(parent) = text.strip_prefix("**.") {
            (Self::AnyBelow, parent)
        } else if let Some(parent) = text.strip_prefix("*.") {
            (Self::OneBelow, parent)
        } else {
            (Self::Exact, text)
        };
        let name = plain_host(name).to_ascii_lowercase();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_allowed) {
            let hint = if text == "*" { "; a rule without Host is for all hosts" } else { "" };
            return Err(format!("{text:?} is no host name or address{hint}"));
        }
        Ok(kind(name))
    }

    fn is_match(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::OneBelow(parent) => labels_before(host, parent).is_some_and(|labels| !labels.contains('.')),
            Self::AnyBelow(parent) => labels_before(host, parent).is_some(),
        }
    }
}

fn labels_before<'a>(host: &'a str, parent: &str) -> Option<&'a str> {
    host.strip_suffix(parent)?.strip_suffix('.').filter(|labels| !labels.is_empty())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::OneBelow(parent) => write!(f, "*.{parent}"),
            Self::AnyBelow(parent) => write!(f, "**.{parent}"),
        }
    }
}

/// An address, or a network with its length; of a network, bits beyond its length do not count.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is no IP address or network, as 192.0.2.7 or 2001:db8::/32");
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net = text.parse::<IpNet>().map_err(|_| wrong())?.trunc();
    match net {
        // The same network, said as IPv6.
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).map_err(|_| wrong()),
            None => Ok(net),
        },
        _ => Ok(net),
    }
}

impl Matcher {
    pub(crate) fn is_match<F: Facts>(&self, request: &Request<'_, F>) -> bool {
        let facts = request.facts;
        match self {
            Self::Host(name) => name.is_match(request.host),
            // Of anything but printable ASCII, `(?i)` and `$` would take what the router's files cannot know.
            Self::HostRegexp(pattern) => {
                request.host.bytes().all(|byte| byte.is_ascii_graphic()) && pattern.is_match(request.host.as_bytes())
            }
            Self::Path(path) => *request.path == *path.as_bytes(),
            Self::PathPrefix(prefix) => request.path.starts_with(prefix.as_bytes()),
            Self::PathRegexp(pattern) => pattern.is_match(&request.path),
            Self::Method(method) => facts.method() == method,
            Self::Header { name, value } => header(facts, name, |given| given == value.as_bytes()),
            Self::HeaderRegexp { name, value } => header(facts, name, |given| value.is_match(given)),
            Self::Query { key, value } => values(facts.query(), key).any(|given| is_text(given, value)),
            Self::QueryRegexp { key, value } => {
                values(facts.query(), key).any(|given| value.is_match(&encoding::query_text(given)))
            }
            Self::FirstQuery { key, value } => {
                values(facts.query(), key).next().is_some_and(|given| value.is_match(&encoding::query_text(given)))
            }
            Self::ClientIp(net) => net.contains(&facts.client_ip().to_canonical()),
        }
    }

    /// Its name in v3, and what it is given there; `None` if it cannot be said in v3.
    fn in_v3(&self) -> Option<(&'static str, Vec<String>)> {
        Some(match self {
            Self::Host(name) => {
                let text = name.to_string();
                // v2 takes for a name what v3 refuses or reads otherwise.
                if HostName::parse(&text).as_ref() != Ok(name) {
                    return None;
                }
                ("Host", vec![text])
            }
            Self::HostRegexp(pattern) => ("HostRegexp", vec![pattern.source().to_owned()]),
            Self::Path(path) => ("Path", vec![path.clone()]),
            Self::PathPrefix(prefix) => ("PathPrefix", vec![prefix.clone()]),
            Self::PathRegexp(pattern) => ("PathRegexp", vec![pattern.source().to_owned()]),
            Self::Method(method) => ("Method", vec![method.clone()]),
            Self::Header { name, value } => ("Header", vec![name.clone(), value.clone()]),
            Self::HeaderRegexp { name, value } => ("HeaderRegexp", vec![name.clone(), value.source().to_owned()]),
            Self::Query { key, value } if value.is_empty() => ("Query", vec![key.clone()]),
            Self::Query { key, value } => ("Query", vec![key.clone(), value.clone()]),
            Self::QueryRegexp { key, value } => ("QueryRegexp", vec![key.clone(), value.source().to_owned()]),
            Self::FirstQuery { .. } => return None,
            Self::ClientIp(net) if net.prefix_len() == net.max_prefix_len() => ("ClientIP", vec![net.addr().to_string()]),
            Self::ClientIp(net) => ("ClientIP", vec![net.to_string()]),
        })
    }

    /// Writes it in v3; `false` if it cannot be said there.
    pub(crate) fn write_v3(&self, into: &mut String) -> bool {
        let Some((name, arguments)) = self.in_v3() else { return false };
        into.push_str(name);
        into.push('(');
        for (at, argument) in arguments.iter().enumerate() {
            if at > 0 {
                into.push_str(", ");
            }
            write_text(argument, into);
        }
        into.push(')');
        true
    }
}

fn write_text(text: &str, into: &mut String) {
    if !text.contains('`') {
        into.push('`');
        into.push_str(text);
        into.push('`');
        return;
    }
    into.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => into.extend(['\\', character]),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
    into.push('"');
}

fn header<F: Facts>(facts: &F, name: &str, accepts: impl Fn(&[u8]) -> bool) -> bool {
    let mut found = false;
    facts.header_values(name, &mut |value| {
        found = accepts(value);
        found
    });
    found
}

fn values<'a>(query: &'a str, key: &'a str) -> impl Iterator<Item = &'a [u8]> {
    encoding::pairs(query).filter(move |(given, _)| is_text(given, key)).map(|(_, value)| value)
}

fn is_text(raw: &[u8], text: &str) -> bool {
    encoding::query_bytes(raw).eq(text.bytes())
}

/// Wraps what is wrong with an argument.
pub(crate) fn refused(offset: usize, matcher: &str, reason: impl fmt::Display) -> RuleError {
    RuleError::new(offset, format!("{matcher}: {reason}"))
}

//! Middlewares that send clients elsewhere: 302 and 301 for GET, 307 and 308 for other methods, which keep their method and
//! body.

use serde::{Deserialize, Serialize};

/// Sends clients elsewhere whose whole URL (`scheme://host:port/path?query`) matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectRegex {
    /// What the URL is matched with; anywhere in it, unless anchored by `^` and `$`.
    pub regex: String,
    /// What each match becomes; `$1` and `${1}` stand for groups. Must give a URL.
    pub replacement: String,
    /// For ever (301, 308); otherwise for now (302, 307).
    #[serde(default)]
    pub permanent: bool,
}

/// Sends clients to the same URL with another scheme, unless that is the URL they asked for already. The scheme they asked by is
/// that of the connection, or of a trusted `X-Forwarded-Proto`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectScheme {
    /// As `https`.
    pub scheme: String,
    /// The port to put into the URL; without one, none is put. The scheme's usual one is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// For ever (301, 308); otherwise for now (302, 307).
    #[serde(default)]
    pub permanent: bool,
}

/// Sends clients that came by another host name to this one; scheme, path and query stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalHost {
    /// The host name that is meant. A port that the client named is kept.
    pub host: String,
    /// For ever (301, 308), which is usual; otherwise for now (302, 307).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub permanent: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

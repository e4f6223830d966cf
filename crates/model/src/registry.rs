//! Registries: their addresses, who one is to them, and where an app's images are pushed to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::Repository;
use crate::secret::Secret;

/// Docker Hub, as references name it.
const HUB: &str = "docker.io";

/// What else Docker Hub is called.
const ALSO_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Bytes of the longest address.
const LONGEST: usize = 255;

/// The address of a registry: a host or an IP address, and a port if it is not that of HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryHost(String);

/// Why a text is no address of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no registry's address: write a host and, where it is not 443, a port, as in registry.example.com:5000")]
pub struct HostError {
    /// The text, cut to a printable length.
    pub given: String,
}

impl RegistryHost {
    /// Docker Hub.
    pub fn hub() -> Self {
        Self(HUB.to_owned())
    }

    /// The address as references write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address that engines are told with credentials.
    pub fn server_address(&self) -> &str {
        if self.0 == HUB { "https://index.docker.io/v1/" } else { &self.0 }
    }
}

impl FromStr for RegistryHost {
    type Err = HostError;

    /// `https://`, a path as in Docker's configuration (`/v1/`) and capitals are taken off.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError { given: text.chars().take(80).collect() };
        let plain = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let address = match plain {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => text.trim_end_matches('/'),
        };
        let address = address.to_ascii_lowercase();
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (address.as_str(), None),
        };
        let is_address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let good_port = port
            .is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
        if !(is_address || host.split('.').all(is_label)) || !good_port || address.len() > LONGEST {
            return Err(wrong());
        }
        // Without any of these, a reference would take it for a part of Docker Hub.
        if port.is_none() && !host.contains(['.', ':']) && host != "localhost" {
            return Err(wrong());
        }
        Ok(if ALSO_HUB.contains(&address.as_str()) { Self::hub() } else { Self(address) })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for RegistryHost {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<RegistryHost> for String {
    fn from(host: RegistryHost) -> Self {
        host.0
    }
}

/// Who one is to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user's name.
    pub username: String,
    /// The password, or a token that stands for it.
    pub password: Secret,
}

/// Everything that one app may show to registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logins {
    all: BTreeMap<RegistryHost, RegistryLogin>,
    guarded: BTreeSet<RegistryHost>,
}

impl Logins {
    /// What is shown to a registry; `None`: nothing.
    pub fn of(&self, host: &RegistryHost) -> Option<&RegistryLogin> {
        self.all.get(host)
    }

    /// Says that single apps log in to these registries: what the machine has of theirs is not for everybody.
    #[must_use]
    pub fn guarding(mut self, hosts: impl IntoIterator<Item = RegistryHost>) -> Self {
        self.guarded.extend(hosts);
        self
    }

    /// Whether an image of this registry that is on the machine is used only if the registry lets this app have it.
    pub fn guards(&self, host: &RegistryHost) -> bool {
        self.guarded.contains(host)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = (&RegistryHost, &RegistryLogin)> {
        self.all.iter()
    }
}

impl FromIterator<(RegistryHost, RegistryLogin)> for Logins {
    fn from_iter<I: IntoIterator<Item = (RegistryHost, RegistryLogin)>>(all: I) -> Self {
        Self { all: all.into_iter().collect(), guarded: BTreeSet::new() }
    }
}

/// Where the images of an app's releases are pushed to: the `[registry]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrySpec {
    /// The repository.
    pub push: Repository,
    /// Whether a release whose image cannot be pushed must not go live.
    pub required: bool,
    /// Whether it is pushed with the app's own login alone, and never with the server's: so it is where somebody brought it who
    /// was not given that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_login: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_made_alike() {
        for (text, address) in [
            ("registry.example.com", "registry.example.com"),
            ("Registry.Example.com:5000", "registry.example.com:5000"),
            ("https://registry.example.com/", "registry.example.com"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost", "localhost"),
            ("registry:5000", "registry:5000"),
            ("172.17.0.1:5000", "172.17.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(text.parse::<RegistryHost>().unwrap().as_str(), address, "{text}");
        }
        for text in ["", "a b", "registry", "a/b.c", "-x.y", "a.b:0", "a.b:99999", "a.b:+5", "a..b", "[x]:1", "a.b\n", "ü.de"] {
            assert!(text.parse::<RegistryHost>().is_err(), "{text:?}");
        }
        assert_eq!(RegistryHost::hub().server_address(), "https://index.docker.io/v1/");
    }

    #[test]
    fn a_login_tells_no_password() {
        let login = RegistryLogin { username: "ana".to_owned(), password: Secret::new("hunter2") };
        let logins: Logins = [("a.b".parse().unwrap(), login)].into_iter().collect();
        assert!(!format!("{logins:?}").contains("hunter2"));
        assert!(logins.of(&"a.b".parse().unwrap()).is_some() && logins.of(&"a.b:1".parse().unwrap()).is_none());
    }
}

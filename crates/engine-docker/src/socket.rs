//! Where container engines listen.

use std::fmt;
use std::path::PathBuf;

/// An address an engine may listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Socket {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl Socket {
    /// Reads `unix:///path`, `/path`, `tcp://host:port` or `http://host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Self::Unix(path.into()));
        }
        match text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) {
            Some(address) if address.trim_end_matches('/').contains(':') => {
                Ok(Self::Tcp(address.trim_end_matches('/').to_owned()))
            }
            Some(_) => Err(format!("{text:?} names no port")),
            None => Err(format!("{text:?} is neither unix:///path nor tcp://host:port")),
        }
    }

    /// The addresses to try, in order: the one asked for, else `DOCKER_HOST`, else the usual sockets.
    pub(crate) fn candidates(wanted: Option<&str>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Self>, String> {
        let filled = |name: &str| environment(name).filter(|value| !value.is_empty());
        if let Some(text) = wanted.map(str::to_owned).or_else(|| filled("DOCKER_HOST")) {
            return Ok(vec![Self::parse(&text)?]);
        }
        let mut sockets = vec![Self::Unix("/var/run/docker.sock".into())];
        if let Some(run) = filled("XDG_RUNTIME_DIR").map(PathBuf::from) {
            sockets.push(Self::Unix(run.join("docker.sock")));
            sockets.push(Self::Unix(run.join("podman/podman.sock")));
        }
        sockets.push(Self::Unix("/run/podman/podman.sock".into()));
        Ok(sockets)
    }

    /// Whether the engine's loopback interface is this machine's.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                matches!(host, "localhost" | "127.0.0.1" | "[::1]")
            }
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn docker_host_goes_before_the_usual_sockets() {
        let environment = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://127.0.0.1:2375/".to_owned());
        assert_eq!(Socket::candidates(None, &environment).unwrap(), [Socket::Tcp("127.0.0.1:2375".into())]);
        assert_eq!(Socket::candidates(Some("/x.sock"), &environment).unwrap(), [Socket::Unix("/x.sock".into())]);
    }

    #[test]
    fn without_docker_host_rootless_and_podman_sockets_are_tried_too() {
        let environment = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".to_owned());
        let shown: Vec<String> = Socket::candidates(None, &environment).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "unix:///var/run/docker.sock",
                "unix:///run/user/1000/docker.sock",
                "unix:///run/user/1000/podman/podman.sock",
                "unix:///run/podman/podman.sock",
            ]
        );
    }

    #[test]
    fn unknown_schemes_are_refused() {
        for bad in ["ssh://host", "docker.sock", "tcp://host", ""] {
            assert!(Socket::parse(bad).is_err(), "{bad}");
        }
    }
}

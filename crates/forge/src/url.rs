//! Where a repository is.

use std::fmt;
use std::str::FromStr;

use crate::forge::shown;

/// Bytes of an address.
const LONGEST: usize = 500;

/// How git gets there. There is no other way: what git would run programs for, or read of this machine, is no address here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// With TLS.
    Https,
    /// Without: everybody on the way reads and writes what is fetched.
    Http,
    /// With a key.
    Ssh,
}

impl Scheme {
    /// As it stands in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
        }
    }
}

/// The address of a repository: `https://HOST/PATH`, `http://HOST/PATH`, `ssh://USER@HOST/PATH` or `USER@HOST:PATH`. Every part of
/// it is plain: no word of it is an option to any program or anything to a shell, and it holds no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUrl {
    scheme: Scheme,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Git would get there in a way that is not allowed here.
    #[error("{0:?} is not an address that is fetched from: use https://HOST/PATH, or git@HOST:PATH")]
    Scheme(String),
    /// A password would stand where it is shown.
    #[error("the address holds a user or a password: leave it out, and give a token with --token")]
    Credentials,
    /// It is no address.
    #[error("the {part} of the address is not plain: {text:?}")]
    Part {
        /// Of what.
        part: &'static str,
        /// What stands there.
        text: String,
    },
}

impl RepositoryUrl {
    /// How git gets there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the usual one if none is named.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
            Scheme::Ssh => 22,
        })
    }

    /// The repository's name at its forge: `owner/name`, or more pieces.
    pub fn full_name(&self) -> &str {
        self.path.strip_suffix(".git").unwrap_or(&self.path)
    }

    /// Where people and programs find the forge itself over HTTP, without a slash at the end.
    pub fn web(&self) -> String {
        match self.scheme {
            Scheme::Ssh => format!("https://{}", bracketed(&self.host)),
            _ => self.origin(),
        }
    }

    fn origin(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{}://{user}{}{port}", self.scheme.as_str(), bracketed(&self.host))
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin(), self.path)
    }
}

impl FromStr for RepositoryUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let strange = || UrlError::Scheme(shown(text));
        if text.len() > LONGEST {
            return Err(strange());
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("ssh", rest)) => (Scheme::Ssh, rest),
            Some(_) => return Err(strange()),
            None => return of_scp(text).unwrap_or_else(|| Err(strange())),
        };
        let (authority, path) = rest.split_once('/').ok_or_else(|| part("path", rest))?;
        let (user, place) = match (authority.rsplit_once('@'), scheme) {
            (None, _) => (None, authority),
            (Some(_), Scheme::Https | Scheme::Http) => return Err(UrlError::Credentials),
            (Some((user, _)), _) if user.contains(':') => return Err(UrlError::Credentials),
            (Some((user, place)), Scheme::Ssh) => (Some(plain_user(user)?), place),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { scheme, user, host, port, path: plain_path(path)? })
    }
}

/// `USER@HOST:PATH`, as forges show it.
fn of_scp(text: &str) -> Option<Result<RepositoryUrl, UrlError>> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let parse = || {
        let user = Some(plain_user(user)?);
        Ok(RepositoryUrl { scheme: Scheme::Ssh, user, host: plain_host(host)?, port: None, path: plain_path(path)? })
    };
    Some(parse())
}

fn part(part: &'static str, text: &str) -> UrlError {
    UrlError::Part { part, text: shown(text) }
}

fn plain_user(user: &str) -> Result<String, UrlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !user.is_empty() && !user.starts_with('-') && user.bytes().all(plain) {
        true => Ok(user.to_owned()),
        false => Err(part("user", user)),
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), UrlError> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or_else(|| part("host", place))?;
        let address: std::net::Ipv6Addr = host.parse().map_err(|_| part("host", host))?;
        let port = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            None => return Err(part("host", place)),
            Some(port) => Some(plain_port(port)?),
        };
        return Ok((address.to_string(), port));
    }
    match place.split_once(':') {
        None => Ok((plain_host(place)?, None)),
        Some((host, port)) => Ok((plain_host(host)?, Some(plain_port(port)?))),
    }
}

fn plain_port(text: &str) -> Result<u16, UrlError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| part("port", text))
}

fn plain_host(host: &str) -> Result<String, UrlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    match !host.is_empty() && !host.starts_with(['-', '.']) && host.bytes().all(plain) {
        true => Ok(host.to_ascii_lowercase()),
        false => Err(part("host", host)),
    }
}

fn plain_path(path: &str) -> Result<String, UrlError> {
    let path = path.trim_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte);
    let piece = |piece: &str| !matches!(piece, "" | "." | ".." | ".git") && !piece.starts_with('-') && piece.bytes().all(plain);
    match path.split('/').all(piece) {
        true => Ok(path.to_owned()),
        false => Err(part("path", path)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_as_forges_show_them_are_taken() {
        for (text, canonical, name, port, web) in [
            ("https://github.com/ana/shop.git", "https://github.com/ana/shop.git", "ana/shop", 443, "https://github.com"),
            (
                "https://git.example.com:8443/a/b/c/",
                "https://git.example.com:8443/a/b/c",
                "a/b/c",
                443 + 8000,
                "https://git.example.com:8443",
            ),
            ("git@GitHub.com:ana/shop.git", "ssh://git@github.com/ana/shop.git", "ana/shop", 22, "https://github.com"),
            ("ssh://git@[::1]:2222/shop.git", "ssh://git@[::1]:2222/shop.git", "shop", 2222, "https://[::1]"),
            (
                "http://127.0.0.1:9000/git/shop.git",
                "http://127.0.0.1:9000/git/shop.git",
                "git/shop",
                9000,
                "http://127.0.0.1:9000",
            ),
        ] {
            let url: RepositoryUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.full_name(), url.port(), url.web().as_str()), (canonical, name, port, web));
            assert_eq!(url.to_string().parse::<RepositoryUrl>().unwrap(), url, "{text}");
        }
    }

    #[test]
    fn nothing_else_is_an_address() {
        for bad in [
            "",
            "shop",
            "/etc",
            "file:///etc/passwd",
            "ext::sh -c touch% x",
            "git://host/a",
            "ftp://host/a",
            "--upload-pack=touch",
            "https://-oProxyCommand=x/a",
            "-oProxyCommand=x@host:a",
            "git@-oProxyCommand=x:a",
            "ssh://-x@host/a",
            "ssh://git@-x/a",
            "https://host",
            "https:///a",
            "https://host/",
            "https://host/../a",
            "https://host/a/..",
            "https://host/a b",
            "https://host/a?b",
            "https://host/a#b",
            "https://host/a%2e",
            "https://host:0/a",
            "https://host:x/a",
            "https://host:+1/a",
            "https://host/$(touch)",
            "https://host/`x`",
            "https://host/a;b",
            "https://host/a\nb",
            "https://host/\u{1b}[2J",
            "https://[::1/a",
            "https://[x]/a",
            "https://host/-a",
            "ssh://u:p@host/a",
            "https://u:p@host/a",
            "https://u@host/a",
            "https://host/.git",
            "HTTPS://host/a",
            "git@host:-x",
            "git@host:../a",
        ] {
            assert!(bad.parse::<RepositoryUrl>().is_err(), "{bad}");
        }
        assert_eq!("https://ana:pw@host/a".parse::<RepositoryUrl>(), Err(UrlError::Credentials));
        let error = "https://ana:pw@host/a".parse::<RepositoryUrl>().unwrap_err().to_string();
        assert!(!error.contains("pw"), "{error}");
    }
}

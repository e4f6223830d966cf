//! Where the server is, and how to get there.

use std::path::PathBuf;
use std::time::Duration;

use coracle_model::Secret;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::error::ClientError;
use super::ssh::{Ssh, SshStream};
use super::tls::Tls;

/// Where the server is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A Unix socket on this machine; being able to open it is the permission.
    Unix(PathBuf),
    /// An address, with the token that the server wants to see.
    Tcp {
        /// `http://host:port`. Without TLS: meant for an SSH tunnel, a private network, or a proxy in front.
        url: String,
        /// The token.
        token: Secret,
    },
    /// An address that is reached over TLS, with its token.
    Tls(Tls),
    /// A machine that `ssh` leads to.
    Ssh(Ssh),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { url, .. } => f.write_str(url),
            Self::Tls(tls) => f.write_str(tls.url()),
            Self::Ssh(ssh) => ssh.address().fmt(f),
        }
    }
}

/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection on which nothing has been said.
pub(super) enum Connection {
    Unix(TokioIo<UnixStream>),
    Tcp(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    Ssh(Box<TokioIo<SshStream>>),
}

impl Endpoint {
    /// What goes into the `Host` header.
    pub(super) fn authority(&self) -> Result<String, ClientError> {
        match self {
            Self::Unix(_) | Self::Ssh(_) => Ok("coracle".to_owned()),
            Self::Tcp { url, .. } => authority_of(url, "http", 80),
            Self::Tls(tls) => authority_of(tls.url(), "https", 443),
        }
    }

    /// The token that is shown, where one is.
    pub fn token(&self) -> Option<&Secret> {
        match self {
            Self::Unix(_) | Self::Ssh(_) => None,
            Self::Tcp { token, .. } => Some(token),
            Self::Tls(tls) => Some(tls.token()),
        }
    }

    /// Its URL, if it is reached by HTTP or HTTPS.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Unix(_) | Self::Ssh(_) => None,
            Self::Tcp { url, .. } => Some(url),
            Self::Tls(tls) => Some(tls.url()),
        }
    }

    /// Whether it is on another machine, as far as one can tell.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }

    pub(super) async fn connect(&self) -> Result<Connection, ClientError> {
        if let Self::Ssh(ssh) = self {
            // It has a deadline of its own, which covers a login.
            return Ok(Connection::Ssh(Box::new(TokioIo::new(ssh.connect().await?))));
        }
        let connecting = async {
            match self {
                Self::Unix(path) => {
                    Ok(Connection::Unix(TokioIo::new(UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?)))
                }
                Self::Tcp { .. } => Ok(Connection::Tcp(TokioIo::new(self.connect_tcp().await?))),
                Self::Tls(tls) => {
                    let stream = self.connect_tcp().await?;
                    let authority = self.authority()?;
                    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                    Ok(Connection::Tls(Box::new(tls.handshake(stream, host).await?)))
                }
                Self::Ssh(ssh) => Ok(Connection::Ssh(Box::new(TokioIo::new(ssh.connect().await?)))),
            }
        };
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await.unwrap_or_else(|_| Err(self.unreachable(&late)))
    }

    async fn connect_tcp(&self) -> Result<TcpStream, ClientError> {
        let stream = TcpStream::connect(self.authority()?).await.map_err(|error| self.unreachable(&error))?;
        // Requests are short and wait for their answer: never hold a piece back.
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        Ok(stream)
    }

    fn unreachable(&self, error: &std::io::Error) -> ClientError {
        use std::io::ErrorKind;
        let hint = match (self, error.kind()) {
            (Self::Unix(path), ErrorKind::PermissionDenied) => {
                format!("only the user who runs the server may open {}; use sudo, or become that user", path.display())
            }
            (Self::Unix(_), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                "is the server running? start it with `coracle server run`".to_owned()
            }
            (Self::Tcp { .. }, _) => {
                "is the server running there, with `--api-tcp`? check the address, or start it with `coracle server run`"
                    .to_owned()
            }
            (Self::Tls(_), _) => "is the server running there? check the address and the port".to_owned(),
            _ => "is the server running? `coracle server run` starts it".to_owned(),
        };
        ClientError::Unreachable { endpoint: self.to_string(), cause: error.to_string(), hint }
    }
}

/// The `host:port` of an address of this scheme.
fn authority_of(url: &str, scheme: &str, port: u16) -> Result<String, ClientError> {
    let bad = |why: &str| ClientError::Endpoint(format!("{url:?} is not the address of a server: {why}"));
    let form = format!("use the form {scheme}://host:port");
    let uri: http::Uri = url.parse().map_err(|_| bad(&form))?;
    if uri.scheme_str() != Some(scheme) {
        return Err(bad(&form));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(ClientError::Endpoint("a server's address holds no user and no password: the token stands apart".to_owned()));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("leave the path away"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad(&form))?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(port)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn addresses_have_no_path_and_no_password() {
        let http = |url: &str| authority_of(url, "http", 80);
        assert_eq!(http("http://box:9000").unwrap(), "box:9000");
        assert_eq!(http("http://box/").unwrap(), "box:80");
        assert_eq!(http("http://[::1]:9000").unwrap(), "[::1]:9000");
        assert_eq!(authority_of("https://box", "https", 443).unwrap(), "box:443");
        for bad in ["", "box:9000", "https://box", "http://box/v1", "http://box?x", "unix:/x", "http://a:b@box"] {
            assert!(matches!(http(bad), Err(ClientError::Endpoint(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_missing_server_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("coracle.sock"));
        let Err(error) = endpoint.connect().await else { panic!("connected to nothing") };
        assert!(error.hint().unwrap().contains("coracle server run"), "{error:?}");
    }
}

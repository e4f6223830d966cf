//! Where the server is, and how to get there.

use std::path::PathBuf;
use std::time::Duration;

use coracle_model::Secret;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::error::ClientError;

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
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { url, .. } => f.write_str(url),
        }
    }
}

/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection on which nothing has been said.
pub(super) enum Connection {
    Unix(TokioIo<UnixStream>),
    Tcp(TokioIo<TcpStream>),
}

impl Endpoint {
    /// What goes into the `Host` header.
    pub(super) fn authority(&self) -> Result<String, ClientError> {
        match self {
            Self::Unix(_) => Ok("coracle".to_owned()),
            Self::Tcp { url, .. } => authority_of(url),
        }
    }

    pub(super) fn token(&self) -> Option<&Secret> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { token, .. } => Some(token),
        }
    }

    pub(super) async fn connect(&self) -> Result<Connection, ClientError> {
        let connecting = async {
            match self {
                Self::Unix(path) => {
                    Ok(Connection::Unix(TokioIo::new(UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?)))
                }
                Self::Tcp { url, .. } => {
                    let stream = TcpStream::connect(authority_of(url)?).await.map_err(|error| self.unreachable(&error))?;
                    // Requests are short and wait for their answer: never hold a piece back.
                    stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
                    Ok(Connection::Tcp(TokioIo::new(stream)))
                }
            }
        };
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await.unwrap_or_else(|_| Err(self.unreachable(&late)))
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
            _ => "is the server running? `coracle server run` starts it".to_owned(),
        };
        ClientError::Unreachable { endpoint: self.to_string(), cause: error.to_string(), hint }
    }
}

/// The `host:port` of an address.
fn authority_of(url: &str) -> Result<String, ClientError> {
    let bad = |why: &str| ClientError::Endpoint(format!("{url:?} is not the address of a server: {why}"));
    let uri: http::Uri = url.parse().map_err(|_| bad("use the form http://host:port"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(bad("TLS is not spoken here; use an SSH tunnel (ssh -L) and http://localhost:port")),
        _ => return Err(bad("use the form http://host:port")),
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("leave the path away"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("use the form http://host:port"))?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn addresses_are_plain_http_without_a_path() {
        assert_eq!(authority_of("http://box:9000").unwrap(), "box:9000");
        assert_eq!(authority_of("http://box/").unwrap(), "box:80");
        assert_eq!(authority_of("http://[::1]:9000").unwrap(), "[::1]:9000");
        for bad in ["", "box:9000", "https://box", "http://box/v1", "http://box?x", "unix:/x"] {
            assert!(matches!(authority_of(bad), Err(ClientError::Endpoint(_))), "{bad}");
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

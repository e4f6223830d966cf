//! The connection that builder and runtime share, and what the engine's errors mean.

use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{ClientVersion, Docker};
use coracle_engine::EngineError;
use coracle_model::{EngineKind, OwnerId, Span};

use crate::DockerOptions;
use crate::facts::{Facts, api_minor};
use crate::image;
use crate::socket::Socket;
use crate::turns::Turns;
use crate::wire::Ping;

/// How long an ordinary request may take. Starting a container on a busy machine takes seconds, not minutes.
pub(crate) const ORDINARY: Duration = Duration::from_secs(60);

/// How long an engine may say nothing at all where it has nothing to say: Podman sends not even headers before the first
/// event or the first line of a followed log.
const PATIENT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The newest version of the interface that the client library knows.
const NEWEST_MINOR: usize = bollard::API_DEFAULT_VERSION.minor_version;

/// A connection to an engine on behalf of an owner.
pub(crate) struct Client {
    pub(crate) docker: Docker,
    pub(crate) socket: Socket,
    pub(crate) owner: OwnerId,
    pub(crate) state_dir: PathBuf,
    pub(crate) facts: Facts,
    pub(crate) images: image::Seen,
    /// One at a time fetches, pushes or renames what a reference names.
    pub(crate) pulls: Turns<String>,
}

impl Client {
    pub(crate) async fn connect(options: DockerOptions) -> Result<Self, EngineError> {
        let candidates = Socket::candidates(options.socket.as_deref(), &|name| std::env::var(name).ok()).map_err(unavailable)?;
        let mut refusals = Vec::new();
        for socket in candidates {
            match Ping::send(&socket).await {
                Ok(ping) => {
                    let docker = open(&socket, &ping)?;
                    let facts = ask(&docker, &socket, &ping).await?;
                    return Ok(Self {
                        docker,
                        socket,
                        owner: options.owner,
                        state_dir: options.state_dir,
                        facts,
                        images: image::Seen::default(),
                        pulls: Turns::default(),
                    });
                }
                Err(error) => refusals.push(format!("{socket}: {error}")),
            }
        }
        Err(unavailable(refusals.join("; ")))
    }

    pub(crate) async fn probe(&self) -> Result<Facts, EngineError> {
        let ping = Ping::send(&self.socket).await.map_err(|error| unavailable(format!("{}: {error}", self.socket)))?;
        ask(&self.docker, &self.socket, &ping).await
    }

    /// A client for requests whose answer may begin late.
    pub(crate) fn patient(&self) -> Docker {
        self.docker.clone().with_timeout(PATIENT)
    }

    /// Sorts an engine's error into what it means.
    pub(crate) fn error(&self, action: impl Into<String>, error: &Error) -> EngineError {
        let (action, cause) = (action.into(), message(error));
        match error {
            Error::RequestTimeoutError => EngineError::TimedOut { action, limit: ordinary() },
            _ if is_unreachable(error) => unavailable(cause),
            _ if is_disk_full(&cause) => self.disk_full(),
            _ => EngineError::Failed { action, cause },
        }
    }

    pub(crate) fn disk_full(&self) -> EngineError {
        EngineError::DiskFull { place: self.facts.data_root.clone() }
    }
}

/// The deadline of ordinary requests, as errors tell it.
pub(crate) fn ordinary() -> Span {
    Span::seconds(ORDINARY.as_secs())
}

/// Gives an ordinary request its deadline: head and body together.
pub(crate) async fn timely<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ORDINARY, request).await.unwrap_or(Err(Error::RequestTimeoutError))
}

async fn ask(docker: &Docker, socket: &Socket, ping: &Ping) -> Result<Facts, EngineError> {
    let info = timely(docker.info()).await.map_err(|error| unavailable(message(&error)))?;
    Ok(Facts::new(socket, ping, info))
}

fn open(socket: &Socket, ping: &Ping) -> Result<Docker, EngineError> {
    let minor = api_minor(ping.header("api-version").unwrap_or("1.41")).min(NEWEST_MINOR);
    let version = ClientVersion { major_version: 1, minor_version: minor };
    match socket {
        Socket::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), ORDINARY.as_secs(), &version),
        Socket::Tcp(address) => Docker::connect_with_http(&format!("tcp://{address}"), ORDINARY.as_secs(), &version),
    }
    .map_err(|error| unavailable(message(&error)))
}

pub(crate) fn unavailable(cause: impl Into<String>) -> EngineError {
    EngineError::Unavailable { engine: EngineKind::Docker, cause: cause.into() }
}

/// The HTTP status an engine refused with.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What an engine said, without the library's words around it.
pub(crate) fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::HyperLegacyError { err } => {
            let mut cause: &dyn std::error::Error = err;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
        other => other.to_string(),
    }
}

/// Whether the engine went away, or was never there. The library reports a body that breaks off as an I/O error.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::SocketNotFoundError(_) | Error::IOError { .. }
    )
}

/// Whether a text says that a file system is full.
pub(crate) fn is_disk_full(text: &str) -> bool {
    text.contains("no space left on device") || text.contains("No space left on device")
}

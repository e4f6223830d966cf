//! Why a server does not start, and what to do about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use coracle_git_door::DoorError;
use coracle_orchestrator::OrchestratorError;
use coracle_store::StoreError;

use crate::engines::SearchError;
use crate::proxy_process::ProxyError;
use crate::state_dir::StateDirError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No engine can be had.
    #[error(transparent)]
    Engine(#[from] coracle_engine::EngineError),
    /// The proxy cannot be started or adopted.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What an earlier server left half-done cannot be settled.
    #[error("what was interrupted cannot be settled: {0}")]
    Recover(#[source] OrchestratorError),
    /// The repositories that are pushed to cannot be used.
    #[error("the git repositories cannot be used: {0}")]
    Git(#[from] DoorError),
    /// The API cannot listen there.
    #[error("the API cannot listen on {place}: {source}")]
    Listen {
        /// The address or the path.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// SSH cannot listen there.
    #[error("SSH cannot listen on {address}: {source}")]
    ListenSsh {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The SSH host key cannot be read or made.
    #[error("the SSH host key in {} cannot be used: {source}", path.display())]
    HostKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token cannot be read or made.
    #[error("the token in {} cannot be used: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            Self::StateDir(_) | Self::Git(_) => "choose a directory that this user may write to with `--state`",
            Self::Store(StoreError::Locked { .. }) => "stop the other server first: `coracle server stop`",
            Self::Store(_) => "nothing was changed; `--state` chooses another directory",
            Self::Engine(_) => "`coracle doctor` tells what is missing; `--engine process` needs nothing installed",
            Self::Proxy(error) => error.hint(),
            Self::Recover(_) => "make what it needs available again (`coracle doctor`) and start once more; apps go on meanwhile",
            Self::Listen { .. } => "choose another address with `--api-tcp`, or another `--state` directory",
            Self::ListenSsh { .. } => "choose another address with `--ssh`",
            Self::HostKey { .. } => {
                "correct it; or remove the file to have a new one made, which everybody who knows the old one is warned of"
            }
            Self::Token { .. } => "remove the file to have a new token made",
        }
    }
}

impl From<SearchError> for StartError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Engine(error) => Self::Engine(error),
            SearchError::Store(error) => Self::Store(error),
        }
    }
}

//! Why a folder cannot be developed.

use std::path::PathBuf;

use coracle_engine::{BuildError, EngineError, Exit};
use coracle_model::StackError;

/// Why a session did not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Another session runs in the folder.
    #[error("coracle dev runs in {} already{}", folder.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process that has it.
        process: Option<u32>,
    },
    /// The folder's state cannot be kept.
    #[error("{}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No part has this name.
    #[error("there is no service {name:?}; there are {}", known.join(", "))]
    NoSuchPart {
        /// What was typed.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Something else has a port.
    #[error("port {port} of this machine, which {part} publishes, is taken by something else")]
    PortTaken {
        /// The address, port and protocol.
        port: String,
        /// Who publishes it.
        part: String,
    },
    /// The parts do not fit together.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A part asks for what the engine does not have.
    #[error("{part}: the {engine} engine cannot honour {}", settings.join(", "))]
    CannotHonour {
        /// The part.
        part: String,
        /// The engine.
        engine: coracle_model::EngineKind,
        /// What it asks for.
        settings: Vec<&'static str>,
    },
    /// There is no way to build the source tree.
    #[error("{message}")]
    NoPlan {
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A part could not be made.
    #[error("{part} could not be built: {error}")]
    Build {
        /// The part.
        part: String,
        /// Why.
        error: BuildError,
        /// The last lines of the build.
        tail: Vec<String>,
    },
    /// What a part waits for will not come.
    #[error("{part} waits for {on}, which {what}")]
    Unmet {
        /// Who waits.
        part: String,
        /// For whom.
        on: String,
        /// What became of it.
        what: String,
    },
    /// A part ended before it was of use.
    #[error("{part} ended before it took connections: {exit}")]
    EndedEarly {
        /// The part.
        part: String,
        /// How.
        exit: Exit,
    },
    /// A part did not come up in time.
    #[error("{part} takes no connections on its PORT ({address}) after {seconds} seconds")]
    NotReady {
        /// The part.
        part: String,
        /// Where it should listen.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Files cannot be watched.
    #[error("files cannot be watched: {0}")]
    Watch(String),
    /// It was called off.
    #[error("stopped")]
    Stopped,
}

impl DevError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Held { .. } => "stop it there with Ctrl-C".to_owned(),
            Self::PortTaken { .. } => "stop what has it, or publish another port; nothing was started".to_owned(),
            Self::NoPlan { hint, .. } => hint.clone(),
            Self::CannotHonour { .. } => "take these settings out, or write a compose file".to_owned(),
            Self::NotReady { .. } => "listen on the port that the variable PORT says, on 127.0.0.1 or all addresses".to_owned(),
            Self::Build { .. } => "mend it, then `coracle dev`".to_owned(),
            Self::Watch(_) => {
                "if it says that there are too many watches, raise fs.inotify.max_user_watches, or leave folders out".to_owned()
            }
            Self::Engine(EngineError::Unavailable { .. }) => {
                "start Docker; without a compose file, `coracle dev` needs none".to_owned()
            }
            _ => return None,
        })
    }

    /// Lines that prove it.
    pub fn evidence(&self) -> Vec<String> {
        if let Self::Build { tail, .. } = self { tail.clone() } else { Vec::new() }
    }
}

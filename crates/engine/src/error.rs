//! What can go wrong in an engine, in words that no engine owns.

use coracle_model::{ArtifactId, ByteSize, EngineKind, InstanceId, Span};

/// A failure while running instances.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine does not answer: Docker is stopped, its socket may not be opened.
    #[error("the {engine} engine is not available: {cause}")]
    Unavailable {
        /// Which engine.
        engine: EngineKind,
        /// What it said.
        cause: String,
    },
    /// There is no such instance, or it is not ours.
    #[error("there is no instance {0}")]
    NoSuchInstance(InstanceId),
    /// There is no such artifact, or it is not ours.
    #[error("artifact {0} is gone")]
    NoSuchArtifact(ArtifactId),
    /// The instance cannot be started as described: the program does not exist, the port is taken, the image lacks a command.
    #[error("{id} cannot be started: {cause}")]
    CannotStart {
        /// The instance.
        id: InstanceId,
        /// Why.
        cause: String,
    },
    /// No space is left where the engine keeps its things.
    #[error("no space is left on the disk ({place})")]
    DiskFull {
        /// The directory or data root.
        place: String,
    },
    /// It did not happen within its deadline.
    #[error("{action} took longer than {limit}")]
    TimedOut {
        /// What was being done.
        action: String,
        /// The deadline.
        limit: Span,
    },
    /// The caller called it off.
    #[error("cancelled")]
    Cancelled,
    /// Anything else, with what was being done.
    #[error("{action}: {cause}")]
    Failed {
        /// What was being done: `create container shop.v3.web.1`.
        action: String,
        /// What went wrong.
        cause: String,
    },
}

impl EngineError {
    /// An error of the operating system, sorted into what it means.
    pub fn io(action: impl Into<String>, error: &std::io::Error) -> Self {
        let action = action.into();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { place: action },
            _ => Self::Failed { action, cause: error.to_string() },
        }
    }
}

/// A failure while building.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step of the build ended with an error of its own: the user's to mend.
    #[error("{step} failed{}", code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    StepFailed {
        /// The step: `RUN pip install -r requirements.txt`.
        step: String,
        /// Its exit code, where there is one.
        code: Option<i64>,
    },
    /// The build wanted more memory than it may have.
    #[error("the build was killed because it used more than its {limit} of memory")]
    OutOfMemory {
        /// The cap.
        limit: ByteSize,
    },
    /// The build took too long.
    #[error("the build was stopped after {limit}")]
    TimedOut {
        /// The deadline.
        limit: Span,
    },
    /// This engine cannot build this plan, or what the plan names is not there.
    #[error("{0}")]
    CannotBuild(String),
    /// The caller called it off.
    #[error("the build was cancelled")]
    Cancelled,
    /// The engine failed, not the build.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

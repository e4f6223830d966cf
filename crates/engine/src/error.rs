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
    /// A registry did not do what it was asked for.
    #[error("cannot {action} {what}: {trouble}{}", if said.is_empty() { String::new() } else { format!(" ({said})") })]
    Registry {
        /// What was being done: `fetch`, `push`, `log in to`.
        action: &'static str,
        /// The image, or the registry.
        what: String,
        /// What is wrong.
        trouble: RegistryTrouble,
        /// What the registry or the engine said, printable and cut.
        said: String,
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

/// What is wrong between an engine and a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryTrouble {
    /// It does not take these credentials, or wants some.
    Denied,
    /// It has no such image.
    Missing,
    /// It has the image, but for other machines.
    OtherPlatforms {
        /// For which: `linux/arm64`.
        has: Vec<String>,
        /// What this machine is: `linux/amd64`.
        wanted: String,
    },
    /// Its certificate is not one that the engine trusts.
    Untrusted,
    /// It speaks no TLS.
    Plain,
    /// It does not answer.
    Unreachable,
    /// It is asked too often.
    TooOften,
    /// Anything else.
    Other,
}

impl std::fmt::Display for RegistryTrouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Denied => "the registry lets nobody do this with these credentials, or without any",
            Self::Missing => "the registry has no such image",
            Self::OtherPlatforms { has, wanted } => {
                return write!(f, "this machine is {wanted}, and the image is made for {}", has.join(", "));
            }
            Self::Untrusted => "the registry's certificate is not trusted by the container engine",
            Self::Plain => "the registry speaks no TLS",
            Self::Unreachable => "the registry does not answer",
            Self::TooOften => "the registry wants to be asked less often",
            Self::Other => "the registry refuses",
        })
    }
}

impl RegistryTrouble {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Denied => {
                "see that the name is right; a private registry is logged in to with `coracle registry login HOST` (with -a APP for one app)"
            }
            Self::Missing => "see that its name and tag are right, and that it has been pushed",
            Self::OtherPlatforms { .. } => "build the image for this machine as well, with `docker buildx build --platform`",
            Self::Untrusted => {
                "give the engine the authority's certificate: /etc/docker/certs.d/HOST:PORT/ca.crt on the server, without a restart"
            }
            Self::Plain => "let the registry speak TLS, or name it under insecure-registries in the engine's own configuration",
            Self::Unreachable => "see that its address is right and that it runs and is reached from the server, then try again",
            Self::TooOften => "wait and try again, or log in: `coracle registry login HOST`",
            Self::Other => "see what the registry says, then try again",
        }
    }
}

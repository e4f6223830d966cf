//! Why a step did not succeed.

use coracle_engine::{BuildError, EngineError};

/// Why a step did not succeed, or none could be run.
#[derive(Debug, thiserror::Error)]
pub enum StepFailure {
    /// It was called off.
    #[error("called off")]
    Cancelled,
    /// Something about the step is wrong; whoever wrote it mends that.
    #[error("{cause}")]
    Failed {
        /// Why, in a sentence.
        cause: String,
        /// The last lines that it wrote.
        evidence: Vec<String>,
        /// What to do next.
        hint: String,
        /// The exit code, if its program ended by itself.
        code: Option<i32>,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(EngineError),
}

impl StepFailure {
    pub(crate) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { cause: cause.into(), evidence: Vec::new(), hint: hint.into(), code: None }
    }

    /// A build or the fetching of an image that failed.
    pub(crate) fn of_image(error: BuildError, step: &str, evidence: Vec<String>, again: &str) -> Self {
        match error {
            BuildError::Cancelled | BuildError::Engine(EngineError::Cancelled) => Self::Cancelled,
            BuildError::Engine(error @ EngineError::Unavailable { .. }) => Self::Engine(error),
            error => {
                let (cause, hint) = (format!("the step {step} cannot be run: {error}"), format!("mend it, then `{again}`"));
                Self::Failed { cause, evidence, hint, code: None }
            }
        }
    }
}

impl From<EngineError> for StepFailure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Engine(other),
        }
    }
}

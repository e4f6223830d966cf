//! Why something asked for did not happen.

use coracle_engine::EngineError;
use coracle_model::Phase;
use coracle_store::StoreError;

use crate::traffic::TrafficError;

/// What the orchestrator answers when it does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The proxy refused.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// What was asked for cannot be done; nothing was begun.
    #[error("{message}")]
    Refused {
        /// What is wrong.
        message: String,
        /// What to do instead.
        hint: String,
    },
    /// A deployment failed; the app is as it was before.
    #[error("{phase} failed: {cause}")]
    Deployment {
        /// Where.
        phase: Phase,
        /// Why, in a sentence.
        cause: String,
        /// The last log lines of what failed.
        evidence: Vec<String>,
        /// What to type next.
        hint: String,
    },
    /// A deployment was called off; the app is as it was before.
    #[error("cancelled during {0}")]
    Cancelled(Phase),
}

impl OrchestratorError {
    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: hint.into() }
    }
}

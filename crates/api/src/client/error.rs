//! What can go wrong between the client and the server.

use crate::problem::{Problem, ProblemKind};

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered that it cannot be done.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Nobody answers there.
    #[error("cannot reach the server at {endpoint}: {cause}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        cause: String,
        /// What to type next.
        hint: String,
    },
    /// The endpoint itself makes no sense.
    #[error("{0}")]
    Endpoint(String),
    /// The connection broke, or what came over it was not what the API promises.
    #[error("the conversation with the server broke off: {0}")]
    Broken(String),
    /// No answer came in time.
    #[error("the server did not answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The source could not be read.
    #[error("the source tree cannot be read: {0}")]
    Source(String),
    /// A request could not be written as JSON.
    #[error("the request cannot be written: {0}")]
    Request(#[from] serde_json::Error),
}

impl ClientError {
    /// The problem the server told, if it told one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The kind of the problem the server told, if it told one.
    pub fn kind(&self) -> Option<ProblemKind> {
        self.problem().map(|problem| problem.kind)
    }

    /// What to type next, if there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => problem.hint.as_deref(),
            Self::Unreachable { hint, .. } => Some(hint),
            Self::TimedOut(_) | Self::Broken(_) => Some("look at the server's log; `coracle doctor` tells what works"),
            Self::Endpoint(_) | Self::Source(_) | Self::Request(_) => None,
        }
    }

    /// The last log lines of what failed.
    pub fn evidence(&self) -> &[String] {
        self.problem().map_or(&[], |problem| &problem.evidence)
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

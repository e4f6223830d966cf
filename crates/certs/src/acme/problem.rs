//! What goes wrong between us and an authority.

use jiff::Timestamp;
use serde::Deserialize;

use crate::CertError;

/// Why a request or an order failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcmeError {
    /// There is nobody, or nobody who speaks ACME: no fault of the order's.
    #[error("{0}")]
    Unreachable(String),
    /// The authority says no.
    #[error("{problem}")]
    Refused {
        problem: Problem,
        /// The HTTP status; 0 where the problem was inside an answer.
        status: u16,
        retry_after: Option<Timestamp>,
    },
    /// What the authority says makes no sense, or its order has come to nothing.
    #[error("{0}")]
    Protocol(String),
    /// Our own trouble: files, keys.
    #[error(transparent)]
    Local(#[from] CertError),
}

/// A problem document (RFC 7807) with ACME's types (RFC 8555, section 6.7).
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    subproblems: Vec<Problem>,
}

const PREFIX: &str = "urn:ietf:params:acme:error:";

impl Problem {
    /// Its ACME type without the common prefix; empty if it has none.
    pub(crate) fn kind(&self) -> &str {
        self.kind.strip_prefix(PREFIX).unwrap_or_default()
    }

    /// For answers that say so by their status alone.
    pub(crate) fn rate_limited(detail: &str) -> Self {
        Self { kind: format!("{PREFIX}rateLimited"), detail: detail.to_owned(), subproblems: Vec::new() }
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind().is_empty() { "no type" } else { self.kind() };
        // What a stranger says goes into logs: no control characters, and not without end.
        let detail: String = self.detail.chars().filter(|c| !c.is_control()).take(500).collect();
        write!(f, "the authority says: {detail} ({kind})")?;
        self.subproblems.iter().take(5).try_for_each(|problem| {
            let detail: String = problem.detail.chars().filter(|c| !c.is_control()).take(200).collect();
            write!(f, "; {detail}")
        })
    }
}

impl AcmeError {
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// A problem that was inside of an order, an authorization or a challenge.
    pub(crate) fn inside(problem: Problem) -> Self {
        Self::Refused { problem, status: 0, retry_after: None }
    }
}

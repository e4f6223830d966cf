//! Why a rule is refused.

/// Why a rule is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct RuleError {
    /// Where in the rule's text, in bytes from its start.
    pub offset: usize,
    /// What is wrong there and what would be right.
    pub message: String,
}

impl RuleError {
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

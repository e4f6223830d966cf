//! Names of executions.

use crate::problem::{Problem, ProblemKind};

/// A new one.
pub(crate) fn new() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Problem::new(ProblemKind::Internal, format!("no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

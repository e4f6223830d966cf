//! Procfiles.

use std::collections::BTreeMap;

use coracle_model::{CommandLine, ProcessName};

/// A Procfile, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Procfile {
    /// Every process but `release`.
    pub processes: BTreeMap<ProcessName, CommandLine>,
    /// The `release:` line.
    pub release: Option<CommandLine>,
}

/// A line of a Procfile that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Procfile:{line}: {message}")]
pub struct ProcfileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Procfile {
    /// Reads a Procfile.
    pub fn parse(_text: &str) -> Result<Self, ProcfileError> {
        unimplemented!()
    }
}

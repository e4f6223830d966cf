//! `.dockerignore`, with Docker's own semantics.

use std::io;
use std::path::Path;

/// The rules of one ignore file.
#[derive(Debug, Clone, Default)]
pub struct DockerIgnore {}

impl DockerIgnore {
    /// Reads rules. Patterns that Docker would refuse are errors.
    pub fn parse(_text: &str) -> Result<Self, IgnoreError> {
        unimplemented!()
    }

    /// The rules for building with this Dockerfile: `<Dockerfile>.dockerignore` if there is one, else `.dockerignore`.
    /// The Dockerfile and `.dockerignore` themselves are never ignored, since the builder needs them.
    pub fn for_dockerfile(_root: &Path, _dockerfile: &str) -> Result<Self, IgnoreError> {
        unimplemented!()
    }

    /// Whether the path (relative to the root, with `/`) is left out.
    pub fn ignores(&self, _path: &str) -> bool {
        unimplemented!()
    }
}

/// Why an ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// A pattern is malformed.
    #[error("line {line}: {pattern:?} is not a pattern: {cause}")]
    Pattern {
        /// The line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

//! `coracle.toml`: strict reading, with the place of every mistake.

/// A manifest as it stands in the file, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest;

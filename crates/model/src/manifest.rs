//! `coracle.toml`: strict reading, with the place of every mistake.

use std::fmt;

use crate::names::AppName;
use crate::spec::AppSpec;

/// A manifest as it stands in the file, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key, with dots: `http.hosts`. Empty where the file itself is at fault.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The source line, cut to a readable length, and where in it the caret goes.
    pub excerpt: Option<(String, usize)>,
}

/// Every mistake found, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl std::error::Error for ManifestErrors {}

impl Manifest {
    /// Reads the text of a `coracle.toml`.
    pub fn parse(_text: &str) -> Result<Self, ManifestErrors> {
        unimplemented!()
    }

    /// The app as it runs in an environment (`None`: none of the overlays). `fallback_name` is used where the manifest
    /// names no app: the folder's name.
    pub fn resolve(&self, _fallback_name: Option<AppName>, _environment: Option<&str>) -> Result<AppSpec, ManifestErrors> {
        unimplemented!()
    }

    /// The names of its environments.
    pub fn environments(&self) -> Vec<&str> {
        unimplemented!()
    }
}

/// What is known about a tree when its first manifest is written.
#[derive(Debug, Clone, Default)]
pub struct TemplateFacts {
    /// Why it will be built the way it will: `found Dockerfile`.
    pub reason: Option<String>,
    /// The health path to suggest.
    pub health: Option<String>,
    /// The release command found, if any.
    pub release_command: Option<String>,
}

/// A short commented manifest to begin with. It parses.
pub fn template(_app: &AppName, _facts: &TemplateFacts) -> String {
    unimplemented!()
}

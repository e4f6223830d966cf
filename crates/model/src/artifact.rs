//! What a build leaves behind, in words that no engine owns.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::CommandLine;
use crate::image::PinnedImage;
use crate::names::ProcessName;
use crate::spec::EngineKind;

/// Identifies an artifact to the engine that made it: an image id (`sha256:…`), a slug's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArtifactId(String);

impl ArtifactId {
    /// Only an engine makes these.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// As the engine wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The result of a build: immutable, and enough to start instances without source, registry or rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The engine that made it and can run it.
    pub engine: EngineKind,
    /// How that engine finds it again.
    pub id: ArtifactId,
    /// Processes that the build found (Procfile, detection). An image with a default command counts as `web` without one.
    pub processes: BTreeMap<ProcessName, Option<CommandLine>>,
    /// The port the image exposes.
    pub port: Option<u16>,
    /// Whether the image has a HEALTHCHECK of its own.
    pub has_healthcheck: bool,
    /// What it was made from, where the engine can tell: the same text means the same result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Where a registry has it, where it can be fetched from anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<PinnedImage>,
}

impl Artifact {
    /// One of which nothing else is known.
    pub fn new(engine: EngineKind, id: ArtifactId) -> Self {
        let processes = BTreeMap::new();
        Self { engine, id, processes, port: None, has_healthcheck: false, fingerprint: None, registry: None }
    }
}

//! Looking at a tree.

use std::path::{Path, PathBuf};

use coracle_model::{AppSpec, BuildPlan, EngineKind};

use crate::procfile::ProcfileError;

/// Why there is no plan for a tree.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The Procfile is wrong.
    #[error(transparent)]
    Procfile(#[from] ProcfileError),
    /// The manifest asks for what the tree or the engine does not have, or nothing was recognised.
    #[error("{message}")]
    Unsuitable {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A file could not be read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Decides how the tree at `root` is built for this engine, and which processes it names.
pub fn plan(_root: &Path, _spec: &AppSpec, _engine: EngineKind) -> Result<BuildPlan, PlanError> {
    unimplemented!()
}

//! The Compose Specification: reading, interpolating, merging and resolving compose files.
//!
//! [`load`] finds a project's files, reads them as the reference loader (compose-go) does, and gives the resolved model
//! in three forms: typed ([`Project`]), as JSON in the shape of `docker compose config --format json`
//! ([`Loaded::value`]), and as YAML ([`Loaded::to_yaml`]). Every value can be traced to the file, line and column where
//! it was written ([`Project::position`]), so that whoever cannot honour a key can say where it stands.
//!
//! The crate reads compose files, environment files and label files; it starts nothing, asks no engine, and looks at
//! neither the process's environment nor its directory: both are in [`Options`].
//!
//! # How the parts fit
//! `yaml` turns text into trees with places. `schema` is the table of every key, beside which all others walk:
//! `substitution` (variables), `extends`, `reset`, `include`, `merge`, `uniqueness`, `validation`, `canonical` (short
//! forms), `defaults`, `rules`, `paths`, `environment`, `normalize`, `render` (types), `consistency`. `loader` is the
//! order in which they take their turns.

mod budget;
mod canonical;
mod cast;
mod consistency;
mod defaults;
pub mod deploy;
mod discovery;
pub mod dotenv;
pub mod duration;
mod emit;
mod environment;
mod error;
mod extends;
mod files;
mod include;
pub mod interpolation;
mod loader;
mod merge;
mod node;
mod normalize;
mod paths;
pub mod ports;
mod position;
mod project;
#[cfg(test)]
mod reference;
mod render;
mod reset;
mod rules;
mod scalar;
mod schema;
pub mod service;
pub mod size;
mod substitution;
mod trail;
mod uniqueness;
mod validation;
pub mod volumes;
mod warnings;
pub mod words;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::error::{ComposeError, ErrorKind};
pub use crate::position::Position;
pub use crate::project::{FileObject, Ipam, IpamPool, Model, Network, Project, Volume};

/// What to load, and in which surroundings.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The files, in the order of `-f`; `-` is standard input. Empty: `COMPOSE_FILE`, else the usual names in the
    /// project's directory and above.
    pub files: Vec<PathBuf>,
    /// `--project-directory`; else the first file's directory.
    pub project_dir: Option<PathBuf>,
    /// `-p`; else `COMPOSE_PROJECT_NAME`, `name:` in the files, the directory's name.
    pub project_name: Option<String>,
    /// `--profile`; else `COMPOSE_PROFILES`. `*` is all of them.
    pub profiles: Vec<String>,
    /// `--env-file`, later ones winning; else `.env` in the project's directory.
    pub env_files: Vec<PathBuf>,
    /// The process's environment, which wins over every file.
    pub environment: BTreeMap<String, String>,
    /// The process's directory, absolute: what relative paths of these options are relative to.
    pub working_dir: PathBuf,
    /// What stands on standard input, for the file `-`.
    pub stdin: Option<String>,
    /// Nothing outside of this directory is read, wherever paths and links lead: for projects of somebody else. `None`: what
    /// the files name is read.
    pub within: Option<PathBuf>,
}

/// A loaded project.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The model, typed.
    pub project: Project,
    /// The model as `docker compose config --format json` prints it, environment resolved.
    pub value: serde_json::Value,
    /// What deserves a look although the project loads: obsolete keys, variables that are not set.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The model as YAML.
    pub fn to_yaml(&self) -> String {
        emit::to_yaml(&self.value)
    }
}

/// Loads a project.
///
/// # Errors
/// The first mistake found, with its place.
pub fn load(options: &Options) -> Result<Loaded, ComposeError> {
    project::load(options)
}

//! How a tree will be built: the answer of looking at it, before anything runs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::CommandLine;
use crate::names::ProcessName;
use crate::stack::{BuildExtras, PullPolicy};

/// What to build and how. Made by `coracle-build`, carried out by an engine. All paths are relative to the tree's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// The way to build.
    pub recipe: Recipe,
    /// Processes that the tree names (Procfile, detection), before the manifest has its say.
    pub processes: BTreeMap<ProcessName, CommandLine>,
    /// The command that the Procfile's `release:` line names.
    pub release_command: Option<CommandLine>,
    /// Why this recipe, for the person who wonders: `found Dockerfile`.
    pub reason: String,
}

/// The ways to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Recipe {
    /// A Dockerfile (docker engine only).
    Dockerfile {
        /// Its path.
        path: String,
        /// The stage to build.
        target: Option<String>,
        /// Build arguments.
        args: BTreeMap<String, String>,
        /// What else is asked for.
        #[serde(default)]
        extras: Box<BuildExtras>,
    },
    /// A ready image (docker engine only).
    Image {
        /// Its reference.
        reference: String,
        /// When it is fetched.
        #[serde(default = "always")]
        pull: PullPolicy,
    },
    /// Python with its dependencies.
    Python {
        /// Where the dependencies are written down.
        dependencies: PythonDependencies,
        /// The version asked for (`.python-version`, `runtime.txt`, `requires-python`): `3.11`. A wish, not a demand.
        version: Option<String>,
    },
    /// Node.js with its dependencies.
    Node {
        /// The lock file that `npm ci` needs, if there is one.
        lock: Option<String>,
        /// Whether `package.json` has a `build` script.
        has_build_script: bool,
    },
    /// Files served by Coracle itself.
    Static {
        /// The folder to serve.
        root: String,
    },
    /// Nothing to install: the Procfile's commands run in the tree as it is.
    Plain,
}

fn always() -> PullPolicy {
    PullPolicy::Always
}

/// The file that lists Python dependencies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
pub enum PythonDependencies {
    /// `requirements.txt`; `files` also names what it includes with `-r` and `-c`.
    Requirements {
        /// All files that decide what is installed.
        files: Vec<String>,
    },
    /// `uv.lock` beside `pyproject.toml`.
    UvLock,
    /// `poetry.lock` beside `pyproject.toml`.
    PoetryLock,
    /// `Pipfile.lock`.
    PipfileLock,
    /// `pyproject.toml` alone.
    Pyproject,
    /// None at all.
    None,
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dockerfile { path, .. } => write!(f, "Dockerfile ({path})"),
            Self::Image { reference, .. } => write!(f, "image {reference}"),
            Self::Python { .. } => f.write_str("Python"),
            Self::Node { .. } => f.write_str("Node.js"),
            Self::Static { root } => write!(f, "static files ({root})"),
            Self::Plain => f.write_str("Procfile"),
        }
    }
}

//! How a tree will be built: the answer of looking at it, before anything runs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::CommandLine;
use crate::names::{EnvName, ProcessName};
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
    /// What an image that is made for the tree says of itself.
    #[serde(default)]
    pub serving: Serving,
}

/// How what is built is served: what a Dockerfile made for a tree needs to know of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Serving {
    /// What `web` runs, by the manifest or by the tree. `None`: nothing serves.
    pub command: Option<CommandLine>,
    /// The port that `web` listens on where `$PORT` says nothing. `None`: 8080.
    pub port: Option<u16>,
    /// The path that says whether `web` is healthy. `None`: it is if it takes connections.
    pub health: Option<String>,
    /// The host that is asked for it. `None`: `localhost`.
    pub host: Option<String>,
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
    Python(PythonApp),
    /// Node.js with its dependencies.
    Node(NodeApp),
    /// A Go program (docker engine only).
    Go(GoApp),
    /// A Rust program (docker engine only).
    Rust(RustApp),
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

/// A Python app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonApp {
    /// Where the dependencies are written down.
    pub dependencies: PythonDependencies,
    /// The version asked for (`.python-version`, `runtime.txt`, `requires-python`): `3.12`. The process engine takes it for a
    /// wish, since it has what the machine has.
    pub version: Option<String>,
    /// The server that is installed beside the dependencies, which bring none: `gunicorn==27.0.1`.
    #[serde(default)]
    pub added: Option<String>,
    /// Whether what is required lies in the tree itself (`-e .`, `./vendor/thing`), so that nothing can be installed without it.
    #[serde(default)]
    pub needs_tree: bool,
    /// What of the tree a lock file names as packages: folders and archives, relative to the root. They are needed to install
    /// anything, and nothing else of the tree is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<String>,
    /// The folder that modules are found in beside the root: `src`.
    #[serde(default)]
    pub modules: Option<String>,
    /// Django's static files are gathered at the end.
    #[serde(default)]
    pub collect_static: Option<CollectStatic>,
}

impl PythonApp {
    /// One with these dependencies and nothing else to be said about it.
    pub fn new(dependencies: PythonDependencies) -> Self {
        let (added, local) = (None, Vec::new());
        Self { dependencies, version: None, added, needs_tree: false, local, modules: None, collect_static: None }
    }
}

/// How Django's `collectstatic` is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CollectStatic {
    /// Variables that the settings cannot be read without, and whose real values no build may see.
    pub placeholders: Vec<EnvName>,
}

impl CollectStatic {
    /// The value of such a variable. Gathering files needs none of the real ones.
    pub const PLACEHOLDER: &str = "only-while-it-is-built";
}

/// A Node.js app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeApp {
    /// What installs its packages.
    pub manager: PackageManager,
    /// The version of it that `package.json` asks for: `9.12.0`.
    #[serde(default)]
    pub manager_version: Option<String>,
    /// The manager's lock file, if there is one.
    pub lock: Option<String>,
    /// Whether `package.json` has a `build` script.
    pub has_build_script: bool,
    /// The version asked for (`.nvmrc`, `.node-version`, `engines.node`): `20`. The process engine takes it for a wish.
    #[serde(default)]
    pub version: Option<String>,
    /// Further files that decide what is installed: `.npmrc`.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Whether packages of the tree itself are among the dependencies (workspaces, `file:`), so that nothing can be installed
    /// without it.
    #[serde(default)]
    pub needs_tree: bool,
}

/// What installs packages for Node.js.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageManager {
    /// npm.
    Npm,
    /// pnpm.
    Pnpm,
    /// Yarn 1.
    Yarn,
    /// Yarn 2 and later, whose lock file and options are others.
    YarnBerry,
}

impl NodeApp {
    /// One that npm installs, and nothing else to be said about it.
    pub fn new(lock: Option<&str>, has_build_script: bool) -> Self {
        Self {
            manager: PackageManager::Npm,
            manager_version: None,
            lock: lock.map(str::to_owned),
            has_build_script,
            version: None,
            settings: Vec::new(),
            needs_tree: false,
        }
    }
}

impl PackageManager {
    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn | Self::YarnBerry => "yarn",
        }
    }
}

/// A Go program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoApp {
    /// The package that is built: `.`, `./cmd/shop`.
    pub package: String,
    /// What the program is called: `shop`.
    pub program: String,
    /// The version that `go.mod` asks for: `1.23`.
    pub version: String,
    /// Whether modules are to be fetched that lie neither in the tree nor in a `vendor` folder of it: those of `go.sum`.
    pub fetches: bool,
}

/// A Rust program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RustApp {
    /// What the program is called.
    pub program: String,
    /// The version that `rust-toolchain.toml` or `rust-version` asks for: `1.85`. `None`: the newest.
    pub version: Option<String>,
    /// Whether it is one package without more than `src/main.rs`, so that what it depends on can be fetched before its source
    /// is there.
    pub is_simple: bool,
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
    Pyproject {
        /// What its `[project]` table lists (PEP 508).
        listed: Vec<String>,
    },
    /// None at all.
    None,
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dockerfile { path, .. } => write!(f, "Dockerfile ({path})"),
            Self::Image { reference, .. } => write!(f, "image {reference}"),
            Self::Python(_) => f.write_str("Python"),
            Self::Node(_) => f.write_str("Node.js"),
            Self::Go(_) => f.write_str("Go"),
            Self::Rust(_) => f.write_str("Rust"),
            Self::Static { root } => write!(f, "static files ({root})"),
            Self::Plain => f.write_str("Procfile"),
        }
    }
}

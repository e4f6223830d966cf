//! The engine that runs instances as supervised Linux processes: no daemon, no images, nothing to install.
//!
//! A release is a directory that never changes (a *slug*) beside dependencies that are cached by what decides them. An
//! instance is a process under a [shim](shim_main) of its own that outlives the server. As root, each app has a user, a
//! cgroup, namespaces and a read-only view of the file system; without root the engine runs all the same, and
//! [`Runtime::isolation`](coracle_engine::Runtime::isolation) says what is missing.
//!
//! It builds neither Dockerfiles nor images, and it does not isolate the network: instances listen on the loopback address.

mod attached;
mod builder;
mod confine;
mod files;
mod instance;
mod kept_task;
mod lines;
mod logs;
mod runtime;
mod shim;
mod site;
mod slug;
pub mod static_site;
mod surroundings;
mod task;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

use coracle_engine::{Engine, EngineError};
use coracle_model::{EngineKind, OwnerId};

pub use shim::shim_main;

/// What the engine is opened with.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Whose instances these are.
    pub owner: OwnerId,
    /// The engine's own directory. Made if it is not there. One engine at a time may use it.
    pub dir: PathBuf,
    /// The `coracle` binary, which is run as `PROGRAM shim …` and `PROGRAM static …`.
    pub program: PathBuf,
    /// How far instances are kept apart.
    pub isolation: IsolationMode,
}

/// How far instances are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationMode {
    /// As far as this user and this machine allow.
    #[default]
    Auto,
    /// Not at all: they run as the server's user and see what it sees.
    None,
}

/// The engine. Dropping it stops no instance.
pub struct ProcessEngine {
    engine: Engine,
}

impl ProcessEngine {
    /// Opens the engine: looks at what the machine offers, and at what runs from before. Instances that run are told in
    /// events if this is called within a Tokio runtime.
    pub fn open(options: ProcessOptions) -> Result<Self, EngineError> {
        let site = Arc::new(site::Site::open(options)?);
        let runtime = Arc::new(runtime::ProcessRuntime::new(Arc::clone(&site)));
        let builder = Arc::new(builder::ProcessBuilder::new(site));
        Ok(Self { engine: Engine { kind: EngineKind::Process, builder, runtime } })
    }

    /// The engine, as the orchestrator takes it.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }
}

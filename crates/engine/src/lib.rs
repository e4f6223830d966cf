//! The seam between what Coracle decides and what carries it out. An engine builds a plan into an artifact ([`Builder`])
//! and runs instances of it ([`Runtime`]); [`Engine`] is the pair.
//!
//! Rules that hold for every engine, and that [`conformance`] checks:
//!
//! - Everything an engine creates bears the [`OwnerId`](coracle_model::OwnerId) it was made with, and it touches nothing
//!   that does not: two servers on one machine do not see each other.
//! - Instances outlive the server. Dropping an engine, or killing the process it lives in, stops no instance.
//! - Every method may be called again after a crash: starting what runs and stopping what is gone succeed.
//! - Environment values are secrets: they reach the instance's environment and nothing else, no argument vector, log,
//!   label or error.
//! - No method waits without an end: each has a deadline of its own or takes one.

pub mod builder;
pub mod conformance;
pub mod error;
pub mod fake;
pub mod neighbours;
pub mod predecessors;
pub mod runtime;
mod tail;

pub use builder::{BuildLimits, BuildRequest, Builder, NamedContext, OutputLine, OutputSink, Sharing};
pub use error::{BuildError, EngineError, RegistryTrouble};
pub use neighbours::{Change, ExposedPort, Neighbour, Neighbours};
pub use predecessors::{Mounted, Predecessor, Predecessors, Restart};
pub use runtime::{
    Bind, Exit, File, Handed, Health, Instance, InstanceEvent, InstanceSpec, InstanceState, Isolation, LogLine, LogQuery,
    Missing, PortRequest, Runtime, StartMark, Stats, Stream, Surroundings,
};
pub use tail::Tail;

use std::sync::Arc;

use coracle_model::EngineKind;

/// A builder and a runtime that understand each other's artifacts.
#[derive(Clone)]
pub struct Engine {
    /// Which engine this is.
    pub kind: EngineKind,
    /// Makes artifacts.
    pub builder: Arc<dyn Builder>,
    /// Runs them.
    pub runtime: Arc<dyn Runtime>,
}

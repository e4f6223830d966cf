//! Deployments, reconcilers and rollback over the engine traits and the proxy's seam.
//!
//! Two things act on instances, and never on the same ones: a [`rollout`] owns the instances of the release it brings up
//! until the switch, and the [`reconcile`] loop keeps those of the active release as desired. What is wanted is in the
//! store; what is there is asked of the engines; nothing else is believed after a restart.
//!
//! This crate names no concrete engine, and of HTTP it knows no more than a health probe needs.

mod approval;
mod candidate;
mod core;
mod error;
mod figures;
mod guests;
pub mod incumbent;
mod instances;
mod kept_source;
mod labelled;
mod logs;
mod mounts;
mod one_off;
mod orchestrator;
mod probe;
pub mod progress;
mod promotion;
mod reconcile;
mod recovery;
mod remains;
mod retention;
mod rollout;
mod routes;
mod runs;
mod services;
mod table;
pub mod traffic;

pub use approval::{Approver, Verdict, Word};
pub use error::OrchestratorError;
pub use figures::Figures;
pub use incumbent::{Incumbent, Standby};
pub use kept_source::KeptSource;
pub use orchestrator::{AppStatus, DeployRequest, Deployed, HostOrchestrator, Planned, ServiceStatus, Settings};
pub use progress::{Event, LiveFacts, Progress};
pub use promotion::Promotion;
pub use routes::TlsOffer;
pub use runs::{RunLine, RunLog};
pub use services::StatefulChanges;
pub use table::{contested_with, labelled_table, reached_at};
pub use traffic::{Drained, Traffic, TrafficError};

//! The control plane, wired together: state, engines, the proxy, the orchestrator and the HTTP API.
//!
//! Takes no decision about deployments (that is the orchestrator's) and moves no request (that is the proxy's): when this
//! process is stopped, killed or replaced, every app goes on and is reached as before.

mod access;
pub mod api;
mod api_host;
mod compose;
mod connections;
mod context;
mod deployments;
pub mod discovery;
mod doctor;
mod engines;
mod farewell;
mod forges;
mod gate;
mod intake;
mod journal;
mod leftover;
mod live;
mod people;
mod previews;
mod problems;
mod proxy_process;
mod published;
mod reach;
mod server;
mod source;
mod ssh;
mod state_dir;
mod succession;
mod token;
pub mod unit;
mod waiting;
mod wire;

pub use api::openapi_json;
pub use coracle_labels as labels;
pub use doctor::examine_machine;
pub use engines::EngineChoice;
pub use intake::IntakeLimits;
pub use proxy_process::{AcmeOptions, ProxyError, ProxyOptions, stop_everything};
pub use server::{Parts, Server, ServerOptions, StartError};
pub use state_dir::StateDirError;

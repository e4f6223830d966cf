//! The orchestrator over a real store and the fake engine, whose instances really listen.
#![allow(clippy::unwrap_used, clippy::panic)]

mod approval;
mod crash;
mod healing;
mod pipeline;
mod policy;
mod properties;
mod secrets;
mod services_only;
mod stacks;
mod stories;
mod world;

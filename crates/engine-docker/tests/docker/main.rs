//! The docker engine against a real engine. Skipped, loudly, where none answers; under `CI=true` that is a failure.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod building;
mod conformance;
mod rig;
mod running;
mod secrets;
mod settings;

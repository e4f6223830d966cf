//! Runs the steps of a pipeline on an engine: their images, their services, what they are handed, what is known of them, and what
//! they leave. A server runs them before a release goes live, `coracle ci run` on a laptop: with the same code.
//!
//! [`Ground`] is what all steps of a run have in common, a [`Bench`] is where they are run: [`Bench::work_through`] all of a plan
//! in its order, [`Bench::verify`] one after the other.
//!
//! It decides nothing about releases, keeps no database and prints nothing: who passed before is asked of a [`Memory`], and what
//! happens is told as [`News`].

mod artifacts;
mod attempt;
mod bench;
mod beside;
mod escapes;
mod failure;
mod ground;
mod hiding;
mod known;
mod schedule;
mod shelf;
mod spares;
mod suitable;
pub mod tree;

pub use bench::Bench;
pub use failure::StepFailure;
pub use ground::{Ground, Memory, News, OfApp, Passed, Tell, Told};
pub use hiding::Hiding;
pub use shelf::{Parcel, Shelf};
pub use spares::Spares;
pub use suitable::unsuitable;

/// What the names of the instances of steps begin with.
pub const STEP: &str = "step.";
/// The name that what runs beside a step runs under.
pub const BESIDE_STEP: &str = "beside-step";

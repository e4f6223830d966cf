//! The `[pipeline]` section of `coracle.toml`: what is run with a new release before requests go to it.
//!
//! [`Pipeline::parse`] reads and checks it, [`Pipeline::plan`] says which steps a deployment runs and in which order,
//! [`Schedule`] which may start next, and [`Job::key`] when a step has nothing new to tell and need not run again.
//!
//! Nothing is run, read from a disk or waited for here: whoever runs steps hands in what they saw.

mod key;
mod known;
mod plan;
mod policy;
mod reading;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

pub use coracle_model::Pattern;
pub use key::{Digest, Inputs, Key, TreeFiles};
pub use plan::{Job, Plan, Trigger};
pub use policy::{Share, Watch};
pub use schedule::Schedule;
pub use step::{Pipeline, Service, Step, StepImage, StepName, WORKSPACE, When};

//! Confinement of processes by what the Linux kernel offers: cgroups of both versions, namespaces, a private view of the
//! file system, a user without privileges, resource limits.
//!
//! The crate carries out what it is told and reports what the kernel refuses; it has no policy, starts no program of its
//! own accord, and knows neither apps nor sandboxes. Everything but [`cgroup`] and [`support`] changes the calling process
//! and is meant for a small single-threaded program between its own start and the start of the program it confines; calls
//! that would be unsound in a threaded process refuse to work in one.

pub mod cgroup;
pub mod confinement;
pub mod file_system;
pub mod namespaces;
pub mod process;
pub mod root;
pub mod support;
pub mod user_namespace;

pub use cgroup::{Group, GroupLimits, Hierarchy};
pub use confinement::{Confinement, Rlimits, User};
pub use file_system::{FileSystem, Show};
pub use namespaces::{Namespace, Namespaces};
pub use root::{Root, Scratch};
pub use support::Support;
pub use user_namespace::Standing;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct JailError {
    /// What was being done: `mount a private /tmp`.
    pub step: String,
    /// The kernel's answer.
    pub source: std::io::Error,
}

/// Names the step that an answer of the kernel belongs to.
pub(crate) trait Step<T> {
    /// Turns an error into a [`JailError`] of the step.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, JailError>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, JailError> {
        self.map_err(|error| JailError { step: step(), source: error.into() })
    }
}

//! The door that git and Coracle's own client come in by over SSH: people are known by their public keys, `git push`, `git fetch` and
//! the API are served, and nothing else is: no shell, no other command, no files, no forwarding.
//!
//! It knows SSH and how these two ask over it. Who somebody is and what may be done is the [`Doorkeeper`]'s to say; repositories and
//! pushes are [`coracle_git_door`]'s, which HTTP leads to as well.

mod crowd;
mod deploy_key;
mod guest;
mod host_key;
mod key;
mod listener;
mod request;
mod talk;
mod visit;

pub use deploy_key::DeployKey;
pub use guest::{Doorkeeper, Guest, Refusal, Wire};
pub use host_key::HostKey;
pub use key::{KeyError, PublicKey};
pub use listener::Listening;

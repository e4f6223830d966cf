//! The door that git comes in by: a bare repository per app, its smart-HTTP services, and the gate between a push and its ref.
//!
//! It knows repositories and pushes, and neither deployments nor HTTP: whoever holds it decides at the gate. Git's own
//! programs read and write repositories, as children with bounded memory, an environment of ours alone and no shell; nothing
//! that was pushed (hooks, configuration, attributes, names) makes them run anything.
//!
//! The gate is git's `proc-receive` hook (githooks(5)): when it runs, objects are stored and no ref has moved. The hook is
//! Coracle's own program, named by `core.hooksPath` from the environment; it says yes or no to each branch, with a reason, and git
//! moves the ref. Tags never come to the gate. `pre-receive` runs before the objects are stored, and sees to it that pushes of the same
//! commits are not in each other's way ([`hook::unmark`]).
//!
//! It can also go and fetch a branch from elsewhere, into refs that are not seen from outside.

mod door;
pub mod errand;
mod exchange;
mod fetch;
mod git;
pub mod hook;
mod object_id;
mod pkt_line;
mod push;
mod repository;

pub use door::{Door, DoorError};
pub use exchange::{Answer, Service};
pub use fetch::{Means, Origin, host_keys};
pub use object_id::ObjectId;
pub use push::{Push, Ticket};
pub use repository::{Archive, Intent, Repository};

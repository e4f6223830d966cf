//! PyRunner: executes untrusted Python over HTTP, each program in a sandbox of its own that is used once.
//!
//! Three processes: the **supervisor** ([`supervisor`]) binds the port and starts the other two again when they end; the
//! **sandbox daemon** (crate `coracle-sandbox`) is privileged and reads nothing of what users send but lengths; the **API**
//! ([`server`]) is not privileged, and everything that comes from outside is read there.
//!
//! The crate knows who sent a program, whose turn it is and what is told about it. How a program is confined is the sandbox's
//! affair, and how history is kept the store's.

mod answer;
mod api;
mod body;
mod callback;
mod caller;
mod context;
mod execution;
mod head;
mod history;
mod jobs;
mod keys;
mod metrics;
mod object;
mod peers;
pub mod place;
mod policy;
pub mod problem;
mod program;
mod queue;
mod rate;
pub mod server;
pub mod settings;
mod site;
pub mod supervisor;
mod text;
mod web;

#[doc(hidden)]
pub use api::understood;
pub use history::HistoryMode;
pub use queue::QueueLimits;

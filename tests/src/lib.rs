//! The harness of the whole-system stories. It stands where a user stands: outside, with the `coracle` binary, a browser
//! and a load of impatient customers. It never reaches into a server's insides.
//!
//! It panics rather than answering errors where a story reads better so; it is for tests, the demonstration and the
//! benchmarks, never for the product.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

pub mod app;
pub mod belongings;
pub mod browser;
pub mod deploying;
pub mod engine;
pub mod env;
pub mod forge;
pub mod git;
pub mod load;
pub mod memory;
pub mod program;
pub mod proxy;
pub mod registry;
pub mod schema;
pub mod ssh;
pub mod sshd;
pub mod tree;
pub mod websocket;
pub mod yaml;

pub use app::App;
pub use deploying::{Deployed, Deploying};
pub use env::{Env, Settings, eventually};
pub use load::{Load, Report, RunningLoad};
pub use program::Ran;
pub use proxy::Proxy;
pub use tree::Breakage;

//! The harness of the whole-system stories. It stands where a user stands: outside, with the `coracle` binary, a browser
//! and a load of impatient customers. It never reaches into a server's insides.
//!
//! It panics rather than answering errors where a story reads better so; it is for tests, the demonstration and the
//! benchmarks, never for the product.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

pub mod browser;
pub mod load;
pub mod websocket;

//! What tests stand on that several crates have: clients of TLS that look or trust, the test authority `pebble` with its name
//! server, and chance that can be repeated.
//!
//! For tests alone: whatever goes wrong here is a panic, and nothing of it is part of the program.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, reason = "tests fail by panics")]

pub mod chance;
pub mod clients;
pub mod pebble;

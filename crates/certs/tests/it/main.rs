//! Certificates as clients meet them: over real handshakes, from real files, ordered from a real authority.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, unreachable_pub)]

mod acme;
mod given;
mod local;
mod preflight;
mod support;
mod trouble;

//! Certificates as clients meet them: over real handshakes, from real files, ordered from a real authority.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod given;
mod local;
mod support;

//! The server over its real API: a Unix socket (and TCP), the real store, the real orchestrator; instances are the fake
//! engine's, and nobody moves requests.

#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod compose;
mod configuration;
mod deployments;
mod document;
mod harness;
mod hostile;
mod output;
mod roles;
mod stopping;

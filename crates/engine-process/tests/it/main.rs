//! The engine with real processes: what it promises, as root and without root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bench;
mod builds;
mod confinement;
mod conformance;
mod lifetime;
mod ordinary_user;
mod output;
mod sites;

//! The store as its users see it, over real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod approvals;
mod concurrency;
mod config;
mod crash;
mod deployments;
mod forges;
mod harness;
mod opening;
mod people;
mod previews;
mod registries;
mod releases;
mod runs;
mod services;
mod steps;

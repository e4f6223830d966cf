//! The store as its users see it, over real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod concurrency;
mod config;
mod crash;
mod deployments;
mod harness;
mod opening;
mod people;
mod releases;
mod services;
mod steps;

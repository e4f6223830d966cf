//! The store on both databases: each test is run on SQLite and on a PostgreSQL of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod crash;
mod history;
mod home;
mod idempotency;
mod jobs;
mod keys;
mod opening;
mod outages;
mod postgres;
mod recorder;
mod retention;

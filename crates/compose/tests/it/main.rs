//! The loader as a program that uses it sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod bodies;
mod loading;
mod merging;
mod mutation;
mod projects;
mod resolving;

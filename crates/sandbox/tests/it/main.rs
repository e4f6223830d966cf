//! Sandboxes with real programs in them, seen from the machine: what a program says about its own cage is not believed where
//! the machine can be asked.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod abuse;
mod attacks;
mod basics;
mod cases;
mod endurance;
mod files;
mod frames;
mod host;
mod images;
mod kernel;
mod library;
mod lifetime;
mod stdlib;
mod ways;

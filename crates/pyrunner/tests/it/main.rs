//! The whole server over real HTTP, with real programs in real sandboxes.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod access;
mod bodies;
mod browser;
mod command_line;
mod connections;
mod description;
mod executing;
mod history;
mod host;
mod hostile;
mod jobs;
mod measuring;
mod page;
mod piston;
mod processes;
mod reference;
mod refusing;
mod repeating;
mod sites;
mod snekbox;
mod starting;
mod streaming;
mod webdriver;

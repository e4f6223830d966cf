//! What labels come to: in Traefik's words, and in those of a table.

#![allow(clippy::unwrap_used, clippy::panic)]

mod conflicts;
mod middlewares;
mod ports;
mod robustness;
mod routers;
mod sketch;
mod stack;
mod table;
mod templates;

//! The proxy from outside: real sockets on both sides, byte for byte where bytes matter.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backend;
mod drain;
mod env;
mod forward;
mod handover;
mod hold;
mod load;
mod log;
mod pool;
mod routes;
mod smuggling;
mod upgrade;

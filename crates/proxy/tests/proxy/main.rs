//! The proxy from outside: real sockets on both sides, byte for byte where bytes matter.

#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(unreachable_pub, reason = "one program: `pub` here means to the other files of it")]

mod admin;
mod backend;
mod balance;
mod chaos;
mod clients;
mod drain;
mod endless;
mod env;
mod forward;
mod h2;
mod h2_tools;
mod h2_upstream;
mod h2_websocket;
mod handover;
mod hold;
mod load;
mod log;
mod middlewares;
mod middlewares_answers;
mod middlewares_limits;
mod pages;
mod pool;
mod processes;
mod reuse;
mod routes;
mod smuggling;
mod tls;
mod upgrade;

//! Rules and routers, as the proxy uses them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cases;
mod errors;
mod indexing;
mod language;
mod properties;
mod request;

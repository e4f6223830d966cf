//! The data plane: takes connections, finds the service that answers, and forwards requests without losing one, whatever
//! happens around them: tables are swapped, targets are drained, the proxy itself is replaced.
//!
//! It is told its whole routing table as one snapshot over a Unix socket ([`control`]), keeps the last one on disk, and
//! hands its listening sockets to its successor. It knows no apps, releases or containers, and starts nothing; it asks
//! targets for their `health` only where the table says so.
//!
//! One request, told by modules: `listener` accepts and a `worker` gets the connection, which may begin with a handshake
//! (`tls`); `connection` reads it (`h1`, by way of `wire`); `exchange` asks `plane` where the request goes (`router`, `route`,
//! `service`, `balance`, `hold`), which counts it in flight on a `target`, takes a connection to it (`pool`, `upstream`), and
//! passes bytes on both ways; a route's middlewares (`chains`) see the request before a target is chosen, and the answer before
//! it is sent; `account` writes down what it came to (`metrics`, `access_log`). What becomes a WebSocket ends in `tunnel`.
//! Clients and targets that speak HTTP/2 are met in `h2`, on either side of the same exchange.
//!
//! Nothing on that way waits for another thread: a connection and what it needs belong to one worker. A request on a kept
//! connection costs four system calls, and no allocation that grows with it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod access_log;
mod account;
mod balance;
mod buffer;
mod chains;
mod connection;
pub mod control;
mod date;
mod deadline;
mod dial;
mod drain;
mod exchange;
mod exposition;
mod fetch;
mod h1;
mod h2;
mod handover;
mod heads;
mod health;
mod hold;
mod https;
mod life;
mod listener;
mod metrics;
mod options;
mod plane;
mod pool;
pub mod program_pages;
mod proxy;
mod refusal;
mod request_id;
mod route;
mod router;
mod scrape;
mod service;
mod side;
mod source;
mod standing;
mod stream;
mod table_file;
mod target;
mod tls;
mod tunnel;
mod upstream;
mod wire;
mod worker;

pub use coracle_certs as certs;
pub use coracle_proxy_http::EncodedCharacters;
pub use coracle_proxy_table as table;
pub use options::{AccessLog, Limits, ListenerOptions, ProxyOptions, Trust};
pub use proxy::{Proxy, StartError, check, run, run_with};
pub use router::BadTable;
pub use source::{ApplyError, Changes, Source};

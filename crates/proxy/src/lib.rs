//! The data plane: takes connections, finds the service that answers, and forwards requests without losing one, whatever
//! happens around them: tables are swapped, targets are drained, the proxy itself is replaced.
//!
//! It is told its whole routing table as one snapshot over a Unix socket ([`control`]), keeps the last one on disk, and
//! hands its listening sockets to its successor. It knows no apps, releases or containers, probes nobody's health and
//! starts nothing.
//!
//! One request, told by modules: `listener` accepts, `connection` reads and times the client, `forward` asks `plane` where
//! it goes (`router`, `service`, `hold`), `target` counts it in flight and `pool` connects, `hop` and `forwarded` put the
//! headers right, `body` streams the answer, `access_log` writes the line.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod access_log;
mod body;
mod connection;
pub mod control;
mod drain;
mod forward;
mod forwarded;
mod handover;
mod hold;
mod hop;
mod listener;
mod options;
mod plane;
mod pool;
mod proxy;
mod refusal;
mod router;
mod service;
mod table_file;
mod target;
mod upgrade;

pub use coracle_proxy_table as table;
pub use options::{AccessLog, Limits, ProxyOptions};
pub use proxy::{Proxy, StartError, run};

//! How a control plane talks to the proxy: HTTP/1.1 over a Unix socket that only its owner can open.
//!
//! | request | does |
//! |---|---|
//! | `PUT /v1/table` | replaces the whole table; answered when every later request goes by it |
//! | `GET /v1/table` | the table that is served by |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/routes` | [`RouteStatus`] of each route, in the order in which they are asked |
//! | `GET /v1/targets` | [`TargetStatus`] of each target |
//! | `GET /v1/figures?service=NAME` | [`Figures`] of the routes that lead there |
//! | `GET /v1/certificates` | [`CertificateStatus`](coracle_certs::CertificateStatus) of each certificate |
//! | `POST /v1/certificates/renew?name=NAME` | tries at once to get a certificate, however long the next attempt was to wait |
//! | `GET /v1/certificates/authority` | the local authority's certificate, as PEM, for clients to trust |
//! | `GET /metrics` | what is counted, as Prometheus reads it |
//! | `POST /v1/drain` | [`DrainRequest`] → [`Drained`], when the targets are drained |
//! | `POST /v1/stop` | stops accepting, drains, exits |
//! | `POST /v1/handover` | a successor asks for the listening sockets; not for anybody else |
//! | `PUT /v1/follow` | a successor tells its table to the one before it; not for anybody else |

use std::net::SocketAddr;

use coracle_proxy_table::{ServiceId, TargetId};
use serde::{Deserialize, Serialize};

mod admin;
mod client;
pub(crate) mod predecessors;
pub(crate) mod server;

pub use admin::{Figures, ListenerStatus, MiddlewareStatus, RouteStatus, ServiceStatus, ServiceTarget};
pub use client::Client;

/// Counts up when the control protocol or the hand-over changes.
pub const PROTOCOL: u32 = 2;

/// How the proxy stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Of the table that is served by; 0 before the first one.
    pub generation: u64,
    /// Where it listens.
    pub http: Vec<SocketAddr>,
    /// The same with what is known about each.
    #[serde(default)]
    pub listeners: Vec<ListenerStatus>,
    /// What its options come to; see [`ProxyOptions::digest`](crate::ProxyOptions::digest).
    #[serde(default)]
    pub settings: String,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// Targets in the table and those that still have something in flight.
    pub targets: Vec<TargetStatus>,
    /// Services that requests wait for.
    pub waiting: Vec<Waiting>,
    /// Predecessors that still serve their last connections.
    pub predecessors: usize,
    /// Why the table that is served by could not be kept on disk; nothing if it was. A proxy that is started alone would serve
    /// by the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unkept: Option<String>,
}

/// What is in flight on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The target.
    pub id: TargetId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests, until the last byte of their answer.
    pub in_flight: usize,
    /// WebSockets and the like.
    pub upgraded: usize,
    /// Whether it gets requests.
    #[serde(default)]
    pub state: TargetState,
}

/// Whether a target gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// It does.
    #[default]
    Up,
    /// None: its health checks fail.
    Down,
    /// None for a while: it failed too many in a row.
    Ejected,
    /// Few as yet: its share grows.
    Starting,
}

/// How many requests wait for a service that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The service.
    pub service: ServiceId,
    /// Requests.
    pub count: usize,
}

/// Which targets to drain and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// They should no longer be in the table, or their service should be held. One that an open service has is left alone: a
    /// later table has brought it back.
    pub targets: Vec<TargetId>,
    /// Milliseconds; then what is left is ended.
    pub deadline_ms: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Requests that were cut off at the deadline.
    pub cut_off: usize,
}

/// What is answered in case of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) error: String,
}

/// Why the proxy did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens on the control socket.
    #[error("the proxy does not answer on {socket}: {source}", socket = socket.display())]
    Unreachable {
        /// The control socket.
        socket: std::path::PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// No answer within the call's deadline. What was asked for may have happened.
    #[error("the proxy did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// It refused; nothing changed.
    #[error("the proxy refused ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        message: String,
    },
    /// The connection broke, or what came over it was not understood. What was asked for may have happened.
    #[error("talking to the proxy: {0}")]
    Protocol(String),
}

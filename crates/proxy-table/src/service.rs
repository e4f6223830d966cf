//! Who answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::is_default;

/// Identifies a service within a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub String);

/// Identifies a target across tables: a target with the same id and address keeps its connections and its count of
/// requests in flight when the table around it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetId(pub String);

/// Who answers, how the requests are shared out, and whether they may come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Whether requests are let through.
    #[serde(default)]
    pub admission: Admission,
    /// Only targets that may get requests now.
    pub targets: Vec<Target>,
    /// How a target is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// A cookie that leads a client back to the target it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What the targets speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Targets are asked for their health, and those that do not answer well get no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Targets that fail requests get none for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Milliseconds over which a new target's share grows from little to all; 0 for at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub slow_start_ms: u64,
    /// Milliseconds from the last byte of a request to the headers of its answer; then 504. Without one, the proxy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout_ms: Option<u64>,
}

impl Service {
    /// An open service with these targets, and usual values for everything else.
    pub fn new(admission: Admission, targets: Vec<Target>) -> Self {
        Self {
            admission,
            targets,
            balance: Balance::default(),
            sticky: None,
            protocol: Protocol::default(),
            health: None,
            ejection: None,
            slow_start_ms: 0,
            response_timeout_ms: None,
        }
    }
}

/// How a target is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn, as often as their weights say.
    #[default]
    RoundRobin,
    /// Of two by chance (by weight), the one with fewer requests in flight.
    LeastLoaded,
}

/// A cookie that leads a client back to the target it had, for as long as that target gets requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// Only over TLS.
    #[serde(default)]
    pub secure: bool,
    /// Not for scripts.
    #[serde(default)]
    pub http_only: bool,
    /// `lax`, `strict` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// Seconds; without one it lasts as long as the browser's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
}

/// A cookie's `SameSite` attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SameSite {
    /// `Lax`.
    Lax,
    /// `Strict`.
    Strict,
    /// `None`.
    None,
}

/// What targets speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, known in advance: what gRPC servers speak.
    H2c,
}

/// Asks each target for its health, as long as its service is open. Two failures in a row take a target out, two good answers
/// in a row bring it back; it begins healthy. Targets that speak HTTP/2 are asked for a connection only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    /// Milliseconds between two checks.
    #[serde(default = "ten_seconds")]
    pub interval_ms: u64,
    /// Milliseconds for an answer.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    /// The status that is good; without one, any from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The `Host` that is asked for; without one, the target's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Takes targets out that fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ejection {
    /// So many failures in a row (no connection, no proper answer, or a status of 502, 503 or 504).
    pub failures: u32,
    /// Milliseconds for the first time; doubled each time after, up to ten times as long. Never more than half of the targets.
    pub for_ms: u64,
}

/// What happens to a request that matches a service's route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Admission {
    /// It goes to a target. Without any target: 503 with `Retry-After`.
    #[default]
    Open,
    /// It waits until a later table opens the service, at most this long (then 504), and at most so many at once (then 503).
    Hold {
        /// Milliseconds, counted from the request's arrival.
        deadline_ms: u64,
        /// How many requests may wait.
        max_waiting: usize,
    },
    /// 503 at once.
    Closed {
        /// Shown to the client as plain text.
        message: String,
        /// Seconds, for `Retry-After`.
        retry_after_s: u64,
    },
}

/// One address that answers for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its identity across tables.
    pub id: TargetId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests, beside the others'; 0 for none but those its cookie leads there.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

impl Target {
    /// A target with a usual share.
    pub fn new(id: impl Into<String>, address: SocketAddr) -> Self {
        Self { id: TargetId(id.into()), address, weight: 1 }
    }
}

fn one() -> u32 {
    1
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

fn ten_seconds() -> u64 {
    10_000
}

fn five_seconds() -> u64 {
    5_000
}

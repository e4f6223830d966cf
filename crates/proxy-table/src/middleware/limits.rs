//! Middlewares that keep a service from being asked too much.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// How a client's address is found in `X-Forwarded-For`. With a `depth`, `excluded_ips` do not count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpStrategy {
    /// The so-manieth address from the right; 0 for none of them, but the one the proxy sees. With fewer addresses there is
    /// none, and lists let nobody in.
    #[serde(skip_serializing_if = "is_default")]
    pub depth: usize,
    /// Addresses and networks of other proxies: the first from the right that is none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_ips: Vec<String>,
    /// Takes IPv6 addresses by so many leading bits, 1 to 128, as one: a household has a network of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_subnet: Option<u8>,
}

/// What makes two requests come from one source. At most one of the three; none for the middleware's usual.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceCriterion {
    /// The client's address, found like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategy>,
    /// This request header's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_name: Option<String>,
    /// The host asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub request_host: bool,
}

/// So many requests in a time, for each source; more get 429 with `Retry-After`. A token bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per period; 0 for no limit.
    pub average: u64,
    /// Milliseconds; 1000 if left out.
    pub period_ms: u64,
    /// How many may come at the same time; 1 if left out.
    pub burst: u64,
    /// What a source is; the client's address if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterion>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { average: 0, period_ms: 1000, burst: 1, source_criterion: None }
    }
}

/// So many requests at once, for each source; more get 429.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFlightLimit {
    /// Requests at once; at least 1.
    pub amount: u64,
    /// What a source is; the host asked for if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterion>,
}

/// Refuses request bodies that are larger, with 413: at once if the request says its length, else when the bytes are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyLimit {
    /// Bytes.
    pub max_bytes: u64,
}

/// Asks once more when a target could not be reached, or closed the connection before a byte of its answer. Only requests
/// that are safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often a request is sent at most, the first time counted; at least 1.
    pub attempts: u32,
    /// Milliseconds before the second time, doubled for each one after; 0 for at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_interval_ms: u64,
}

/// Stops asking a service that fails: while it is open, everybody is answered at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreaker {
    /// When it opens, over about the last ten seconds: `NetworkErrorRatio() > 0.30`,
    /// `ResponseCodeRatio(500, 600, 0, 600) > 0.25`, `LatencyAtQuantileMS(50.0) > 100`, joined by `&&`, `||`, `!` and
    /// parentheses.
    pub expression: String,
    /// Milliseconds between two looks at the expression.
    #[serde(default = "check_period")]
    pub check_period_ms: u64,
    /// Milliseconds for which it stays open.
    #[serde(default = "ten_seconds")]
    pub fallback_duration_ms: u64,
    /// Milliseconds over which the share of requests let through grows from none to all, afterwards.
    #[serde(default = "ten_seconds")]
    pub recovery_duration_ms: u64,
    /// The status while it is open.
    #[serde(default = "unavailable")]
    pub response_code: u16,
}

impl CircuitBreaker {
    /// One with the usual times.
    pub fn new(expression: impl Into<String>) -> Self {
        Self {
            expression: expression.into(),
            check_period_ms: check_period(),
            fallback_duration_ms: ten_seconds(),
            recovery_duration_ms: ten_seconds(),
            response_code: unavailable(),
        }
    }
}

fn check_period() -> u64 {
    100
}

fn ten_seconds() -> u64 {
    10_000
}

fn unavailable() -> u16 {
    503
}

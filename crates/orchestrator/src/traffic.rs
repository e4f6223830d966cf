//! The seam to the data plane: the orchestrator decides who gets requests, the proxy carries it out.

use std::time::Duration;

use async_trait::async_trait;
use coracle_proxy_table::{Table, TargetId};

use crate::figures::Figures;

/// Moves requests.
#[async_trait]
pub trait Traffic: Send + Sync {
    /// Replaces the whole table. When it returns `Ok`, every request that arrives from now on is answered by this table.
    async fn publish(&self, table: Table) -> Result<(), TrafficError>;

    /// The table that requests are answered by now: that of an earlier life of this server, if none was published yet.
    async fn current(&self) -> Result<Table, TrafficError>;

    /// Waits until these targets, which are no longer in the table, answer no plain request any more, or until the
    /// deadline; then whatever is left on them is ended (504 for requests that had no answer yet). Upgraded connections
    /// (WebSockets) do not hold it up: they are closed when the plain requests are through.
    async fn drain(&self, targets: &[TargetId], deadline: Duration) -> Result<Drained, TrafficError>;

    /// What was counted of the requests to an app, of whatever release, since the proxy began: those to the service of this name
    /// and the ones below it. `None` where nobody counts.
    async fn figures(&self, _service: &str) -> Result<Option<Figures>, TrafficError> {
        Ok(None)
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were cut off at the deadline.
    pub cut_off: usize,
}

/// The proxy does not answer, or refuses the table.
#[derive(Debug, thiserror::Error)]
#[error("the proxy did not take the routing table: {0}")]
pub struct TrafficError(pub String);

//! Remembers the table that was last published, so that it can be shown without asking the proxy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_orchestrator::{Drained, Traffic, TrafficError};
use coracle_proxy_table::{Table, TargetId};

/// Passes everything on to the proxy and keeps the table it has taken.
pub(crate) struct Published {
    proxy: Arc<dyn Traffic>,
    table: Mutex<Arc<Table>>,
}

impl Published {
    pub(crate) fn over(proxy: Arc<dyn Traffic>) -> Self {
        Self { proxy, table: Mutex::default() }
    }

    /// The table that the proxy took last; empty before the first.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Traffic for Published {
    async fn publish(&self, table: Table) -> Result<(), TrafficError> {
        let kept = Arc::new(table.clone());
        self.proxy.publish(table).await?;
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(())
    }

    async fn current(&self) -> Result<Table, TrafficError> {
        self.proxy.current().await
    }

    async fn drain(&self, targets: &[TargetId], deadline: Duration) -> Result<Drained, TrafficError> {
        self.proxy.drain(targets, deadline).await
    }
}

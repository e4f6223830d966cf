//! Adds the server's own host to every table, and remembers the one that was last published, so that it can be shown without asking
//! the proxy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_orchestrator::{Drained, Figures, Traffic, TrafficError};
use coracle_proxy_table::{Table, TargetId};

use crate::api_host::ApiHost;

/// Passes everything on to the proxy and keeps the table it has taken.
pub(crate) struct Published {
    proxy: Arc<dyn Traffic>,
    own: Option<ApiHost>,
    table: Mutex<Arc<Table>>,
}

impl Published {
    pub(crate) fn over(proxy: Arc<dyn Traffic>, own: Option<ApiHost>) -> Self {
        Self { proxy, own, table: Mutex::default() }
    }

    /// The table that the proxy took last; empty before the first.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Traffic for Published {
    async fn publish(&self, mut table: Table) -> Result<(), TrafficError> {
        if let Some(own) = &self.own {
            own.join(&mut table);
        }
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

    async fn figures(&self, service: &str) -> Result<Option<Figures>, TrafficError> {
        self.proxy.figures(service).await
    }
}

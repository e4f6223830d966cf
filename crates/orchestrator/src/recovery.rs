//! After a start: what a server that died left half-done is undone or completed, and the routing table is made anew.

use coracle_engine::InstanceState;
use coracle_model::deployment::Recovery;
use coracle_model::{Deployment, Outcome};

use crate::core::Core;
use crate::error::OrchestratorError;

impl Core {
    /// Settles interrupted deployments and publishes the table.
    pub(crate) async fn recover(&self) -> Result<(), OrchestratorError> {
        let unfinished = self.store.unfinished_deployments().await?;
        self.adopt_running_instances().await;
        // Requests first: whatever the proxy serves by, it learns what is active before anything is removed.
        if let Err(error) = self.publish().await {
            tracing::warn!(%error, "the proxy could not be told the table yet");
        }
        for deployment in &unfinished {
            tracing::warn!(deployment = %deployment.id, app = %deployment.app, phase = %deployment.phase, "was interrupted");
            if let Err(error) = self.settle(deployment).await {
                // Its engine may be down. The app serves; the next deployment of it settles this one first.
                tracing::warn!(deployment = %deployment.id, %error, "cannot be settled yet");
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Ends a deployment that nobody works on any more. What has to be stopped of the old release after a completed
    /// switch is an orphan from now on, and the reconcile loop drains and removes it.
    pub(crate) async fn settle(&self, deployment: &Deployment) -> Result<(), OrchestratorError> {
        let completed = match deployment.phase.recovery() {
            Recovery::Undo => {
                // It may have been exposed, if it was killed while a switch was being taken back.
                self.discard_release(&deployment.app, deployment.to, true).await?;
                let releases = self.store.releases(&deployment.app).await?;
                self.prune_artifacts(&deployment.app, &releases.iter().collect::<Vec<_>>()).await;
                false
            }
            Recovery::Complete => {
                let record = self.store.app(&deployment.app).await?;
                self.prune(&record).await?;
                true
            }
        };
        let outcome = Outcome::Interrupted { phase: deployment.phase, completed };
        self.store.finish_deployment(deployment.id, &outcome).await?;
        Ok(())
    }

    /// Takes running instances of active releases for ready, as the proxy did until now. Probing them first would take
    /// busy ones out of the table for no reason; the reconcile loop notices the ones that are not there.
    async fn adopt_running_instances(&self) {
        let (instances, _) = self.all_instances().await;
        self.change(|registry| {
            for (_, instance) in instances.into_iter().filter(|(_, instance)| instance.id.process.is_web()) {
                if let InstanceState::Running { address: Some(address), .. } = instance.state {
                    registry.ready.insert(instance.id, address);
                }
            }
        });
    }
}

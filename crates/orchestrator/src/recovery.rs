//! After a start: what a server that died left half-done is undone or completed, and the routing table is made anew.

use coracle_engine::{Instance, InstanceState};
use coracle_model::deployment::Recovery;
use coracle_model::{Deployment, EngineKind, Outcome};
use coracle_proxy_table::Table;

use crate::core::{Core, Registry};
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
                self.prune_artifacts(&deployment.app).await?;
                false
            }
            Recovery::Complete => {
                self.mounts.remove_workspaces(&deployment.app, deployment.to);
                let record = self.store.app(&deployment.app).await?;
                if let Some(from) = deployment.from.filter(|from| record.active != Some(*from)) {
                    self.retire_later(&deployment.app, from);
                }
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
    ///
    /// An engine that does not answer now may have instances that serve all the same (Docker under live-restore): what the
    /// proxy does with their apps stands until the engine answers.
    async fn adopt_running_instances(&self) {
        let (instances, silent) = self.all_instances().await;
        let inherited = match silent.is_empty() {
            true => Table::default(),
            false => self.traffic.current().await.unwrap_or_default(),
        };
        self.change(|registry| {
            registry.unseen = silent.into_iter().collect();
            registry.inherited = inherited;
            instances.iter().for_each(|(_, instance)| adopt(registry, instance));
        });
    }

    /// Takes up what runs on engines that did not answer when this server started and do now; whether there are any.
    pub(crate) fn adopt_late(&self, instances: &[(EngineKind, Instance)], silent: &[EngineKind]) -> bool {
        let mut registry = self.registry();
        let late: Vec<EngineKind> = registry.unseen.iter().copied().filter(|kind| !silent.contains(kind)).collect();
        instances.iter().filter(|(kind, _)| late.contains(kind)).for_each(|(_, instance)| adopt(&mut registry, instance));
        registry.unseen.retain(|kind| !late.contains(kind));
        !late.is_empty()
    }
}

/// Takes a running instance that listens for requests for ready.
fn adopt(registry: &mut Registry, instance: &Instance) {
    if let InstanceState::Running { address: Some(address), .. } = instance.state {
        registry.ready.insert(instance.id.clone(), address);
    }
}

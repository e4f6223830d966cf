//! The way back: from any point before the switch, and from a switch that turned out badly.

use coracle_model::{DeploymentKind, InstanceId};
use coracle_store::StoreError;

use super::{Candidacy, Failure, Rollout};
use crate::core::Core;
use crate::error::OrchestratorError;

impl Rollout<'_> {
    /// Takes the switch back: the old release is the active one again, first in the store, then in the proxy.
    pub(super) async fn take_back(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        {
            let lock = self.core.app_lock(&candidacy.release.app);
            let _not_while_reconciling = lock.lock().await;
            let undo = std::mem::take(&mut *self.config_undo.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            self.core.store.revert(self.deployment.id, &undo).await?;
            self.hold_for_return_of_incumbent(candidacy);
        }
        if let Err(error) = self.core.publish().await {
            // The proxy is not there. Its supervisor publishes again when it is, and by then the store says the right thing.
            tracing::warn!(%error, "the proxy could not be told that a switch was taken back");
        }
        // What the failed one has answered is no measure for what comes next; from here on it is the old one again.
        self.core.last_switch(&candidacy.release.app, self.count().await);
        Ok(())
    }

    /// Removes what this deployment made and lets the old release be whole again. Goes as far as it can: what is left
    /// belongs to no release any more, and the reconcile loop removes it.
    pub(super) async fn undo(&self) {
        if self.is_aside {
            // Others may be changing the app: only what belongs to this one goes, and what it was built into with the next.
            if let Err(error) = self.core.discard_release(&self.deployment.app, self.deployment.to, false).await {
                tracing::warn!(deployment = %self.deployment.id, %error, "what waited is not gone yet");
                self.core.retire_later(&self.deployment.app, self.deployment.to);
            }
            return;
        }
        self.change_live(|live| live.discarded = true);
        {
            // A pass of the reconcile loop that has not heard of it yet may still start a service in the network that goes.
            let lock = self.core.app_lock(&self.deployment.app);
            let _after_its_current_pass = lock.lock().await;
        }
        self.end_copying().await;
        if let Err(error) = self.try_undo().await {
            tracing::warn!(deployment = %self.deployment.id, %error, "undone only in part; the rest follows");
            self.core.retire_later(&self.deployment.app, self.deployment.to);
        }
        self.give_back().await;
        self.let_old_release_heal().await;
    }

    async fn try_undo(&self) -> Result<(), OrchestratorError> {
        let drain = self.was_exposed();
        if self.hold_requests_for_return().await.is_err() {
            // Going back matters more than that nobody notices.
            tracing::warn!(deployment = %self.deployment.id, "services are taken back while requests come");
        }
        self.core.discard_release(&self.deployment.app, self.deployment.to, drain).await?;
        if matches!(self.deployment.kind, DeploymentKind::Deploy | DeploymentKind::Config) {
            self.core.prune_artifacts(&self.deployment.app).await?;
        }
        Ok(())
    }

    /// What the rollout had stopped of the old release is started again by the reconcile loop; requests that wait, wait
    /// for that.
    async fn let_old_release_heal(&self) {
        let app = &self.deployment.app;
        let (held, suspended) =
            self.core.registry().live.get(app).map_or((false, false), |live| (live.hold.is_some(), !live.suspended.is_empty()));
        let changing = self.core.registry().live.get(app).is_some_and(|live| !live.changing.is_empty());
        if let Some(from) = self.deployment.from.filter(|_| changing) {
            self.core.restore_services(app, &[from]).await;
        }
        self.change_live(|live| {
            live.suspended.clear();
            live.changing.clear();
        });
        self.core.wake.notify_one();
        if held {
            let Ok(Some(old)) = self.old_release().await else { return };
            let serving: Vec<_> = old.serving().into_iter().filter(|name| !old.spec.services.contains_key(name)).collect();
            let of_old = |id: &InstanceId| id.app == *app && id.release == old.number && serving.contains(&id.process);
            let limit = old.spec.deploy.timeout.duration();
            let ready = self.core.until(|registry| serving.is_empty() || registry.ready.keys().any(of_old));
            if tokio::time::timeout(limit, ready).await.is_err() {
                tracing::error!(%app, "the old release did not become healthy again");
            }
            self.change_live(|live| live.hold = None);
        }
        if (held || suspended || self.was_exposed())
            && let Err(error) = self.core.publish().await
        {
            tracing::warn!(%error, "the proxy could not be told that a deployment was undone");
        }
    }

    pub(super) async fn old_release(&self) -> Result<Option<coracle_model::Release>, OrchestratorError> {
        match self.deployment.from {
            Some(number) => Ok(Some(self.core.store.release(&self.deployment.app, number).await?)),
            None => Ok(None),
        }
    }
}

impl Core {
    /// Removes a release that never became active for good: its instances, what it owned, its record. Refuses to touch
    /// the active one: a switch that could not be taken back stands.
    pub(crate) async fn discard_release(
        &self,
        app: &coracle_model::AppName,
        number: coracle_model::ReleaseNumber,
        drain: bool,
    ) -> Result<(), OrchestratorError> {
        if self.store.app(app).await?.active == Some(number) {
            return Err(StoreError::Active(app.clone(), number).into());
        }
        self.take_back_services(app, number).await?;
        for engine in self.engines.values() {
            let instances = match self.instances_of(engine, app, number).await {
                Ok(instances) => instances,
                Err(error) => {
                    tracing::warn!(engine = %engine.kind, %error, "cannot look for instances to remove");
                    continue;
                }
            };
            let policy = self.store.release(app, number).await.ok().map(|release| release.spec.deploy).unwrap_or_default();
            if drain {
                self.drain(&instances, policy.drain.duration()).await;
            }
            self.stop_instances(engine, &instances, policy.grace.duration()).await?;
            engine.runtime.remove_release(app, number).await?;
        }
        self.store.delete_release(app, number).await?;
        self.mounts.remove_release(app, number);
        Ok(())
    }
}

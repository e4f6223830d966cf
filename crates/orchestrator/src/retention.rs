//! What is kept and what goes: old releases, the instances of releases that are no longer active, and what they owned.

use std::time::Duration;

use coracle_engine::{Engine, EngineError};
use coracle_model::{AppName, ArtifactId, InstanceId, Release, ReleaseNumber};
use coracle_proxy_table::TargetId;
use coracle_store::AppRecord;

use crate::core::Core;
use crate::error::OrchestratorError;
use crate::labelled::further_targets;
use crate::table::target_id;

/// Stopping is given this long where no release says anything.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Requests may take this long where no release says anything.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

impl Core {
    /// Lets requests on these instances run out. They must no longer be in the table.
    pub(crate) async fn drain(&self, instances: &[InstanceId], limit: Duration) {
        let mut targets: Vec<TargetId> = Vec::new();
        for id in instances {
            // Of a release that is not on record any more, everything may have received requests.
            let release = self.store.release(&id.app, id.release).await;
            if release.as_ref().map_or(true, |release| release.serves(&id.process)) {
                targets.push(target_id(id));
            }
            targets.extend(release.iter().flat_map(|release| further_targets(release, id)));
        }
        if targets.is_empty() {
            return;
        }
        match self.traffic.drain(&targets, limit).await {
            Ok(drained) if drained.cut_off > 0 => {
                tracing::warn!(requests = drained.cut_off, "requests did not end within the drain time and were cut off");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot drain"),
        }
    }

    /// Stops and removes these instances, all at once.
    pub(crate) async fn stop_instances(
        &self,
        engine: &Engine,
        instances: &[InstanceId],
        grace: Duration,
    ) -> Result<(), EngineError> {
        self.change(|registry| {
            for id in instances {
                registry.ready.remove(id);
                registry.back_off.remove(id);
            }
        });
        let stops = instances.iter().map(|id| async move {
            let grace = self.grace_of(id, grace).await;
            engine.runtime.stop(id, grace).await
        });
        futures::future::join_all(stops).await.into_iter().collect()
    }

    /// Lets the reconcile loop remove what engines may have left of a release that is not active.
    pub(crate) fn retire_later(&self, app: &AppName, number: ReleaseNumber) {
        let left = self.engines.keys().map(|kind| (*kind, app.clone(), number));
        self.change(|registry| registry.unretired.extend(left));
    }

    /// Drains, stops and removes everything that runs of a release which is not active, and what the release owned.
    pub(crate) async fn retire(&self, engine: &Engine, app: &AppName, number: ReleaseNumber) -> Result<(), OrchestratorError> {
        let key = (engine.kind, app.clone(), number);
        if !self.change(|registry| registry.retiring.insert(key.clone())) {
            return Ok(());
        }
        let result = self.retire_now(engine, app, number).await;
        self.change(|registry| registry.retiring.remove(&key));
        result
    }

    async fn retire_now(&self, engine: &Engine, app: &AppName, number: ReleaseNumber) -> Result<(), OrchestratorError> {
        let policy = self.store.release(app, number).await.ok().map(|release| release.spec.deploy);
        let drain = policy.as_ref().map_or(DEFAULT_DRAIN, |policy| policy.drain.duration());
        let grace = policy.as_ref().map_or(DEFAULT_GRACE, |policy| policy.grace.duration());
        let instances = self.instances_of(engine, app, number).await?;
        self.drain(&instances, drain).await;
        self.stop_instances(engine, &instances, grace).await?;
        engine.runtime.remove_release(app, number).await?;
        Ok(())
    }

    /// Removes releases beyond what is kept, and the artifacts that no kept release needs.
    pub(crate) async fn prune(&self, record: &AppRecord) -> Result<(), OrchestratorError> {
        let releases = self.store.releases(&record.name).await?;
        let Some(active) = releases.iter().find(|release| Some(release.number) == record.active) else { return Ok(()) };
        let previous = self.previous_release(record).await?;
        let keep = active.spec.deploy.keep.max(1) as usize;
        let surplus = releases.len().saturating_sub(keep);
        let services = self.store.services(&record.name).await?;
        let waiting = self.store.parked_deployment(&record.name).await?.map(|deployment| deployment.to);
        let describes = |release: &Release| services.iter().any(|service| service.release == release.number);
        let is_one_of = |release: &Release| [record.active, previous, waiting].contains(&Some(release.number));
        let needed = |release: &Release| is_one_of(release) || describes(release);
        let gone: Vec<_> =
            releases.iter().take(surplus).filter(|release| !needed(release)).map(|release| release.number).collect();
        for number in &gone {
            self.store.delete_release(&record.name, *number).await?;
            self.mounts.remove_release(&record.name, *number);
        }
        // What no step has named since the oldest release that is kept by its age is not kept for steps any more.
        if let Some(oldest) = releases.get(surplus) {
            self.store.forget_step_images(&record.name, oldest.number).await?;
        }
        self.prune_artifacts(&record.name).await
    }

    /// Removes the app's artifacts that no kept release needs. What cannot be removed now is removed after the next
    /// deployment, so an engine's failure is worth a line in the log only.
    pub(crate) async fn prune_artifacts(&self, app: &AppName) -> Result<(), OrchestratorError> {
        let kept = self.store.releases(app).await?;
        // Those that steps of the pipeline were run with would have to be fetched again for the next deployment.
        let of_steps = self.store.step_images(app).await?;
        for (kind, engine) in &self.engines {
            let of_releases = kept.iter().flat_map(Release::all_artifacts).filter(|a| a.engine == *kind).map(|a| a.id.clone());
            let keep: Vec<ArtifactId> = of_releases.chain(of_steps.iter().cloned()).collect();
            if let Err(error) = engine.builder.prune(app, &keep).await {
                tracing::warn!(%app, engine = %kind, %error, "cannot prune artifacts");
            }
        }
        Ok(())
    }

    /// The release that was active before the active one: where `rollback` leads to.
    pub(crate) async fn previous_release(&self, record: &AppRecord) -> Result<Option<ReleaseNumber>, OrchestratorError> {
        let Some(active) = record.active else { return Ok(None) };
        let history = self.store.deployments(&record.name, u32::MAX).await?;
        Ok(history.into_iter().find(|deployment| deployment.to == active).and_then(|deployment| deployment.from))
    }
}

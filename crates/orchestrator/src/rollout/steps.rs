//! The steps of a rollout that act on instances and traffic, in the order they are taken.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_engine::Engine;
use coracle_model::{InstanceId, Phase, Release, Strategy};
use futures::future::try_join_all;

use super::comparison::Before;
use super::pipeline::Orders;
use super::{Candidacy, Failure, Rollout};
use crate::candidate::inverse;
use crate::core::Live;
use crate::error::OrchestratorError;
use crate::probe;
use crate::progress::{Event, LiveFacts};
use crate::table::{RouteConflict, reached_at};

/// How long the proxy may take to be told of a switch before the switch is taken back.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);

impl Rollout<'_> {
    /// Recreate: requests wait in the proxy, those under way run out, and the old instances make room.
    pub(super) async fn hold_requests_and_stop_old(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(old) = &candidacy.old else { return self.stop_incumbent(candidacy).await };
        self.enter(Phase::Hold).await?;
        let everything = old.processes().into_keys().collect();
        let (ending, coming) = (&old.spec.deploy, &candidacy.release.spec.deploy);
        let verifying = candidacy.orders.as_ref().map(Orders::longest_verification).unwrap_or_default();
        let there = ending.drain.duration() + ending.grace.duration() + coming.timeout.duration() + verifying;
        // If the new release does not become healthy, those who wait are answered by the old one, started again.
        let back = coming.grace.duration() + ending.timeout.duration();
        let longest = there + back;
        self.change_live(|live| {
            live.hold = Some(longest);
            live.suspended = everything;
        });
        self.core.publish().await?;
        let engine = self.core.engine(old.artifact.engine)?;
        let instances = self.settled_instances_of(engine, old).await?;
        self.core.drain(&instances, ending.drain.duration()).await;
        self.core.stop_instances(engine, &instances, ending.grace.duration()).await?;
        Ok(())
    }

    /// The commit point: from here on the new release is the app's active one, first in the store, then in the proxy.
    pub(super) async fn switch(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { release, changes, .. } = candidacy;
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        {
            let _one_switch_at_a_time = self.core.switching.lock().await;
            let lock = self.core.app_lock(&release.app);
            let _not_while_reconciling = lock.lock().await;
            if let Some(conflict) = self.core.route_conflict(release).await? {
                return Err(route_taken(&conflict));
            }
            let before = self.core.store.config(&release.app).await?;
            self.core.store.activate(self.deployment.id, changes).await?;
            *self.config_undo.lock().unwrap_or_else(PoisonError::into_inner) = inverse(&before, changes);
            self.change_live(|live| live.hold = None);
            self.exposed.store(true, Ordering::Relaxed);
        }
        self.entered(Phase::Switch);
        if let Err(error) = self.publish_patiently().await {
            self.take_back(candidacy).await?;
            return Err(error.into());
        }
        let hosts = reached_at(release).into_iter().map(|(host, _)| host).collect();
        self.progress.tell(Event::Live(LiveFacts { hosts, elapsed_ms: self.begun.elapsed().as_millis() as u64 }));
        Ok(())
    }

    /// The proxy may be restarting just now; its supervisor brings it back within moments.
    async fn publish_patiently(&self) -> Result<(), OrchestratorError> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.core.publish().await {
                Err(OrchestratorError::Traffic(error)) if begun.elapsed() < PUBLISH_PATIENCE => {
                    tracing::warn!(%error, "trying again to tell the proxy of a switch");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }

    /// Looks after the new instances for a while, with the old ones still there to go back to.
    pub(super) async fn watch(&self, candidacy: &Candidacy, before: Option<Before>) -> Result<(), Failure> {
        let Candidacy { release, old, strategy, .. } = candidacy;
        self.enter_after_switch(Phase::Drain).await;
        let span = release.spec.deploy.watch.duration();
        let has_old = *strategy == Strategy::BlueGreen && old.as_ref().is_some_and(|old| !old.serving().is_empty());
        let can_go_back = has_old || self.incumbent.is_some();
        if !can_go_back {
            return Ok(());
        }
        let looking = async {
            self.stay_healthy(candidacy, span).await?;
            self.verify_after_switch(candidacy).await?;
            let Some(before) = before else { return Ok(()) };
            // For as long as that takes, its health counts as well.
            let healthy = self.stay_healthy(candidacy, before.left());
            futures::future::try_join(healthy, self.compare(candidacy, &before)).await.map(drop)
        };
        if let Err(failure) = looking.await {
            self.take_back(candidacy).await?;
            return Err(failure);
        }
        Ok(())
    }

    /// Asks the new instances again and again for a while.
    async fn stay_healthy(&self, candidacy: &Candidacy, span: Duration) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let instances = self.instances(candidacy, |process| release.serves(process));
        let watches = instances.iter().filter(|_| !span.is_zero()).map(|id| async move {
            let check = probe::check_of(release, &id.process);
            probe::watch(engine, id, &check, span).await.map_err(|reason| (id.clone(), reason))
        });
        let Err((id, reason)) = try_join_all(watches).await else { return Ok(()) };
        Err(Failure::Release {
            cause: format!("{id} became unhealthy after the switch, which was taken back: {reason}"),
            evidence: self.core.evidence(engine, &id).await,
            hint: "mend what the log shows, then `coracle deploy`; the old release serves".to_owned(),
        })
    }

    /// Lets requests on the old release run out and stops it. What fails here is done again by the reconcile loop.
    pub(super) async fn retire_old(&self, candidacy: &Candidacy) {
        let Some(old) = &candidacy.old else { return };
        let retired = async {
            let engine = self.core.engine(old.artifact.engine)?;
            let instances = self.settled_instances_of(engine, old).await?;
            self.core.drain(&instances, old.spec.deploy.drain.duration()).await;
            self.enter_after_switch(Phase::Stop).await;
            self.core.retire(engine, &old.app, old.number).await?;
            self.remove_gone_services(candidacy).await;
            Ok::<_, Failure>(())
        };
        if let Err(error) = retired.await {
            tracing::warn!(app = %old.app, release = %old.number, ?error, "the old release is not gone yet");
            self.core.retire_later(&old.app, old.number);
        }
    }

    /// Removes what is past keeping.
    pub(super) async fn record(&self, candidacy: &Candidacy) {
        let recorded = async {
            self.enter_after_switch(Phase::Record).await;
            let record = self.core.store.app(&candidacy.release.app).await?;
            self.core.prune(&record).await?;
            Ok::<_, Failure>(())
        };
        if let Err(error) = recorded.await {
            tracing::warn!(app = %candidacy.release.app, ?error, "old releases could not be pruned");
        }
    }

    /// Past the commit point nothing is undone because a phase could not be written down (a full disk, say): a crash from
    /// here on leads to the same end as one in the phase before.
    async fn enter_after_switch(&self, phase: Phase) {
        if let Err(error) = self.core.store.enter_phase(self.deployment.id, phase).await {
            tracing::warn!(deployment = %self.deployment.id, %phase, %error, "the phase could not be written down");
        }
        self.entered(phase);
    }

    /// The instances of a release that the reconcile loop may be healing: after its current pass, so that none appears
    /// behind our back.
    pub(super) async fn settled_instances_of(&self, engine: &Engine, release: &Release) -> Result<Vec<InstanceId>, Failure> {
        let lock = self.core.app_lock(&release.app);
        let _not_while_reconciling = lock.lock().await;
        Ok(self.core.instances_of(engine, &release.app, release.number).await?)
    }

    pub(super) fn change_live(&self, change: impl FnOnce(&mut Live)) {
        self.core.change(|registry| {
            if let Some(live) = registry.live.get_mut(&self.deployment.app) {
                change(live);
            }
        });
    }
}

pub(super) fn route_taken(conflict: &RouteConflict) -> Failure {
    let RouteConflict { of, other } = conflict;
    Failure::release(
        format!("{of} belongs to the app {other}"),
        format!(
            "choose another in http.hosts of coracle.toml or in the labels of the compose file, or free it with \
             `coracle destroy -a {other}`"
        ),
    )
}

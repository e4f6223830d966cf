//! The steps of a rollout that takes the place of a compose project: where the project gives way, and how it comes back if the
//! release comes to nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_engine::EngineError;
use coracle_model::ProcessName;
use coracle_proxy_table::TargetId;

use super::{Candidacy, Failure, Rollout};
use crate::error::OrchestratorError;
use crate::probe;

impl Rollout<'_> {
    /// From here on requests to the project come through the proxy, so that they can wait and be led elsewhere.
    pub(super) async fn step_in_front(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(incumbent) = &self.incumbent else { return Ok(()) };
        let app = &candidacy.release.app;
        let standbys = incumbent.prepare(candidacy.release.number).await?;
        if standbys.is_empty() {
            return Ok(());
        }
        self.core.set_standbys(app, standbys);
        self.core.publish().await?;
        incumbent.step_in().await?;
        self.note("requests to the running project come through the proxy now");
        Ok(())
    }

    /// The project's own containers of these stateful services stop, while requests wait: no two work on the same data. They
    /// go on waiting until the switch, as what serves now is without its data.
    pub(super) async fn take_data_over(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(incumbent) = &self.incumbent else { return Ok(()) };
        let services: BTreeSet<ProcessName> = candidacy.comparison.standings.keys().cloned().collect();
        let running = incumbent.runs(&services);
        if running.is_empty() {
            return Ok(());
        }
        let names = running.iter().map(ProcessName::as_str).collect::<Vec<_>>().join(", ");
        self.note(format!(
            "requests wait while {names} of the running project stops and starts again as the app's, on the same data"
        ));
        // They would be without their data, and whoever waits would wait for their end as well.
        self.stop_incumbents_background(candidacy).await?;
        self.hold_for_succession(candidacy).await?;
        Ok(incumbent.stop(Some(&services)).await?)
    }

    /// Two of what writes to one volume, or has one port of the machine, cannot run beside each other: everything of the
    /// project stops, while requests wait.
    pub(super) async fn stop_incumbent(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(incumbent) = &self.incumbent else { return Ok(()) };
        self.stop_incumbents_background(candidacy).await?;
        self.hold_for_succession(candidacy).await?;
        Ok(incumbent.stop(None).await?)
    }

    /// Workers of the project and those of the release never run at once.
    pub(super) async fn stop_incumbents_background(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(incumbent) = &self.incumbent else { return Ok(()) };
        let processes = candidacy.release.processes().into_keys();
        let background: BTreeSet<ProcessName> = processes.filter(|name| !candidacy.needed.contains(name)).collect();
        match incumbent.runs(&background).is_empty() {
            true => Ok(()),
            false => Ok(incumbent.stop(Some(&background)).await?),
        }
    }

    async fn hold_for_succession(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let targets = self.core.standby_targets(&candidacy.release.app);
        self.change_live(|live| live.hold = Some(longest_hold(candidacy)));
        self.core.publish().await?;
        self.drain_targets(&targets, candidacy.release.spec.deploy.drain.duration()).await;
        Ok(())
    }

    /// A switch is taken back: requests wait until the project has been given its place back.
    pub(super) fn hold_for_return_of_incumbent(&self, candidacy: &Candidacy) {
        if self.incumbent.is_some() {
            self.change_live(|live| live.hold = Some(longest_hold(candidacy)));
        }
    }

    async fn drain_targets(&self, targets: &[TargetId], limit: Duration) {
        if targets.is_empty() {
            return;
        }
        if let Err(error) = self.core.traffic.drain(targets, limit).await {
            tracing::warn!(%error, "cannot drain");
        }
    }

    /// After the switch: what is left of requests on the project runs out, and it stops. What fails here is told, and done
    /// again at the server's next start.
    pub(super) async fn retire_incumbent(&self, candidacy: &Candidacy) {
        let Some(incumbent) = &self.incumbent else { return };
        let (app, policy) = (&candidacy.release.app, &candidacy.release.spec.deploy);
        let targets = self.core.standby_targets(app);
        self.core.set_standbys(app, Vec::new());
        self.drain_targets(&targets, policy.drain.duration()).await;
        if let Err(error) = incumbent.succeed().await {
            self.note(format!("the old project is not out of the way yet: {error}; the server tries again when it starts"));
            tracing::warn!(%app, %error, "the old project is not out of the way yet");
        }
    }

    /// The release came to nothing and is gone: the project serves as it did before.
    pub(super) async fn give_back(&self) {
        let Some(incumbent) = &self.incumbent else { return };
        let app = &self.deployment.app;
        let returned = async {
            let (instances, silent) = self.core.all_instances().await;
            if !silent.is_empty() || instances.iter().any(|(_, instance)| instance.id.app == *app) {
                let cause = "not everything of the release is gone, and no two may work on the same data".to_owned();
                return Err(EngineError::Failed { action: "start the project again".to_owned(), cause }.into());
            }
            let standbys = incumbent.give_back().await?;
            let is_in_front = !self.core.standby_targets(app).is_empty();
            self.change_live(|live| live.hold = None);
            if is_in_front {
                // Containers may have other addresses now.
                self.core.set_standbys(app, standbys);
                self.core.publish().await?;
            }
            incumbent.step_out().await?;
            self.core.set_standbys(app, Vec::new());
            self.core.publish().await?;
            Ok(())
        };
        let returned: Result<(), OrchestratorError> = returned.await;
        if let Err(error) = returned {
            tracing::error!(%app, %error, "the project that ran before could not be given back its place");
            self.note(format!("the project that ran before could not be given back its place: {error}; see `docker ps -a`"));
        }
    }
}

/// How long requests may wait: for what goes, for what comes, and for the way back.
fn longest_hold(candidacy: &Candidacy) -> Duration {
    let (release, policy) = (&candidacy.release, &candidacy.release.spec.deploy);
    let patience = release.spec.parts().map(|(name, _)| probe::check_of(release, name).patience()).max().unwrap_or_default();
    (policy.drain.duration() + policy.grace.duration() + policy.timeout.duration().max(patience)) * 2
}

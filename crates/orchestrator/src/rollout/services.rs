//! The step of a rollout that sees to the services which keep data. They are there before anything else of the release is,
//! and the release's processes find them under their names.

use std::collections::BTreeSet;

use coracle_model::{InstanceId, Phase, ProcessName, Release, ReleaseNumber};
use coracle_store::ServiceRecord;
use futures::future::join_all;

use super::{Candidacy, Failure, Rollout};
use crate::probe;
use crate::progress::Event;
use crate::services::{Comparison, Standing, StatefulChanges, instance_of};

impl Rollout<'_> {
    /// Brings up what is new, replaces what has changed and may, and lets everything be reached by the new release.
    pub(super) async fn bring_up_services(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { release, comparison, stateful, .. } = candidacy;
        if comparison.standings.is_empty() && comparison.gone.is_empty() {
            return Ok(());
        }
        self.enter(Phase::Services).await?;
        self.tell_of_services(comparison, stateful);
        let names: BTreeSet<ProcessName> = comparison.standings.keys().cloned().collect();
        self.change_live(|live| live.changing = names);
        let replaces = comparison.standings.iter().any(|(name, standing)| is_replaced(name, standing, stateful));
        if replaces {
            self.hold_requests_for_services(candidacy).await?;
        }
        self.take_data_over(candidacy).await?;
        for group in release.resolved().start_order().map_err(stack_failure)? {
            let services = group.iter().filter(|name| comparison.standings.contains_key(*name));
            // All are awaited even if one fails, so that none is still being started while the others are undone.
            join_all(services.map(|name| self.bring_up(candidacy, name))).await.into_iter().collect::<Result<(), _>>()?;
        }
        self.change_live(|live| {
            live.changing.clear();
            // What a release takes the place of is without its data until the switch.
            if self.incumbent.is_none() {
                live.hold = None;
            }
        });
        if replaces {
            self.core.publish().await?;
        }
        Ok(())
    }

    fn tell_of_services(&self, comparison: &Comparison, stateful: &StatefulChanges) {
        for (name, standing) in &comparison.standings {
            match standing {
                Standing::New => self.note(format!("{name} keeps data: it is created now and stays across releases")),
                Standing::Changed(now, what) if stateful.allow(name) => {
                    self.note(format!("{name} is replaced, since {} changed since {now}; its volumes stay", what.join(", ")));
                }
                Standing::Changed(now, what) => self.note(format!(
                    "{name} stays as it was made for {now}, although {} differ; --recreate-services {name} would change it",
                    what.join(", ")
                )),
                Standing::Same(_) => {}
            }
        }
        for record in comparison.gone.iter().filter(|record| !stateful.allow(&record.name)) {
            let name = &record.name;
            self.note(format!(
                "{name} goes on running, although this release does not know it; --recreate-services {name} stops it"
            ));
        }
    }

    /// While a service that keeps data is replaced, requests wait in the proxy, and those under way run out.
    async fn hold_requests_for_services(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(old) = &candidacy.old else { return Ok(()) };
        let policy = &old.spec.deploy;
        let patience =
            candidacy.comparison.standings.keys().map(|name| probe::check_of(&candidacy.release, name).patience()).max();
        let longest = policy.drain.duration()
            + policy.grace.duration()
            + candidacy.release.spec.deploy.timeout.duration().max(patience.unwrap_or_default());
        self.change_live(|live| live.hold = Some(longest * 2));
        self.core.publish().await?;
        let engine = self.core.engine(old.artifact.engine)?;
        let mut instances = self.settled_instances_of(engine, old).await?;
        // What is replaced may receive requests itself.
        instances.extend(candidacy.comparison.standings.iter().filter_map(|(name, standing)| match standing {
            Standing::Changed(now, _) if is_replaced(name, standing, &candidacy.stateful) => {
                Some(InstanceId { app: old.app.clone(), release: *now, process: name.clone(), index: 1 })
            }
            _ => None,
        }));
        self.core.drain(&instances, policy.drain.duration()).await;
        Ok(())
    }

    /// Services that this deployment has replaced go back to what they were: requests wait meanwhile, as they did before.
    pub(super) async fn hold_requests_for_return(&self) -> Result<(), Failure> {
        let (app, to) = (&self.deployment.app, self.deployment.to);
        let records = self.core.store.services(app).await?;
        let replaced: BTreeSet<ProcessName> = records
            .into_iter()
            .filter(|record| record.release == to && record.previous.is_some())
            .map(|record| record.name)
            .collect();
        let Some(old) = self.old_release().await?.filter(|_| !replaced.is_empty()) else { return Ok(()) };
        let policy = &old.spec.deploy;
        let patience = replaced.iter().map(|name| probe::check_of(&old, name).patience()).max().unwrap_or_default();
        let longest = policy.drain.duration() + policy.grace.duration() + policy.timeout.duration().max(patience);
        self.change_live(|live| {
            live.hold = Some(longest * 2);
            live.changing = replaced;
        });
        self.core.publish().await?;
        let engine = self.core.engine(old.artifact.engine)?;
        let instances = self.settled_instances_of(engine, &old).await?;
        self.core.drain(&instances, policy.drain.duration()).await;
        Ok(())
    }

    async fn bring_up(&self, candidacy: &Candidacy, name: &ProcessName) -> Result<(), Failure> {
        let app = &candidacy.release.app;
        let Some(standing) = candidacy.comparison.standings.get(name) else { return Ok(()) };
        let to = candidacy.release.number;
        let described_by = match standing {
            Standing::New => to,
            Standing::Changed(..) if candidacy.stateful.allow(name) => to,
            Standing::Same(now) | Standing::Changed(now, _) => *now,
        };
        let record = ServiceRecord { name: name.clone(), release: described_by, previous: None };
        {
            let lock = self.core.app_lock(app);
            let _not_while_reconciling = lock.lock().await;
            if let Standing::Changed(now, _) = standing
                && *now != described_by
            {
                self.stop_service(candidacy, name, *now).await?;
            }
            if described_by == to {
                self.core.store.set_service(app, name, to).await?;
            }
            self.start_service(candidacy, &record).await?;
        }
        self.unless_cancelled(self.wait_for_service(candidacy, &record)).await
    }

    async fn stop_service(&self, candidacy: &Candidacy, name: &ProcessName, now: ReleaseNumber) -> Result<(), Failure> {
        let app = &candidacy.release.app;
        let release = self.core.store.release(app, now).await?;
        let engine = self.core.engine(release.artifact_of(name).engine)?;
        let id = InstanceId { app: app.clone(), release: now, process: name.clone(), index: 1 };
        self.core.stop_instances(engine, &[id], release.spec.deploy.grace.duration()).await?;
        Ok(())
    }

    /// Starts the service, or finds it running; either way the new release reaches it, and the old one still does.
    async fn start_service(&self, candidacy: &Candidacy, record: &ServiceRecord) -> Result<(), Failure> {
        let Candidacy { engine, release, old, .. } = candidacy;
        let releases = std::iter::once(release.number).chain(old.iter().map(|old| old.number)).collect();
        let (_, spec) = self.core.service_spec(&release.app, record, releases).await?;
        match engine.runtime.start(&spec).await {
            Ok(_) => {
                // By the names that this release calls it, which are not always those of its own description.
                let named = release.spec.services.get(&spec.id.process).map(|part| &part.container.aliases);
                let aliases = named.unwrap_or(&spec.surroundings.container.aliases);
                Ok(engine.runtime.join(&spec.id, release.number, aliases).await?)
            }
            Err(error) => Err(self.cannot_start(engine, error).await),
        }
    }

    async fn wait_for_service(&self, candidacy: &Candidacy, record: &ServiceRecord) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let describing: Release = self.core.store.release(&release.app, record.release).await?;
        let (check, id) = (probe::check_of(&describing, &record.name), instance_of(&release.app, record));
        match probe::until_healthy(engine, &id, &check, release.spec.deploy.timeout.duration()).await {
            Ok(address) => {
                if let Some(address) = address {
                    self.core.change(|registry| registry.ready.insert(id.clone(), address));
                }
                self.progress.tell(Event::Healthy(id));
                Ok(())
            }
            Err(reason) => Err(self.unhealthy(engine, &id, reason, &check).await),
        }
    }

    /// Stops the services that the new release has no use for, where that is allowed. What fails is told: they go on
    /// running, and so says the next plan.
    pub(super) async fn remove_gone_services(&self, candidacy: &Candidacy) {
        for record in candidacy.comparison.gone.iter().filter(|record| candidacy.stateful.allow(&record.name)) {
            match self.core.remove_service(&candidacy.release.app, record).await {
                Ok(()) => self.note(format!("{} is stopped; its volumes stay", record.name)),
                Err(error) => self.note(format!("{} could not be stopped: {error}", record.name)),
            }
        }
    }
}

fn is_replaced(name: &ProcessName, standing: &Standing, stateful: &StatefulChanges) -> bool {
    matches!(standing, Standing::Changed(..)) && stateful.allow(name)
}

/// Changes to what keeps data that nobody has allowed.
pub(super) fn refuse_changes(comparison: &Comparison, stateful: &StatefulChanges, by_config: bool) -> Result<(), Failure> {
    let changed = comparison.standings.iter().filter_map(|(name, standing)| match standing {
        Standing::Changed(_, what) if !stateful.allow(name) => Some((name, format!("{name} ({})", what.join(", ")))),
        _ => None,
    });
    let gone = comparison.gone.iter().map(|record| &record.name).filter(|name| !stateful.allow(name));
    let (names, told): (Vec<&ProcessName>, Vec<String>) =
        changed.chain(gone.map(|name| (name, format!("{name} (it is not in the file any more)")))).unzip();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
    let hint = match by_config {
        true => format!(
            "if that is meant: the same with --no-deploy, then coracle deploy --recreate-services {names} (requests wait \
             meanwhile, volumes stay)"
        ),
        false => format!(
            "if that is meant: coracle deploy --recreate-services {names} (requests wait meanwhile, volumes stay); \
             else put it back as it was"
        ),
    };
    Err(Failure::release(format!("this would change what keeps data: {}", told.join("; ")), hint))
}

/// Parts that wait for each other, and the like.
pub(super) fn stack_failure(error: coracle_model::StackError) -> Failure {
    Failure::release(error.to_string(), "mend the file, then `coracle deploy`")
}

//! Stateful services: created once, kept across releases, changed only on purpose. The store says which release describes
//! each of them; its instance bears that release's number for as long as the description holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use coracle_engine::{Engine, Instance, InstanceSpec};
use coracle_model::container::{ContainerSettings, RestartPolicy};
use coracle_model::{
    AppName, AppSpec, Artifact, EnvName, Exposure, InstanceId, ProcessName, ProcessSource, ProcessSpec, Release, ReleaseNumber,
    Secret,
};
use coracle_store::{ServiceRecord, StoreError};

use crate::core::Core;
use crate::error::OrchestratorError;
use crate::instances::Making;
use crate::orchestrator::ServiceStatus;
use crate::probe;

/// Which stateful services a deployment may change or take away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatefulChanges {
    /// None.
    #[default]
    None,
    /// All that are different.
    All,
    /// These.
    Named(BTreeSet<ProcessName>),
}

impl StatefulChanges {
    /// Whether this one may be changed.
    pub fn allow(&self, service: &ProcessName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.contains(service),
        }
    }
}

/// What a stateful service of a new release is to the one that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is none of this name.
    New,
    /// The one that runs as this release describes it.
    Same(ReleaseNumber),
    /// The one that runs as this release describes it is another: in these things.
    Changed(ReleaseNumber, Vec<String>),
}

/// The stateful services of a new release beside those that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Comparison {
    pub standings: BTreeMap<ProcessName, Standing>,
    /// Those that run and that the new release does not know.
    pub gone: Vec<ServiceRecord>,
}

/// What a comparison looks at.
pub(crate) struct Coming<'a> {
    pub spec: &'a AppSpec,
    pub config: &'a [(EnvName, Secret)],
    /// What was built, once it is.
    pub artifacts: Option<&'a BTreeMap<ProcessName, Artifact>>,
    /// The tree that mounted files come from, if there is one.
    pub tree: Option<&'a Path>,
}

/// The only instance of a stateful service.
pub(crate) fn instance_of(app: &AppName, record: &ServiceRecord) -> InstanceId {
    InstanceId { app: app.clone(), release: record.release, process: record.name.clone(), index: 1 }
}

impl Core {
    /// Compares the stateful services of a release to be with those that run.
    pub(crate) async fn compare_services(&self, coming: &Coming<'_>) -> Result<Comparison, OrchestratorError> {
        let app = &coming.spec.app;
        let mut comparison = Comparison::default();
        let records = self.store.services(app).await?;
        for (name, new) in &coming.spec.services {
            let Some(record) = records.iter().find(|record| record.name == *name) else {
                comparison.standings.insert(name.clone(), Standing::New);
                continue;
            };
            let release = self.store.release(app, record.release).await?;
            let config = self.store.release_env(app, record.release).await?;
            let what = self.differences(name, new, &release, &config, coming).await;
            let standing = match what.is_empty() {
                true => Standing::Same(record.release),
                false => Standing::Changed(record.release, what),
            };
            comparison.standings.insert(name.clone(), standing);
        }
        comparison.gone = records.into_iter().filter(|record| !coming.spec.services.contains_key(&record.name)).collect();
        Ok(comparison)
    }

    async fn differences(
        &self,
        name: &ProcessName,
        new: &ProcessSpec,
        release: &Release,
        config: &[(EnvName, Secret)],
        coming: &Coming<'_>,
    ) -> Vec<String> {
        let Some(old) = release.spec.services.get(name) else { return vec!["everything".to_owned()] };
        let mut what = definition_differences(old, new);
        let value = |config: &[(EnvName, Secret)], name: &EnvName| {
            config.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let set = new.container.config.iter().filter(|name| value(config, name) != value(coming.config, name));
        what.extend(set.map(ToString::to_string));
        if matches!(new.source, Some(ProcessSource::Build(_)))
            && let Some(built) = coming.artifacts.and_then(|artifacts| artifacts.get(name))
            && built.id != release.artifact_of(name).id
        {
            what.push("what it is built from".to_owned());
        }
        if let Some(tree) = coming.tree
            && !self.mounts.are_same(&release.app, release.number, &new.container.binds, tree).await
        {
            what.push("the files it mounts".to_owned());
        }
        what
    }

    /// The stateful services of an app that should run.
    pub(crate) async fn service_statuses(&self, app: &AppName) -> Result<Vec<ServiceStatus>, OrchestratorError> {
        let mut statuses = Vec::new();
        for record in self.store.services(app).await? {
            let release = match self.store.release(app, record.release).await {
                Ok(release) => Some(release),
                Err(StoreError::NoSuchRelease(..)) => None,
                Err(error) => return Err(error.into()),
            };
            let source = release.and_then(|release| release.spec.services.get(&record.name)?.source.clone());
            statuses.push(ServiceStatus { instance: instance_of(app, &record), source });
        }
        Ok(statuses)
    }

    /// How to start a stateful service as its record says, in these releases' networks.
    pub(crate) async fn service_spec(
        &self,
        app: &AppName,
        record: &ServiceRecord,
        joins: Vec<ReleaseNumber>,
    ) -> Result<(Release, InstanceSpec), OrchestratorError> {
        let release = self.store.release(app, record.release).await?;
        let config = self.store.release_env(app, record.release).await?;
        let Some(spec) = release.spec.services.get(&record.name) else {
            let message = format!("{} of {app} does not describe the service {}", record.release, record.name);
            return Err(OrchestratorError::refused(
                message,
                format!("coracle deploy -a {app} --recreate-services {}", record.name),
            ));
        };
        let mut instance = Making { release: &release, config: &config, mounts: &self.mounts }.instance(&record.name, spec, 1);
        instance.surroundings.joins = joins;
        Ok((release, instance))
    }

    /// Starts what does not run of an app's stateful services, and waits until it is healthy. What fails is told in the log:
    /// the reconcile loop goes on trying.
    pub(crate) async fn restore_services(&self, app: &AppName, joins: &[ReleaseNumber]) {
        let records = match self.store.services(app).await {
            Ok(records) => records,
            Err(error) => return tracing::warn!(%app, %error, "cannot look for services to bring back"),
        };
        for record in &records {
            if let Err(error) = self.restore_service(app, record, joins).await {
                tracing::warn!(%app, service = %record.name, %error, "cannot be brought back");
            }
        }
    }

    async fn restore_service(
        &self,
        app: &AppName,
        record: &ServiceRecord,
        joins: &[ReleaseNumber],
    ) -> Result<(), OrchestratorError> {
        let (release, spec) = self.service_spec(app, record, joins.to_vec()).await?;
        let engine = self.engine(release.artifact_of(&record.name).engine)?;
        engine.runtime.start(&spec).await?;
        let check = probe::check_of(&release, &record.name);
        let limit = release.spec.deploy.timeout.duration();
        if let Err(reason) = probe::until_healthy(engine, &spec.id, &check, limit).await {
            tracing::warn!(instance = %spec.id, %reason, "is not healthy yet");
        }
        Ok(())
    }

    /// Stateful services that a release which will not stay has changed go back to the release before, on record: what it
    /// made of them stops first, so that no two of one kind ever work on the same data.
    pub(crate) async fn take_back_services(&self, app: &AppName, number: ReleaseNumber) -> Result<(), OrchestratorError> {
        let lock = self.app_lock(app);
        let _not_while_reconciling = lock.lock().await;
        let records = self.store.services(app).await?;
        let changed: Vec<InstanceId> =
            records.iter().filter(|record| record.release == number).map(|record| instance_of(app, record)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let release = self.store.release(app, number).await?;
        for id in &changed {
            let engine = self.engine(release.artifact_of(&id.process).engine)?;
            self.stop_instances(engine, std::slice::from_ref(id), release.spec.deploy.grace.duration()).await?;
        }
        Ok(self.store.revert_services(app, number).await?)
    }

    /// Stops a stateful service that the active release does not know, and forgets it. Its volumes stay.
    pub(crate) async fn remove_service(&self, app: &AppName, record: &ServiceRecord) -> Result<(), OrchestratorError> {
        // Requests that it got while the release before was active run out; it is in no table any more.
        let before = self.store.release(app, record.release).await?;
        self.drain(&[instance_of(app, record)], before.spec.deploy.drain.duration()).await;
        let lock = self.app_lock(app);
        let _not_while_reconciling = lock.lock().await;
        let release = self.store.release(app, record.release).await?;
        let engine = self.engine(release.artifact_of(&record.name).engine)?;
        self.store.delete_service(app, &record.name).await?;
        let id = instance_of(app, record);
        self.stop_instances(engine, &[id], release.spec.deploy.grace.duration()).await?;
        Ok(())
    }

    /// The instances of one release, by what the engine has; without stateful services that bear its number.
    pub(crate) async fn instances_of(
        &self,
        engine: &Engine,
        app: &AppName,
        number: ReleaseNumber,
    ) -> Result<Vec<InstanceId>, OrchestratorError> {
        let all: Vec<Instance> = engine.runtime.list().await?;
        let services = self.store.services(app).await?;
        let stays = |id: &InstanceId| services.iter().any(|record| instance_of(app, record) == *id);
        let of_release = |id: &InstanceId| id.app == *app && id.release == number && !stays(id);
        Ok(all.into_iter().map(|instance| instance.id).filter(of_release).collect())
    }

    /// How long this instance may take to end.
    pub(crate) async fn grace_of(&self, id: &InstanceId, otherwise: Duration) -> Duration {
        match self.store.release(&id.app, id.release).await {
            Ok(release) => {
                let part = release.spec.part(&id.process);
                part.and_then(|part| part.container.stop_grace_period).map_or(otherwise, coracle_model::Span::duration)
            }
            Err(StoreError::NoSuchRelease(..) | StoreError::NoSuchApp(_)) => otherwise,
            Err(error) => {
                tracing::warn!(instance = %id, %error, "cannot look up how long it may take to end");
                otherwise
            }
        }
    }
}

/// In which things two descriptions of a stateful service differ, as far as its container is concerned: who may reach it,
/// what it waits for, how it ends and what its labels say to Traefik changes nothing about it.
fn definition_differences(old: &ProcessSpec, new: &ProcessSpec) -> Vec<String> {
    let mut what = Vec::new();
    let mut differs = |name: &str, different: bool| {
        if different {
            what.push(name.to_owned());
        }
    };
    differs("the image", old.source != new.source);
    differs("the command", old.command != new.command);
    differs("the limits", old.limits != new.limits);
    differs("the volumes", old.volumes != new.volumes);
    let port = |spec: &ProcessSpec| match &spec.exposure {
        Exposure::Http(http) => Some(http.port),
        Exposure::Labels { port } => Some(*port),
        Exposure::ByName | Exposure::Hidden | Exposure::Inside { .. } => None,
    };
    differs("the port it serves on", port(old) != port(new));
    what.extend(setting_differences(&old.container, &new.container));
    what
}

fn setting_differences(old: &ContainerSettings, new: &ContainerSettings) -> Vec<String> {
    let fields = |settings: &ContainerSettings| {
        let mut settings = settings.clone();
        (settings.restart, settings.stop_grace_period) = (RestartPolicy::default(), None);
        // Names by which a release calls it are given when it is joined to that release's network.
        settings.aliases.clear();
        settings.labels.retain(|name, _| !name.starts_with("traefik."));
        serde_json::to_value(settings).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default()
    };
    let (old, new) = (fields(old), fields(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).map(|name| name.replace('_', " ")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_differs_is_named_and_what_does_not_matter_is_not() {
        let old = ProcessSpec::default();
        let mut new = old.clone();
        new.container.restart = RestartPolicy::Never;
        new.container.labels.insert("traefik.enable".into(), "true".into());
        new.depends_on.insert("x".parse().unwrap(), serde_json::from_str(r#"{"condition":"started"}"#).unwrap());
        assert!(definition_differences(&old, &new).is_empty());
        new.container.env.insert("A".into(), "1".into());
        new.container.shm_size = Some(coracle_model::ByteSize::mib(1));
        new.volumes = vec!["data:/data".parse().unwrap()];
        assert_eq!(definition_differences(&old, &new), ["the volumes", "env", "shm size"]);
    }
}

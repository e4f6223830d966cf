//! What a deployment is to make a release of: a tree that has to be built, or an earlier release with something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{AppName, DeploymentKind, EnvName, Origin, Release, ReleaseNumber, Secret};
use coracle_store::{ConfigChange, ConfigEntry};

use crate::core::Core;
use crate::error::OrchestratorError;
use crate::incumbent::Incumbent;
use crate::orchestrator::DeployRequest;
use crate::promotion::Promoted;
use crate::services::StatefulChanges;

/// A release to be.
pub(crate) enum Candidate {
    /// Source to build.
    Tree {
        /// What to build, and how.
        request: Box<DeployRequest>,
        /// The active release's own tree is read again because the configuration changes. `None`: it is new.
        reconfigured: Option<Reconfigured>,
    },
    /// What another app runs.
    Promotion(Box<Promoted>),
    /// The artifact and manifest of an earlier release.
    Again {
        /// That release.
        base: Box<Release>,
        /// Why.
        origin: Origin,
        /// The configuration it runs with.
        env: Vec<(EnvName, Secret)>,
        /// What becomes of the app's configuration when this release becomes active.
        changes: Vec<ConfigChange>,
        /// Which stateful services it may change.
        stateful: StatefulChanges,
    },
}

/// Other configuration for what the active release was made of.
pub(crate) struct Reconfigured {
    /// The active release.
    pub of: ReleaseNumber,
    /// All that it runs with.
    pub env: Vec<(EnvName, Secret)>,
    /// What becomes of the app's configuration when the new release becomes active.
    pub changes: Vec<ConfigChange>,
}

impl Reconfigured {
    /// The app's configuration with these changes, what was kept for its next release included.
    pub(crate) async fn of(core: &Core, base: &Release, changes: Vec<ConfigChange>) -> Result<Self, OrchestratorError> {
        let config = core.store.config(&base.app).await?;
        let mut env: BTreeMap<EnvName, Secret> = config.into_iter().map(|entry| (entry.name, entry.value)).collect();
        for change in &changes {
            match &change.value {
                Some(value) => env.insert(change.name.clone(), value.clone()),
                None => env.remove(&change.name),
            };
        }
        Ok(Self { of: base.number, env: env.into_iter().collect(), changes })
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::Config { changed: self.changes.iter().map(|change| change.name.clone()).collect() }
    }
}

impl Candidate {
    pub(crate) fn app(&self) -> &AppName {
        match self {
            Self::Tree { request, .. } => &request.spec.app,
            Self::Promotion(promoted) => &promoted.promotion.spec.app,
            Self::Again { base, .. } => &base.app,
        }
    }

    /// What it takes the place of.
    pub(crate) fn incumbent(&self) -> Option<Arc<dyn Incumbent>> {
        match self {
            Self::Tree { request, .. } => request.incumbent.clone(),
            Self::Promotion(_) | Self::Again { .. } => None,
        }
    }

    pub(crate) fn kind(&self) -> DeploymentKind {
        match self {
            Self::Tree { reconfigured: None, .. } => DeploymentKind::Deploy,
            Self::Tree { reconfigured: Some(_), .. } => DeploymentKind::Config,
            Self::Promotion(_) => DeploymentKind::Deploy,
            Self::Again { origin: Origin::Deploy { .. } | Origin::Image { .. } | Origin::Promotion { .. }, .. } => {
                DeploymentKind::Deploy
            }
            Self::Again { origin: Origin::Config { .. }, .. } => DeploymentKind::Config,
            Self::Again { origin: Origin::Rollback { .. }, .. } => DeploymentKind::Rollback,
            Self::Again { origin: Origin::Restart { .. }, .. } => DeploymentKind::Restart,
        }
    }

    /// Whether it changes the configuration, and that to what is set already and what the active release runs with.
    pub(crate) async fn reconfigures_nothing(&self, core: &Core) -> Result<bool, OrchestratorError> {
        let (of, env, changes) = match self {
            Self::Tree { reconfigured: Some(Reconfigured { of, env, changes }), .. } => (*of, env, changes),
            Self::Again { base, origin: Origin::Config { .. }, env, changes, .. } => (base.number, env, changes),
            _ => return Ok(false),
        };
        let known = core.store.config(self.app()).await?;
        let is_so = |change: &ConfigChange| {
            let entry = known.iter().find(|entry| entry.name == change.name);
            match (entry, &change.value) {
                (Some(entry), Some(value)) => entry.value == *value && entry.secret == change.secret,
                (entry, None) => entry.is_none(),
                (None, Some(_)) => false,
            }
        };
        let runs_with: BTreeMap<EnvName, Secret> = core.store.release_env(self.app(), of).await?.into_iter().collect();
        Ok(changes.iter().all(is_so) && runs_with == env.iter().cloned().collect())
    }

    /// Whether its answers are to be compared with those of the release before.
    pub(crate) fn is_watched(&self) -> bool {
        match self {
            Self::Tree { request, reconfigured: None } => request.pipeline.watch.is_some(),
            Self::Promotion(promoted) => promoted.promotion.pipeline.watch.is_some(),
            Self::Tree { .. } | Self::Again { .. } => false,
        }
    }

    /// What its release runs with, if that is not what the app is configured with, and what becomes of that configuration.
    pub(crate) fn configuration(&self) -> (&[(EnvName, Secret)], &[ConfigChange]) {
        match self {
            Self::Tree { reconfigured: None, .. } => (&[], &[]),
            Self::Tree { reconfigured: Some(Reconfigured { env, changes, .. }), .. } => (env, changes),
            Self::Promotion(promoted) => (&promoted.env, &[]),
            Self::Again { env, changes, .. } => (env, changes),
        }
    }

    /// Which stateful services it may change.
    pub(crate) fn stateful(&self) -> &StatefulChanges {
        match self {
            Self::Tree { request, .. } => &request.stateful,
            Self::Promotion(promoted) => &promoted.stateful,
            Self::Again { stateful, .. } => stateful,
        }
    }

    /// The active release with other configuration.
    pub(crate) async fn reconfigured(core: &Core, base: Release, changes: Vec<ConfigChange>) -> Result<Self, OrchestratorError> {
        let reconfigured = Reconfigured::of(core, &base, changes).await?;
        let is_set = |name: &EnvName| reconfigured.env.iter().any(|(known, _)| known == name);
        if let Some(name) = base.spec.secrets.iter().find(|name| !is_set(name)) {
            return Err(OrchestratorError::refused(
                format!("{name} is required by the active release and cannot be unset"),
                "take it out of `secrets` in coracle.toml and deploy first".to_owned(),
            ));
        }
        let (origin, stateful) = (reconfigured.origin(), StatefulChanges::default());
        let Reconfigured { env, changes, .. } = reconfigured;
        Ok(Self::Again { base: Box::new(base), origin, env, changes, stateful })
    }

    /// An earlier release, with the configuration it ran with.
    pub(crate) async fn earlier(
        core: &Core,
        app: &AppName,
        to: ReleaseNumber,
        stateful: StatefulChanges,
    ) -> Result<Self, OrchestratorError> {
        let base = core.store.release(app, to).await?;
        let env = core.store.release_env(app, to).await?;
        let changes = difference(&core.store.config(app).await?, &env);
        Ok(Self::Again { base: Box::new(base), origin: Origin::Rollback { to }, env, changes, stateful })
    }

    /// The active release once more.
    pub(crate) async fn restarted(core: &Core, base: Release) -> Result<Self, OrchestratorError> {
        let env = core.store.release_env(&base.app, base.number).await?;
        let origin = Origin::Restart { of: base.number };
        Ok(Self::Again { base: Box::new(base), origin, env, changes: Vec::new(), stateful: StatefulChanges::default() })
    }
}

/// The changes that turn the configuration into `wanted`. A name that is not configured now becomes a secret: it may have
/// been one, and showing it could not be taken back.
fn difference(now: &[ConfigEntry], wanted: &[(EnvName, Secret)]) -> Vec<ConfigChange> {
    let entry = |name: &EnvName| now.iter().find(|entry| entry.name == *name);
    let unset = now.iter().filter(|entry| !wanted.iter().any(|(name, _)| *name == entry.name)).map(|entry| ConfigChange {
        name: entry.name.clone(),
        value: None,
        secret: entry.secret,
    });
    let set = wanted.iter().filter(|(name, value)| entry(name).is_none_or(|entry| entry.value != *value)).map(|(name, value)| {
        ConfigChange { name: name.clone(), value: Some(value.clone()), secret: entry(name).is_none_or(|entry| entry.secret) }
    });
    unset.chain(set).collect()
}

/// The changes that take `changes` back.
pub(crate) fn inverse(before: &[ConfigEntry], changes: &[ConfigChange]) -> Vec<ConfigChange> {
    let undo = |change: &ConfigChange| {
        let old = before.iter().find(|entry| entry.name == change.name);
        ConfigChange {
            name: change.name.clone(),
            value: old.map(|entry| entry.value.clone()),
            secret: old.map_or(change.secret, |entry| entry.secret),
        }
    };
    changes.iter().map(undo).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(name: &str, value: &str, secret: bool) -> ConfigEntry {
        ConfigEntry { name: name.parse().unwrap(), value: Secret::new(value), secret, updated_at: jiff::Timestamp::UNIX_EPOCH }
    }

    fn pairs(changes: &[ConfigChange]) -> Vec<(String, Option<String>, bool)> {
        changes.iter().map(|c| (c.name.to_string(), c.value.as_ref().map(|v| v.expose().to_owned()), c.secret)).collect()
    }

    #[test]
    fn going_back_changes_only_what_differs_and_hides_what_was_forgotten() {
        let now = [entry("SAME", "1", false), entry("OTHER", "2", false), entry("NEW", "3", false)];
        let wanted = [("SAME", "1"), ("OTHER", "old"), ("GONE", "4")].map(|(n, v)| (n.parse().unwrap(), Secret::new(v)));
        let expected = [("NEW", None, false), ("OTHER", Some("old"), false), ("GONE", Some("4"), true)];
        assert_eq!(pairs(&difference(&now, &wanted)), expected.map(|(n, v, s)| (n.to_owned(), v.map(str::to_owned), s)));
    }

    #[test]
    fn the_inverse_restores_what_was_there() {
        let before = [entry("A", "1", true)];
        let changes = [("A", Some("2")), ("B", Some("3"))].map(|(n, v)| ConfigChange {
            name: n.parse().unwrap(),
            value: v.map(Secret::new),
            secret: false,
        });
        let expected = [("A", Some("1"), true), ("B", None, false)];
        assert_eq!(pairs(&inverse(&before, &changes)), expected.map(|(n, v, s)| (n.to_owned(), v.map(str::to_owned), s)));
    }
}

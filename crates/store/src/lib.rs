//! Durable state: what must survive a power cut, in one SQLite file, and the key that its secrets are sealed with.
//!
//! The store knows no engine and takes no decision. Every method is one transaction: it happened as a whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_model::{
    AppName, AppSpec, Artifact, Deployment, DeploymentId, DeploymentKind, EnvName, Origin, Outcome, OwnerId, Phase, ProcessName,
    Release, ReleaseNumber, Secret,
};
use jiff::Timestamp;

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database was written by a newer Coracle.
    #[error(
        "{path} was written by a newer version of Coracle (schema {found}, this one knows up to {known}); install that version, or point --state to another directory"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database is not one, or is damaged.
    #[error("{path} is damaged or not a database: {cause}; it was left as it is")]
    Corrupt {
        /// The file.
        path: String,
        /// What SQLite says.
        cause: String,
    },
    /// The key does not open what is sealed.
    #[error("the secret key in {path} does not open what is stored: {cause}")]
    Key {
        /// The key file.
        path: String,
        /// Why.
        cause: String,
    },
    /// The app does not exist.
    #[error("there is no app {0}")]
    NoSuchApp(AppName),
    /// The release does not exist.
    #[error("app {0} has no release {1}")]
    NoSuchRelease(AppName, ReleaseNumber),
    /// Another deployment of the app has not ended.
    #[error("{} {} of {} has been running since {}", .0.kind, .0.id, .0.app, .0.started_at)]
    Busy(Box<Deployment>),
    /// No space left.
    #[error("no space is left on the disk that holds {path}")]
    DiskFull {
        /// The database.
        path: String,
    },
    /// Anything else.
    #[error("{action}: {cause}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        cause: String,
    },
}

/// An app on record.
#[derive(Debug, Clone)]
pub struct AppRecord {
    /// Its name.
    pub name: AppName,
    /// The release that is active; `None` before the first deployment has succeeded.
    pub active: Option<ReleaseNumber>,
    /// How many instances `ps scale` asked for, by process; a process that is not in it runs as many as its release says.
    pub scale: BTreeMap<ProcessName, u16>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A configuration entry.
#[derive(Debug, Clone)]
pub struct ConfigEntry {
    /// Its name.
    pub name: EnvName,
    /// Its value; sealed in the file whether secret or not.
    pub value: Secret,
    /// Whether it was set as a secret, and so is never shown again.
    pub secret: bool,
    /// When it was set.
    pub updated_at: Timestamp,
}

/// A change of configuration.
#[derive(Debug, Clone)]
pub struct ConfigChange {
    /// Which name.
    pub name: EnvName,
    /// The new value; `None` unsets it.
    pub value: Option<Secret>,
    /// Whether it is a secret.
    pub secret: bool,
}

/// What a release is made of, before it is written.
#[derive(Debug, Clone)]
pub struct NewRelease {
    /// The app.
    pub app: AppName,
    /// The number that [`Store::begin_deployment`] gave.
    pub number: ReleaseNumber,
    /// What was built.
    pub artifact: Artifact,
    /// The manifest.
    pub spec: AppSpec,
    /// Where it came from.
    pub origin: Origin,
    /// The configuration it runs with, values included; sealed.
    pub env: Vec<(EnvName, Secret)>,
}

/// The state of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates `dir/coracle.db` (WAL) and `dir/secret.key` (0600), and brings an older schema up to date.
    pub async fn open(_dir: &Path) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// This server's id: made when the store was created.
    pub fn owner(&self) -> &OwnerId {
        unimplemented!()
    }

    /// Creates the app if it does not exist, and returns it.
    pub async fn ensure_app(&self, _app: &AppName) -> Result<AppRecord, StoreError> {
        unimplemented!()
    }

    /// One app.
    pub async fn app(&self, _app: &AppName) -> Result<AppRecord, StoreError> {
        unimplemented!()
    }

    /// All apps, by name.
    pub async fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        unimplemented!()
    }

    /// Forgets an app with all its releases, deployments and configuration. Succeeds if it is not there.
    pub async fn delete_app(&self, _app: &AppName) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Sets how many instances of each process should run.
    pub async fn set_scale(&self, _app: &AppName, _scale: &[(ProcessName, u16)]) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The current configuration, by name. (What a release runs with is [`Store::release_env`].)
    pub async fn config(&self, _app: &AppName) -> Result<Vec<ConfigEntry>, StoreError> {
        unimplemented!()
    }

    /// Applies all changes, or none.
    pub async fn set_config(&self, _app: &AppName, _changes: &[ConfigChange]) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Writes a release. It is not active yet.
    pub async fn create_release(&self, _release: NewRelease) -> Result<Release, StoreError> {
        unimplemented!()
    }

    /// One release.
    pub async fn release(&self, _app: &AppName, _number: ReleaseNumber) -> Result<Release, StoreError> {
        unimplemented!()
    }

    /// All releases of an app that are kept, oldest first.
    pub async fn releases(&self, _app: &AppName) -> Result<Vec<Release>, StoreError> {
        unimplemented!()
    }

    /// The configuration a release runs with.
    pub async fn release_env(&self, _app: &AppName, _number: ReleaseNumber) -> Result<Vec<(EnvName, Secret)>, StoreError> {
        unimplemented!()
    }

    /// Removes a release that is not active. Its number is not given again. Succeeds if it is not there.
    pub async fn delete_release(&self, _app: &AppName, _number: ReleaseNumber) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Writes down that a deployment begins, in phase `validate`, and takes the next release number for it.
    /// [`StoreError::Busy`] if another one of the same app has not ended.
    pub async fn begin_deployment(&self, _app: &AppName, _kind: DeploymentKind) -> Result<Deployment, StoreError> {
        unimplemented!()
    }

    /// Writes down that a phase begins.
    pub async fn enter_phase(&self, _id: DeploymentId, _phase: Phase) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The commit point of a deployment: in one transaction the phase becomes `switch` and the deployment's release the
    /// app's active one.
    pub async fn activate(&self, _id: DeploymentId) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Takes an activation back after the new release failed while it was watched: in one transaction the release that was
    /// active before (the deployment's `from`) is active again and the phase becomes `start`, so that a crash from here on
    /// undoes the new release.
    pub async fn revert(&self, _id: DeploymentId) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Writes down how a deployment ended.
    pub async fn finish_deployment(&self, _id: DeploymentId, _outcome: &Outcome) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// One deployment.
    pub async fn deployment(&self, _id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        unimplemented!()
    }

    /// The latest deployments of an app, newest first.
    pub async fn deployments(&self, _app: &AppName, _limit: u32) -> Result<Vec<Deployment>, StoreError> {
        unimplemented!()
    }

    /// Deployments of all apps that have not ended, oldest first.
    pub async fn unfinished_deployments(&self) -> Result<Vec<Deployment>, StoreError> {
        unimplemented!()
    }
}

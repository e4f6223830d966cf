//! Durable state: what must survive a power cut, in one SQLite file, and the key that its secrets are sealed with.
//!
//! The store knows no engine and takes no decision. Every method is one transaction: it happened as a whole or not at all.
//! It never repairs, overwrites or deletes a file that it does not understand.

mod approvals;
mod apps;
mod config;
mod database;
mod deployments;
mod directory;
mod error;
mod forges;
mod people;
mod previews;
mod registries;
mod releases;
mod runs;
mod schema;
mod seal;
mod services;
mod steps;

use std::path::Path;
use std::sync::Arc;

use coracle_model::OwnerId;

use database::Database;
use directory::{Directory, Lock};
use seal::Seal;

pub use apps::AppRecord;
pub use config::{ConfigChange, ConfigEntry};
pub use deployments::HISTORY;
pub use error::StoreError;
pub use forges::{DELIVERIES_KEPT, ForgeKey, ForgeRecord, LastEvent};
pub use people::{CredentialRecord, PersonRecord, Proof};
pub use previews::{PreviewAdmission, PreviewRecord, WantedPreview};
pub use registries::LoginRecord;
pub use releases::NewRelease;
pub use runs::{RunRecord, RunSource};
pub use services::ServiceRecord;
pub use steps::{PassedStep, STEPS_KEPT};

/// The state of one server. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Open>);

/// An open state directory. The lock comes last: it is let go when everything else is closed.
struct Open {
    database: Database,
    seal: Seal,
    owner: OwnerId,
    _lock: Lock,
}

impl Store {
    /// Opens or creates `dir/coracle.db` (WAL) and `dir/secret.key` (0600), and brings an older schema up to date.
    ///
    /// Takes `dir/server.lock` for as long as the store or a clone of it lives; if another process has it for longer than a
    /// moment, answers [`StoreError::Locked`]. A database that is newer, damaged or not ours, and a key that is missing,
    /// readable by others or not the right one, are refused and left as they are.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let directory = Directory::create(dir)?;
        let lock = directory.lock().await?;
        let (database, seal) = if directory.has_database()? {
            let database = Database::open(&directory.database()).await?;
            let seal = database.unseal(&directory).await?;
            (database, seal)
        } else {
            let seal = Seal::load_or_create(&directory.key())?;
            Database::create(&directory, &seal).await?;
            (Database::open(&directory.database()).await?, seal)
        };
        let owner = database.owner().await?;
        Ok(Self(Arc::new(Open { database, seal, owner, _lock: lock })))
    }

    /// Closes the database after what is being written, for every clone. Dropping the last clone does too, but later.
    pub async fn close(&self) {
        self.0.database.close().await;
    }

    /// This server's id: made when the store was created.
    pub fn owner(&self) -> &OwnerId {
        &self.0.owner
    }

    fn database(&self) -> &Database {
        &self.0.database
    }

    fn seal(&self) -> &Seal {
        &self.0.seal
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.0.database.path()).field("owner", &self.0.owner).finish_non_exhaustive()
    }
}

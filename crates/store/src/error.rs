//! Why the store refuses or fails. No error holds a value of the configuration.

use coracle_model::{AppName, CredentialId, Deployment, DeploymentId, PersonName, Phase, ReleaseNumber};

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
    /// Another server works on this state.
    #[error(
        "another server{} works on {path}; stop it, or point --state to another directory",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The state directory.
        path: String,
        /// Its process, if it has written it down.
        pid: Option<u32>,
    },
    /// The key is not there, lies open, or does not open what is sealed.
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
    /// The deployment does not exist.
    #[error("there is no deployment {0}")]
    NoSuchDeployment(DeploymentId),
    /// The person does not exist.
    #[error("there is nobody called {0}")]
    NoSuchPerson(PersonName),
    /// The person has no such credential.
    #[error("{0} has no key and no token {1}")]
    NoSuchCredential(PersonName, CredentialId),
    /// There is a person of that name.
    #[error("there is somebody called {0} already")]
    PersonExists(PersonName),
    /// The key is somebody's already, maybe the same person's.
    #[error("the key {fingerprint} is {person}'s already")]
    KeyTaken {
        /// The key.
        fingerprint: String,
        /// Whose it is.
        person: PersonName,
    },
    /// The release is the active one and cannot be removed.
    #[error("release {1} of {0} is active")]
    Active(AppName, ReleaseNumber),
    /// A deployment that has ended cannot go on.
    #[error("deployment {0} has ended")]
    Ended(DeploymentId),
    /// Only what waits for a person can be decided about, and once.
    #[error("deployment {0} does not wait for approval")]
    NotWaiting(DeploymentId),
    /// A deployment cannot go from the phase it is in to that one.
    #[error("deployment {id} is in phase {from} and cannot go to {to}")]
    OutOfOrder {
        /// The deployment.
        id: DeploymentId,
        /// Where it is.
        from: Phase,
        /// Where it was to go.
        to: Phase,
    },
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

/// Result codes of SQLite (<https://sqlite.org/rescode.html>), without the byte that extends them.
mod code {
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

impl StoreError {
    /// An error of the database, sorted into what it means. `path` is the database.
    pub(crate) fn database(action: &'static str, path: &str, error: &sqlx::Error) -> Self {
        let path = path.to_owned();
        if let sqlx::Error::Io(error) = error {
            return Self::io(action, &path, error);
        }
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(code::FULL) => Self::DiskFull { path },
            Some(code::CORRUPT | code::NOT_A_DATABASE) => Self::Corrupt { path, cause: error.to_string() },
            _ => Self::Failed { action, cause: error.to_string() },
        }
    }

    /// An error of the file system, sorted into what it means.
    pub(crate) fn io(action: &'static str, path: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Failed { action, cause: format!("{path}: {error}") },
        }
    }

    /// A record that cannot be read back although the database is whole.
    pub(crate) fn unreadable(path: &str, what: &str, cause: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), cause: format!("{what}: {cause}") }
    }
}

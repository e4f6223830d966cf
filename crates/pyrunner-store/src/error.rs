//! Why the store refuses or fails. No error holds a secret, a password of a database or what a user has sent.

use std::time::Duration;

/// Why the store refuses or fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The location of the database cannot be understood.
    #[error("the location of the database: {0}")]
    Location(String),
    /// The database was written by a newer version that this one cannot work beside.
    #[error("{database} has schema {found}, which this version (schema {known}) cannot use; install the newer PyRunner")]
    Newer {
        /// Which database.
        database: String,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database does not answer; it may again. What was asked for may or may not have been done.
    #[error("{action}: {database} is not available: {cause}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// Which database.
        database: String,
        /// What went wrong.
        cause: String,
    },
    /// No answer in time; the connection is given up.
    #[error("{action}: {database} has not answered within {patience:?}")]
    TimedOut {
        /// What was being done.
        action: &'static str,
        /// Which database.
        database: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// No space left where the database lives; there may be again.
    #[error("{action}: no space is left for {database}")]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// Which database.
        database: String,
    },
    /// A value that no database of ours can hold, or a request that makes no sense.
    #[error("{action}: {cause}")]
    Invalid {
        /// What was being done.
        action: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The database file is damaged, or is none. It was left as it is.
    #[error("{action}: {database} is damaged or not a database: {cause}; restore it from a backup, or name another file")]
    Damaged {
        /// What was being done.
        action: &'static str,
        /// Which database.
        database: String,
        /// What it says.
        cause: String,
    },
    /// The database refuses the values it was given, or holds some that cannot be read; asking again does not help.
    #[error("{action}: {database}: {cause}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// Which database.
        database: String,
        /// What it says.
        cause: String,
    },
}

/// Primary result codes of SQLite (<https://sqlite.org/rescode.html>).
mod sqlite {
    pub(super) const FULL: i32 = 13;
    /// CORRUPT and NOTADB.
    pub(super) const DAMAGED: &[i32] = &[11, 26];
    /// A value is to blame: TOOBIG, CONSTRAINT, MISMATCH, RANGE. BUSY and its like pass, these do not.
    pub(super) const LASTING: &[i32] = &[18, 19, 20, 25];
}

/// Classes of PostgreSQL's SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
mod postgres {
    pub(super) const DISK_FULL: &str = "53100";
    /// Data exception, integrity constraint, program limit exceeded: a value is to blame.
    pub(super) const LASTING: &[&str] = &["22", "23", "54"];
}

impl StoreError {
    /// Whether the same may succeed later: the database is away, busy or full, and not the request to blame.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut { .. } | Self::DiskFull { .. })
    }

    /// Whether what was to be written is to blame, not the database: it fails wherever and whenever it is tried.
    pub(crate) fn blames_values(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Failed { .. })
    }

    /// An error of the database, sorted into what it means.
    pub(crate) fn database(action: &'static str, database: &str, error: &sqlx::Error) -> Self {
        let database = database.to_owned();
        let cause = error.to_string();
        let Some(said) = error.as_database_error() else {
            return match error {
                sqlx::Error::Io(error) if is_full(error) => Self::DiskFull { action, database },
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable { action, database, cause },
                _ => Self::Failed { action, database, cause },
            };
        };
        let code = said.code().unwrap_or_default();
        if said.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            return match &*code {
                postgres::DISK_FULL => Self::DiskFull { action, database },
                code if postgres::LASTING.iter().any(|class| code.starts_with(class)) => Self::Failed { action, database, cause },
                // Shutting down, starting up, too many connections, read-only after a fail-over, a table that is not there
                // yet: all of these have been seen to pass.
                _ => Self::Unavailable { action, database, cause },
            };
        }
        match code.parse::<i32>().map(|code| code & 0xff) {
            Ok(sqlite::FULL) => Self::DiskFull { action, database },
            Ok(code) if sqlite::DAMAGED.contains(&code) => Self::Damaged { action, database, cause },
            Ok(code) if sqlite::LASTING.contains(&code) => Self::Failed { action, database, cause },
            _ => Self::Unavailable { action, database, cause },
        }
    }

    pub(crate) fn invalid(action: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Invalid { action, cause: cause.to_string() }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

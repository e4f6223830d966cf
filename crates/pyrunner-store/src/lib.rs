//! PyRunner's durable state: the history of executions, API keys, jobs and idempotency keys, in SQLite or PostgreSQL.
//!
//! Several processes may share one database: while a release replaces another, both serve. So every decision that must
//! be taken once (whose job it is, who answers a repeated request) is taken by the database, and the schema only grows.
//!
//! It refuses: to know what an execution is (it keeps bytes), to answer HTTP, to decide who may do what beyond whose record
//! it is, and to let a slow or absent database hold up an execution ([`Recorder`]).

mod database;
mod error;
mod history;
mod id;
mod idempotency;
mod jobs;
mod keys;
mod location;
mod pool;
mod queue;
mod record;
mod recorder;
mod retention;
mod schema;
mod session;

use std::sync::Arc;

pub use error::StoreError;
pub use history::{Cursor, CursorError, Excerpt, HistorySize, PAGE_MAX, Page, Scope};
pub use id::{Id, IdError};
pub use idempotency::{Begun, Fingerprint, Turn};
pub use jobs::{Callback, CallbackOutcome, CallbackState, Cancellation, Interrupted, Job, JobState, NewJob};
pub use keys::{ApiKey, KeyError, KeyLimits, NewKey, Role, Token};
pub use record::{Record, Usage};
pub use recorder::{Dropped, Failing, Health, NotRecorded, Recorder, RecorderOptions};
pub use retention::{Policy, Swept};

use database::Database;

/// The durable state. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Store(Arc<Database>);

impl Store {
    /// Opens a database and brings its schema up to date: `postgres://…`, `sqlite:PATH` or a path. A file that is not there
    /// is made, for its owner alone. PostgreSQL must answer.
    pub async fn open(location: &str) -> Result<Self, StoreError> {
        let store = Self::open_lazily(location).await?;
        store.0.prepare("open the database").await?;
        Ok(store)
    }

    /// Opens a database that may not answer yet: a PostgreSQL that cannot be reached is an error of each call until it can,
    /// and its schema is brought up to date then. A file is opened at once.
    pub async fn open_lazily(location: &str) -> Result<Self, StoreError> {
        let database = Database::new(&location.parse()?).await?;
        if database.is_sqlite() {
            database.prepare("open the database").await?;
        }
        Ok(Self(Arc::new(database)))
    }

    /// Whether the database answers: a question without an effect.
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut session = self.0.read("ask the database").await?;
        session.row("SELECT 1", &[]).await.map(drop)
    }

    /// What the database is called in messages: a path, or a host and a name. Never a password.
    pub fn describe(&self) -> &str {
        self.0.name()
    }

    /// Closes all connections; calls that come later fail.
    pub async fn close(&self) {
        self.0.close().await;
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Store").field(&self.0.name()).finish()
    }
}

//! The database, either kind: how it is opened, and how a session of it is had.
//!
//! SQLite: one connection writes, so that writers of this process queue here instead of failing with SQLITE_BUSY; a few
//! others read beside it. PostgreSQL: a few connections ([`Pool`]). Neither is waited for without a deadline.

use std::fs::{OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::error::StoreError;
use crate::location::Location;
use crate::pool::Pool;
use crate::schema::{APPLICATION_ID, MIGRATIONS, migrate};
use crate::session::{Connection, PATIENCE, Session};

/// The bytes of a file that tell whether it is a database of ours.
const HEADER: u64 = 100;

/// How long SQLite waits for a transaction of another process.
const BUSY: Duration = Duration::from_secs(5);

/// The open database.
pub(crate) struct Database {
    pools: Pools,
    /// What it is called in messages; holds no password.
    name: Arc<str>,
    /// Whether the schema is known to be up to date. Sessions take it back if a table turns out to be missing.
    migrated: Arc<AtomicBool>,
    /// Held by whoever brings it up to date.
    migrating: Mutex<()>,
}

enum Pools {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(Arc<Pool>),
}

impl Database {
    /// Opens lazily: a PostgreSQL that is not there yet is no error here.
    pub(crate) async fn new(location: &Location) -> Result<Self, StoreError> {
        let (pools, name): (Pools, Arc<str>) = match location {
            Location::Sqlite(path) => (sqlite(path).await?, path.display().to_string().into()),
            Location::Postgres(options) => {
                let name = postgres_name(options).into();
                (Pools::Postgres(Pool::new(postgres((**options).clone()), Arc::clone(&name))), name)
            }
        };
        Ok(Self { pools, name, migrated: Arc::default(), migrating: Mutex::default() })
    }

    /// Sees to it that the database is there and its schema up to date.
    pub(crate) async fn prepare(&self, action: &'static str) -> Result<(), StoreError> {
        if self.migrated.load(Ordering::Acquire) {
            return Ok(());
        }
        let turn = timeout(PATIENCE, self.migrating.lock()).await;
        let _turn = turn.map_err(|_| StoreError::TimedOut { action, database: self.name.to_string(), patience: PATIENCE })?;
        if self.migrated.load(Ordering::Acquire) {
            return Ok(());
        }
        let session = self.connect(action, true).await?;
        migrate(session, &self.name, MIGRATIONS).await?;
        self.migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// A session to read with.
    pub(crate) async fn read(&self, action: &'static str) -> Result<Session, StoreError> {
        self.prepare(action).await?;
        self.connect(action, false).await
    }

    /// A session in a transaction that may write.
    pub(crate) async fn write(&self, action: &'static str) -> Result<Session, StoreError> {
        let mut session = self.write_untransacted(action).await?;
        session.begin().await?;
        Ok(session)
    }

    /// A session that may write and has not begun to.
    pub(crate) async fn write_untransacted(&self, action: &'static str) -> Result<Session, StoreError> {
        self.prepare(action).await?;
        self.connect(action, true).await
    }

    /// A session, whatever the schema is.
    pub(crate) async fn connect(&self, action: &'static str, to_write: bool) -> Result<Session, StoreError> {
        let connection = match &self.pools {
            Pools::Sqlite { writer, readers } => {
                let connection = if to_write { writer } else { readers }.acquire().await;
                Connection::Sqlite(connection.map_err(|error| StoreError::database(action, &self.name, &error))?)
            }
            Pools::Postgres(pool) => Connection::Postgres(pool.acquire(action).await?),
        };
        Ok(Session::new(connection, action, Arc::clone(&self.name), Arc::clone(&self.migrated)))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.pools, Pools::Sqlite { .. })
    }

    pub(crate) async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

fn postgres_name(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("PostgreSQL database {database} at {}", socket.display()),
        None => format!("PostgreSQL database {database} at {}:{}", options.get_host(), options.get_port()),
    }
}

fn postgres(options: PgConnectOptions) -> PgConnectOptions {
    let options = if options.get_application_name().is_some() { options } else { options.application_name("pyrunner") };
    options.disable_statement_logging()
}

async fn sqlite(path: &Path) -> Result<Pools, StoreError> {
    let name = path.display().to_string();
    create_private(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY)
        // A commit is on the disk when it is answered. Batches of history that nobody waits for turn this down.
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-2048")
        .pragma("journal_size_limit", "67108864")
        .statement_cache_capacity(64)
        .disable_statement_logging();
    let pool = |most: u32| {
        PoolOptions::new().max_connections(most).acquire_timeout(BUSY * 2).max_lifetime(None).test_before_acquire(false)
    };
    let writer = pool(1).idle_timeout(None).connect_lazy_with(options.clone().journal_mode(SqliteJournalMode::Wal));
    let readers = pool(3).idle_timeout(Duration::from_secs(60)).connect_lazy_with(options.pragma("query_only", "ON"));
    // Two processes that turn the log on at once may see each other's lock, for which SQLite does not wait by itself.
    let deadline = Instant::now() + BUSY;
    loop {
        match writer.acquire().await {
            Ok(_) => return Ok(Pools::Sqlite { writer, readers }),
            Err(error) => {
                let error = StoreError::database("open the database", &name, &error);
                if !matches!(error, StoreError::Unavailable { .. }) || Instant::now() > deadline {
                    return Err(error);
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// An empty file for its owner alone if there is none, and no rights for others on one that is there. SQLite would make it
/// readable by all; its log and index take after it. What is not ours is left as it is.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let action = "open the database";
    let database = || path.display().to_string();
    let failed = |error: std::io::Error| StoreError::Failed { action, database: database(), cause: error.to_string() };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(failed)?;
    let mut header = Vec::new();
    (&file).take(HEADER).read_to_end(&mut header).map_err(failed)?;
    if let Some(cause) = is_foreign(&header) {
        return Err(StoreError::Damaged { action, database: database(), cause: cause.to_owned() });
    }
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { file.set_permissions(Permissions::from_mode(0o600)).map_err(failed) }
}

/// Why a file that begins like this is none of ours; <https://sqlite.org/fileformat2.html#the_database_header>. Nothing at
/// all is an empty database, and one without a mark has just been made.
fn is_foreign(header: &[u8]) -> Option<&'static str> {
    if header.is_empty() {
        return None;
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Some("it is not an SQLite database");
    }
    match header.get(68..72) {
        None => Some("it is cut off"),
        Some(mark) if mark == [0; 4] || mark == APPLICATION_ID.to_be_bytes() => None,
        Some(_) => Some("it is the database of another program"),
    }
}

//! The SQLite file: how it is made, checked and opened.
//!
//! One connection writes, so that writers queue here instead of failing with SQLITE_BUSY; a few others read beside it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use coracle_model::OwnerId;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::directory::{Directory, create_private, finish_as, make_private, remove_if_there};
use crate::error::StoreError;
use crate::schema::{APPLICATION_ID, MIGRATIONS, VERSION, migrate, version};
use crate::seal::{Record, Seal, fill_random};

/// What the server's check seals.
const KNOWN_TEXT: &[u8] = b"coracle";

/// The open database.
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    path: String,
}

impl Database {
    /// Makes the database beside its place and moves it there when it is whole: no crash leaves half of one behind.
    pub(crate) async fn create(directory: &Directory, seal: &Seal) -> Result<(), StoreError> {
        let (temporary, path) = (directory.unfinished_database(), directory.database());
        let name = path.display().to_string();
        let io = |error: &std::io::Error| StoreError::io("create the database", &name, error);
        let failed = |error: &sqlx::Error| StoreError::database("create the database", &name, error);
        let check = seal.seal(Record::Check, KNOWN_TEXT)?;
        let owner = new_owner()?;
        remove_if_there(&temporary).map_err(|error| io(&error))?;
        remove_if_there(&temporary.with_extension("new-journal")).map_err(|error| io(&error))?;
        // Made here because SQLite would make it readable by all; its log and index take after it.
        let file = create_private(&temporary).map_err(|error| io(&error))?;
        let made = async {
            let mut connection = options(&temporary).journal_mode(SqliteJournalMode::Delete).connect().await?;
            migrate(&mut connection, MIGRATIONS).await?;
            sqlx::query("INSERT INTO server (id, owner, key_check) VALUES (1, $1, $2)")
                .bind(owner)
                .bind(check)
                .execute(&mut connection)
                .await?;
            connection.close().await
        };
        made.await.map_err(|error| failed(&error))?;
        finish_as(&file, &temporary, &path).map_err(|error| io(&error))
    }

    /// Opens a database that is there, after a look at it that does not change it, and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let failed = |error: &sqlx::Error| StoreError::database("open the database", &name, error);
        check_header(path)?;
        check_content(path).await?;
        make_private(path).map_err(|error| StoreError::io("open the database", &name, &error))?;
        let options = options(path).journal_mode(SqliteJournalMode::Wal);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|error| failed(&error))?;
        let mut connection = writer.acquire().await.map_err(|error| failed(&error))?;
        migrate(&mut connection, MIGRATIONS).await.map_err(|error| failed(&error))?;
        drop(connection);
        // Readers close when nobody has read for a while: each costs a thread and a cache.
        let readers = pool(2).idle_timeout(Duration::from_secs(60)).connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { writer, readers, path: name })
    }

    /// The key of this database: the one in the directory, or a new one if it is gone and nothing is sealed with it.
    pub(crate) async fn unseal(&self, directory: &Directory) -> Result<Seal, StoreError> {
        let failed = |error| self.failed("check the secret key", &error);
        if let Some(seal) = Seal::load(&directory.key())? {
            let query = sqlx::query_scalar("SELECT key_check FROM server");
            let check: Vec<u8> = query.fetch_one(self.readers()).await.map_err(failed)?;
            seal.open(Record::Check, &check)?;
            return Ok(seal);
        }
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM config) OR EXISTS (SELECT 1 FROM releases) OR EXISTS (SELECT 1 FROM forges)",
        );
        let something_is_sealed: bool = query.fetch_one(self.readers()).await.map_err(failed)?;
        if something_is_sealed {
            return Err(StoreError::Key {
                path: directory.key().display().to_string(),
                cause: "it is missing; restore it from the backup of this directory".to_owned(),
            });
        }
        let seal = Seal::load_or_create(&directory.key())?;
        let check = seal.seal(Record::Check, KNOWN_TEXT)?;
        let mut transaction = self.begin("check the secret key").await?;
        sqlx::query("UPDATE server SET key_check = $1").bind(check).execute(&mut *transaction).await.map_err(failed)?;
        self.commit("check the secret key", transaction).await?;
        Ok(seal)
    }

    pub(crate) async fn owner(&self) -> Result<OwnerId, StoreError> {
        let query = sqlx::query_scalar("SELECT owner FROM server");
        let owner: String = query.fetch_one(self.readers()).await.map_err(|error| self.failed("read the owner id", &error))?;
        owner.parse().map_err(|error| StoreError::unreadable(&self.path, "the owner id", error))
    }

    /// Begins to write. Immediately, so that a transaction that reads first cannot fail when it comes to write.
    pub(crate) async fn begin(&self, action: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.failed(action, &error))
    }

    pub(crate) async fn commit(&self, action: &'static str, transaction: Transaction<'_, Sqlite>) -> Result<(), StoreError> {
        transaction.commit().await.map_err(|error| self.failed(action, &error))
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn failed(&self, action: &'static str, error: &sqlx::Error) -> StoreError {
        StoreError::database(action, &self.path, error)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// What every connection has in common.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        // A phase is written down before it begins, so it must be on the disk when the call returns: NORMAL may lose the
        // last transactions in a power cut. A deployment writes about ten times; that many syncs cost it milliseconds.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        // Small caches: the whole database is a few megabytes and in the kernel's cache anyway. Negative: KiB.
        .pragma("cache_size", "-256")
        .pragma("mmap_size", "0")
        .pragma("wal_autocheckpoint", "256")
        .pragma("journal_size_limit", "1048576")
        .statement_cache_capacity(32)
        .disable_statement_logging()
}

fn pool(most: u32) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(None)
        .max_lifetime(None)
        // There is no network in between that a connection could be lost on.
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(is_between_transactions(connection)))
}

/// Whether a connection that comes back has ended its transaction. SQLite ends one by itself when a disk is full or fails
/// (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction"); the driver goes on counting it and would
/// begin no other. Such a connection is closed, and the next one begins anew.
async fn is_between_transactions(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // What was dropped is rolled back before this is answered.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Looks at the first bytes without SQLite, which would take an empty file for an empty database. See
/// <https://sqlite.org/fileformat2.html#the_database_header>. A newer schema is refused later, where the write-ahead log
/// is read too.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let corrupt = |cause: &str| StoreError::Corrupt { path: name.clone(), cause: cause.to_owned() };
    let io = |error: &std::io::Error| StoreError::io("open the database", &name, error);
    let mut header = [0; 100];
    if !std::fs::metadata(path).map_err(|error| io(&error))?.is_file() {
        return Err(corrupt("it is not a file"));
    }
    match File::open(path).map_err(|error| io(&error))?.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(corrupt("it is empty or cut off")),
        Err(error) => return Err(io(&error)),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(corrupt("it is not an SQLite database"));
    }
    if header[68..72] != APPLICATION_ID.to_be_bytes() {
        return Err(corrupt("it is the database of another program"));
    }
    Ok(())
}

/// Looks at the content through a connection that cannot write, not even by closing.
async fn check_content(path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let failed = |error: &sqlx::Error| StoreError::database("check the database", &name, error);
    let mut connection = options(path).read_only(true).connect().await.map_err(|error| failed(&error))?;
    let checked = look_at(&mut connection, &name).await;
    connection.close().await.map_err(|error| failed(&error))?;
    checked
}

async fn look_at(connection: &mut SqliteConnection, name: &str) -> Result<(), StoreError> {
    let failed = |error| StoreError::database("check the database", name, &error);
    let found = version(connection).await.map_err(failed)?;
    if found > VERSION {
        return Err(StoreError::Newer { path: name.to_owned(), found, known: VERSION });
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(failed)?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Corrupt { path: name.to_owned(), cause: verdict }) }
}

/// Twelve hexadecimal digits nobody else has.
fn new_owner() -> Result<String, StoreError> {
    let mut bytes = [0; 6];
    fill_random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{ConfigChange, Store, StoreError};

    /// The page limit stands for the disk: SQLite answers both with SQLITE_FULL.
    #[tokio::test]
    async fn a_full_disk_is_named_and_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).await.unwrap();
        let app = "shop".parse().unwrap();
        store.ensure_app(&app).await.unwrap();
        let set = |value: &str| ConfigChange { name: "A".parse().unwrap(), value: Some(value.into()), secret: false };
        store.set_config(&app, &[set("small")]).await.unwrap();
        sqlx::raw_sql("PRAGMA max_page_count = 1").execute(&store.database().writer).await.unwrap();
        let result = store.set_config(&app, &[set(&"large".repeat(100_000))]).await;
        assert!(matches!(result, Err(StoreError::DiskFull { .. })), "{result:?}");
        sqlx::raw_sql("PRAGMA max_page_count = 1000000").execute(&store.database().writer).await.unwrap();
        assert_eq!(store.config(&app).await.unwrap()[0].value.expose(), "small");
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_has_ended_by_itself_is_no_end_of_writing() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).await.unwrap();
        let app = "shop".parse().unwrap();
        store.ensure_app(&app).await.unwrap();
        let mut transaction = store.database().begin("test").await.unwrap();
        // As a full disk does, this ends the whole transaction.
        let twice =
            sqlx::query("INSERT OR ROLLBACK INTO apps (name, created_at) VALUES ('shop', 1)").execute(&mut *transaction).await;
        assert!(twice.is_err());
        drop(transaction);
        let change = ConfigChange { name: "A".parse().unwrap(), value: Some("1".into()), secret: false };
        store.set_config(&app, &[change]).await.unwrap();
    }

    #[tokio::test]
    async fn the_connections_are_set_as_durability_and_memory_ask_for() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).await.unwrap();
        let pragmas = [
            ("PRAGMA journal_mode", "wal"),
            ("PRAGMA synchronous", "2"),
            ("PRAGMA foreign_keys", "1"),
            ("PRAGMA cache_size", "-256"),
            ("PRAGMA busy_timeout", "5000"),
        ];
        for (pragma, expected) in pragmas {
            for pool in [&store.database().writer, &store.database().readers] {
                use sqlx::Row as _;
                let row = sqlx::raw_sql(pragma).fetch_one(pool).await.unwrap();
                let found = row.try_get_unchecked::<String, _>(0).unwrap();
                assert_eq!(found, expected, "{pragma}");
            }
        }
        let refused = sqlx::raw_sql("DELETE FROM apps").execute(&store.database().readers).await;
        assert!(refused.is_err(), "readers do not write");
    }
}

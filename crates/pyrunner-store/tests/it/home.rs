//! A database of a test's own, of either kind, and things to put into it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_pyrunner_store::{Record, Scope, Store};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::postgres::Cluster;

pub(crate) enum Home {
    Sqlite(TempDir),
    Postgres(Cluster),
}

impl Home {
    pub(crate) fn sqlite() -> Option<Self> {
        Some(Self::Sqlite(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn postgresql() -> Option<Self> {
        let mut cluster = Cluster::new()?;
        cluster.start(&[]);
        Some(Self::Postgres(cluster))
    }

    pub(crate) fn location(&self) -> String {
        match self {
            Self::Sqlite(dir) => dir.path().join("state/pyrunner.db").display().to_string(),
            Self::Postgres(cluster) => cluster.url(),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Sqlite(dir) => dir.path().join("state").join(name),
            Self::Postgres(cluster) => cluster.dir().join(name),
        }
    }

    /// Does something to the database behind the store's back.
    pub(crate) async fn sql(&self, statement: &str) {
        match self {
            Self::Sqlite(_) => {
                let url = format!("sqlite:{}", self.location());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
            }
            Self::Postgres(cluster) => postgres_sql(&cluster.url(), statement).await,
        }
    }

    /// Locks a table (SQLite: everything) against writers, as a stranger's transaction may.
    pub(crate) async fn lock(&self, table: &str) -> Lock {
        match self {
            Self::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&format!("sqlite:{}", self.location())).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                Lock::Sqlite(connection)
            }
            Self::Postgres(cluster) => {
                let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
                let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
                sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
                Lock::Postgres(connection)
            }
        }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.location()).await.unwrap()
    }
}

pub(crate) enum Lock {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Lock {
    pub(crate) async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}

pub(crate) async fn postgres_sql(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// Runs each of these on both databases, under `sqlite::` and `postgresql::`.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(home) = crate::home::Home::sqlite() {
                    super::$name(home).await;
                }
            })+
        }
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(home) = crate::home::Home::postgresql() {
                    super::$name(home).await;
                }
            })+
        }
    };
}
pub(crate) use on_both;

/// A record with something in it.
pub(crate) fn record(owner: &str, code: &str) -> Record {
    Record::new(owner, code.to_owned()).unwrap()
}

pub(crate) fn of(owner: &str) -> Scope {
    Scope::Owner(owner.to_owned())
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Polls until it is so; a test that waits for more than 20 s has failed.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + seconds(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

//! One connection of either database, and the words both understand: `$1` placeholders, integers, text and bytes.
//!
//! Every statement of the store is written once and goes through here. A session that is dropped in the middle of a
//! statement or a transaction takes its connection with it: closing it is what makes both databases undo the work, and no
//! half-read answer can reach the next user of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite};
use tokio::time::timeout;

use crate::error::StoreError;
use crate::pool::Pooled;

/// How long a statement may take. Longer than SQLite waits for another process's transaction.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// A parameter of a statement. PostgreSQL wants to know the type of a NULL, too.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Bytes>),
}

/// A row of a result.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A connection that is given out, of either kind.
pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(Pooled),
}

/// A connection in use, for one action.
pub(crate) struct Session {
    /// `None` only while it is dropped.
    connection: Option<Connection>,
    action: &'static str,
    database: Arc<str>,
    /// Whether the schema is up to date; taken back if a table turns out to be missing.
    migrated: Arc<AtomicBool>,
    /// How long each statement may take.
    patience: Duration,
    in_transaction: bool,
    /// Whether the connection is in the middle of something.
    unfinished: bool,
}

/// The same body for both databases: `$query` names the query of either kind, with its values bound.
macro_rules! on_either {
    ($session:expr, $sql:expr, $values:expr, |$query:ident, $connection:ident| $body:expr, $sqlite:path, $postgres:path) => {{
        match $session.connection.as_mut() {
            Some(Connection::Sqlite(pooled)) => {
                let $connection = &mut **pooled;
                let $query = bind!(sqlx::query::<Sqlite>($sql), $values);
                $body.map($sqlite)
            }
            Some(Connection::Postgres(pooled)) => {
                let $connection = &mut pooled.connection;
                let $query = bind!(sqlx::query::<Postgres>($sql), $values);
                $body.map($postgres)
            }
            None => Err(sqlx::Error::PoolClosed),
        }
    }};
}

macro_rules! bind {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Int(value) => query.bind(*value),
                Value::Text(value) => query.bind(value.as_deref()),
                Value::Bytes(value) => query.bind(value.as_deref()),
            };
        }
        query
    }};
}

/// What a statement has done or found.
enum Outcome {
    Done(u64),
    Rows(Vec<Row>),
}

impl Outcome {
    fn sqlite_done(done: sqlx::sqlite::SqliteQueryResult) -> Self {
        Self::Done(done.rows_affected())
    }

    fn postgres_done(done: sqlx::postgres::PgQueryResult) -> Self {
        Self::Done(done.rows_affected())
    }

    fn sqlite_rows(rows: Vec<SqliteRow>) -> Self {
        Self::Rows(rows.into_iter().map(Row::Sqlite).collect())
    }

    fn postgres_rows(rows: Vec<PgRow>) -> Self {
        Self::Rows(rows.into_iter().map(Row::Postgres).collect())
    }
}

impl Session {
    pub(crate) fn new(connection: Connection, action: &'static str, database: Arc<str>, migrated: Arc<AtomicBool>) -> Self {
        let connection = Some(connection);
        Self { connection, action, database, migrated, patience: PATIENCE, in_transaction: false, unfinished: false }
    }

    /// Lets each statement take longer from now on.
    pub(crate) fn allow(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.connection, Some(Connection::Sqlite(_)))
    }

    /// Begins to write. On SQLite at once, so that a transaction that reads first cannot fail when it comes to write.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        let begin = if self.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.in_transaction = true;
        self.execute(begin, &[]).await.map(drop)
    }

    /// Ends what [`Session::begin`] began.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT", &[]).await?;
        self.in_transaction = false;
        self.unfinished = false;
        Ok(())
    }

    /// Carries a statement out; answers how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<u64, StoreError> {
        match self.run(sql.into_sql_str(), values, false).await? {
            Outcome::Done(rows) => Ok(rows),
            Outcome::Rows(_) => Ok(0),
        }
    }

    /// All rows that a statement finds.
    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        match self.run(sql.into_sql_str(), values, true).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Done(_) => Ok(Vec::new()),
        }
    }

    /// The first row that a statement finds.
    pub(crate) async fn row(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    async fn run(&mut self, sql: SqlStr, values: &[Value], fetch: bool) -> Result<Outcome, StoreError> {
        let holds_nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
        if values.iter().any(holds_nul) {
            return Err(StoreError::invalid(self.action, "a name or a word contains a NUL character"));
        }
        self.unfinished = true;
        let result = timeout(self.patience, async {
            if fetch {
                on_either!(
                    self,
                    sql,
                    values,
                    |query, connection| query.fetch_all(connection).await,
                    Outcome::sqlite_rows,
                    Outcome::postgres_rows
                )
            } else {
                on_either!(
                    self,
                    sql,
                    values,
                    |query, connection| query.execute(connection).await,
                    Outcome::sqlite_done,
                    Outcome::postgres_done
                )
            }
        });
        let (action, database, patience) = (self.action, self.database.to_string(), self.patience);
        let result = match result.await {
            Ok(result) => result.map_err(|error| {
                if is_undefined_table(&error) {
                    self.migrated.store(false, Ordering::Release);
                }
                StoreError::database(action, &database, &error)
            }),
            Err(_) => Err(StoreError::TimedOut { action, database, patience }),
        };
        let broken = result.as_ref().is_err_and(|error| !error.blames_values());
        self.unfinished = self.in_transaction || broken;
        result
    }

    /// Several statements without parameters. What they hold comes from this program.
    pub(crate) async fn script(&mut self, sql: SqlStr) -> Result<(), StoreError> {
        self.unfinished = true;
        let result = timeout(self.patience, async {
            match self.connection.as_mut() {
                Some(Connection::Sqlite(connection)) => sqlx::raw_sql(sql).execute(&mut **connection).await.map(drop),
                Some(Connection::Postgres(pooled)) => sqlx::raw_sql(sql).execute(&mut pooled.connection).await.map(drop),
                None => Err(sqlx::Error::PoolClosed),
            }
        });
        let (action, database, patience) = (self.action, self.database.to_string(), self.patience);
        let result = result.await.map_err(|_| StoreError::TimedOut { action, database: database.clone(), patience })?;
        self.unfinished = self.in_transaction || result.is_err();
        result.map_err(|error| StoreError::database(action, &database, &error))
    }

    /// Now by the clock that everybody who shares the database shares, in microseconds since 1970.
    pub(crate) async fn now(&mut self) -> Result<i64, StoreError> {
        const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
        if self.is_sqlite() {
            return Ok(jiff::Timestamp::now().as_microsecond());
        }
        self.row(NOW, &[]).await?.map_or_else(|| Err(self.unreadable("it does not tell the time")), |row| row.int(0))
    }

    pub(crate) fn unreadable(&self, cause: impl std::fmt::Display) -> StoreError {
        StoreError::Failed { action: self.action, database: self.database.to_string(), cause: cause.to_string() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(Connection::Sqlite(connection)) if self.unfinished => drop(connection.detach()),
            // What is not given back is closed.
            Some(Connection::Postgres(pooled)) if !self.unfinished => pooled.give_back(),
            _ => {}
        }
    }
}

/// Whether PostgreSQL misses a table: it is another database than the one that was prepared.
fn is_undefined_table(error: &sqlx::Error) -> bool {
    const UNDEFINED_TABLE: &str = "42P01";
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == UNDEFINED_TABLE)
}

macro_rules! column {
    ($row:expr, $column:expr) => {{
        let result = match $row {
            Row::Sqlite(row) => row.try_get($column),
            Row::Postgres(row) => row.try_get($column),
        };
        // The names of columns and types, never a value.
        result.map_err(|error| StoreError::invalid("read a row", error))
    }};
}

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64, StoreError> {
        column!(self, column)
    }

    pub(crate) fn int_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        column!(self, column)
    }

    /// An integer that is never negative.
    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.int(column)?).unwrap_or(0))
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        column!(self, column)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        column!(self, column)
    }

    pub(crate) fn bytes_or_null(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        column!(self, column)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Value {
    /// Numbers past what both databases can hold (2⁶³ − 1) become that.
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<Option<Bytes>> for Value {
    fn from(value: Option<Bytes>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(Bytes::copy_from_slice(value)))
    }
}

impl From<crate::Id> for Value {
    fn from(value: crate::Id) -> Self {
        Self::from(value.as_bytes().as_slice())
    }
}

impl From<jiff::Timestamp> for Value {
    fn from(value: jiff::Timestamp) -> Self {
        Self::Int(Some(value.as_microsecond()))
    }
}

impl From<Option<jiff::Timestamp>> for Value {
    fn from(value: Option<jiff::Timestamp>) -> Self {
        Self::Int(value.map(jiff::Timestamp::as_microsecond))
    }
}

//! The schema and how it came about: scripts that are only ever added to.
//!
//! Blue and green share the database while traffic moves, and a rollback starts the older program on the newer schema. So a
//! script must only add what the older program need not know (expand now, contract a release later). One that cannot keep
//! to that says so by its `oldest`: programs that know fewer scripts then refuse to start, and say why.

use std::time::Duration;

use sqlx::{AssertSqlSafe, SqlSafeStr};

use crate::error::StoreError;
use crate::session::Session;

/// One step of the schema.
pub(crate) struct Migration {
    /// In PostgreSQL's words; SQLite's differ by the name of one type.
    sql: &'static str,
    /// How many scripts a program must know to work with the result.
    oldest: i64,
}

/// Marks a file of SQLite as PyRunner's: "PyRu" in ASCII.
pub(crate) const APPLICATION_ID: i32 = 0x5079_5275;

/// Every step from an empty database to the present schema.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { sql: include_str!("../migrations/0001_initial.sql"), oldest: 1 }];

/// How long a step may take, and the wait for another program's steps: an index on a long history is not made in seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// What several programs that start at once queue at, in PostgreSQL: "pyrunner" in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8104634853119386994)";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pyrunner_schema (id BIGINT NOT NULL PRIMARY KEY, version BIGINT NOT NULL, oldest BIGINT NOT NULL)";

/// Carries out the steps that the database has not seen, all of them or none.
pub(crate) async fn migrate(mut session: Session, database: &str, steps: &[Migration]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    session.begin().await?;
    session.allow(PATIENCE);
    if !session.is_sqlite() {
        session.rows(LOCK, &[]).await?;
    }
    session.execute(TABLE, &[]).await?;
    let row = session.row("SELECT version, oldest FROM pyrunner_schema WHERE id = 1", &[]).await?;
    let (found, mut oldest) = match row {
        Some(row) => (row.int(0)?, row.int(1)?),
        None => (0, 0),
    };
    if oldest > known {
        return Err(StoreError::Newer { database: database.to_owned(), found, known });
    }
    for step in steps.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        let sql = if session.is_sqlite() { step.sql.replace("BYTEA", "BLOB") } else { step.sql.to_owned() };
        session.script(AssertSqlSafe(sql).into_sql_str()).await?;
        oldest = oldest.max(step.oldest);
    }
    if found < known {
        const MARK: &str = "INSERT INTO pyrunner_schema (id, version, oldest) VALUES (1, $1, $2)
            ON CONFLICT (id) DO UPDATE SET version = excluded.version, oldest = excluded.oldest";
        session.execute(MARK, &[known.into(), oldest.into()]).await?;
        if session.is_sqlite() {
            session.script(AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")).into_sql_str()).await?;
        }
    }
    session.commit().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::database::Database;

    const ONE: Migration = Migration { sql: "CREATE TABLE one (a BYTEA)", oldest: 1 };
    const TWO: Migration = Migration { sql: "ALTER TABLE one ADD COLUMN b BIGINT; INSERT INTO one VALUES (NULL, 2)", oldest: 1 };
    const BROKEN: Migration = Migration { sql: "CREATE TABLE two (a BIGINT); CREATE TABLE nonsense", oldest: 1 };
    const BREAKING: Migration = Migration { sql: "ALTER TABLE one DROP COLUMN a", oldest: 3 };

    async fn database(dir: &tempfile::TempDir) -> Database {
        Database::new(&dir.path().join("x.db").to_str().unwrap().parse().unwrap()).await.unwrap()
    }

    async fn migrate_to(database: &Database, steps: &[Migration]) -> Result<(), StoreError> {
        migrate(database.connect("migrate", true).await.unwrap(), "x.db", steps).await
    }

    async fn number(database: &Database, sql: &'static str) -> i64 {
        let mut session = database.connect("look", false).await.unwrap();
        session.row(sql, &[]).await.unwrap().unwrap().int(0).unwrap()
    }

    #[tokio::test]
    async fn an_older_schema_is_brought_up_to_date_with_what_is_new_alone() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir).await;
        migrate_to(&database, &[ONE]).await.unwrap();
        for _ in 0..2 {
            migrate_to(&database, &[ONE, TWO]).await.unwrap();
        }
        assert_eq!(number(&database, "SELECT COUNT(*) FROM one WHERE b = 2").await, 1);
        assert_eq!(number(&database, "SELECT version FROM pyrunner_schema").await, 2);
        // The older program comes back, and changes nothing.
        migrate_to(&database, &[ONE]).await.unwrap();
        assert_eq!(number(&database, "SELECT version FROM pyrunner_schema").await, 2);
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_the_schema_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir).await;
        migrate_to(&database, &[ONE]).await.unwrap();
        assert!(migrate_to(&database, &[ONE, BROKEN]).await.is_err());
        assert_eq!(number(&database, "SELECT version FROM pyrunner_schema").await, 1);
        assert_eq!(number(&database, "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'two'").await, 0);
        migrate_to(&database, &[ONE, TWO]).await.unwrap();
    }

    #[tokio::test]
    async fn a_step_that_breaks_older_programs_keeps_them_out() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir).await;
        migrate_to(&database, &[ONE, TWO, BREAKING]).await.unwrap();
        let error = migrate_to(&database, &[ONE, TWO]).await.unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
    }
}

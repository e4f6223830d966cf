//! The schema and how it came about: scripts that are only ever added to.
//!
//! Blue and green share the database while traffic moves, and a rollback starts the older program on the newer schema. So a
//! script must only add what the older program need not know (expand now, contract a release later). One that cannot keep
//! to that says so by its `oldest`: programs that know fewer scripts then refuse to start, and say why.

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

/// Every step from an empty database to the present schema.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { sql: include_str!("../migrations/0001_initial.sql"), oldest: 1 }];

/// What several programs that start at once queue at, in PostgreSQL: "pyrunner" in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8104634853119386994)";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pyrunner_schema (id BIGINT NOT NULL PRIMARY KEY, version BIGINT NOT NULL, oldest BIGINT NOT NULL)";

/// Carries out the steps that the database has not seen, all of them or none.
pub(crate) async fn migrate(mut session: Session, database: &str, steps: &[Migration]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    session.begin().await?;
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
    }
    session.commit().await
}

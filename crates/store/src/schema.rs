//! The schema and how it came about: scripts that are only ever added to.
//!
//! The number of scripts a database has seen stands in its header (`user_version`), beside a mark that it is ours
//! (`application_id`).

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

/// Marks a database as Coracle's: "Cora" in ASCII.
pub(crate) const APPLICATION_ID: i32 = 0x436f_7261;

/// Every step from an empty database to the present schema.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_initial.sql"),
    include_str!("../migrations/0002_stacks.sql"),
    include_str!("../migrations/0003_remains.sql"),
    include_str!("../migrations/0004_people.sql"),
    include_str!("../migrations/0005_steps.sql"),
    include_str!("../migrations/0006_webhooks.sql"),
    include_str!("../migrations/0007_registries.sql"),
    include_str!("../migrations/0008_approvals.sql"),
    include_str!("../migrations/0009_runs.sql"),
    include_str!("../migrations/0010_previews.sql"),
    include_str!("../migrations/0011_bringers.sql"),
];

/// The schema this version writes.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Carries out the steps that the database has not seen, all of them or none.
pub(crate) async fn migrate(connection: &mut SqliteConnection, steps: &'static [&'static str]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let seen = version(&mut transaction).await?;
    let new = steps.iter().skip(usize::try_from(seen).unwrap_or(usize::MAX));
    for step in new.clone() {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    if new.len() > 0 {
        // Pragmas take no parameters. Both numbers are ours.
        let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", steps.len());
        sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// The schema a database has.
pub(crate) async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA user_version").fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn empty() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.unwrap()
    }

    #[tokio::test]
    async fn an_older_schema_is_brought_up_to_date_with_what_is_new_alone() {
        const OLD: &[&str] = &["CREATE TABLE one (a)"];
        const NEW: &[&str] = &["CREATE TABLE one (a)", "ALTER TABLE one ADD COLUMN b; INSERT INTO one VALUES (1, 2)"];
        let mut connection = empty().await;
        migrate(&mut connection, OLD).await.unwrap();
        for _ in 0..2 {
            migrate(&mut connection, NEW).await.unwrap();
            assert_eq!(version(&mut connection).await.unwrap(), 2);
        }
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM one WHERE b = 2").fetch_one(&mut connection).await.unwrap();
        assert_eq!(rows, 1);
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_the_schema_as_it_was() {
        const BROKEN: &[&str] = &["CREATE TABLE one (a)", "CREATE TABLE two (a); CREATE TABLE nonsense"];
        let mut connection = empty().await;
        assert!(migrate(&mut connection, BROKEN).await.is_err());
        assert_eq!(version(&mut connection).await.unwrap(), 0);
        let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema").fetch_one(&mut connection).await.unwrap();
        assert_eq!(tables, 0);
    }
}

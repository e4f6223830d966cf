//! Where the database is: a path or a URL, read once.

use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::error::StoreError;

/// Where the database is.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A database of PostgreSQL. The options know the password, so they are never shown.
    Postgres(Box<PgConnectOptions>),
}

/// What may stand behind the `?` of PostgreSQL's URL. An unknown one is refused: a misspelt `sslmode` would go
/// unencrypted in silence.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            check_parameters(text)?;
            let options = PgConnectOptions::from_str(text);
            // The parser's own words may quote the URL, and with it the password.
            let options = options.map_err(|_| {
                StoreError::Location(
                    "it is not a PostgreSQL URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE, with `@`, `/` and `%` in a \
                     password written as %40, %2F and %25"
                        .to_owned(),
                )
            })?;
            return Ok(Self::Postgres(Box::new(options)));
        }
        let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
        if let Some((scheme, _)) = path.split_once("://") {
            let known = "postgres://…, sqlite:PATH or a path";
            return Err(StoreError::Location(format!("{scheme}: is no database that PyRunner knows; give {known}")));
        }
        if path.is_empty() || path == ":memory:" {
            return Err(StoreError::Location("a file's path is missing".to_owned()));
        }
        Ok(Self::Sqlite(path.into()))
    }
}

fn check_parameters(url: &str) -> Result<(), StoreError> {
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    for key in query.split('&').filter_map(|pair| pair.split('=').next()).filter(|key| !key.is_empty()) {
        if PARAMETERS.contains(&key) || key.starts_with("options[") || key.starts_with("options%5B") {
            continue;
        }
        let nearest = PARAMETERS.iter().max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
        let nearest = nearest.copied().unwrap_or("sslmode");
        return Err(StoreError::Location(format!("PostgreSQL's URL knows no parameter {key:?}; did you mean {nearest:?}?")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_path_is_sqlite_with_or_without_a_scheme() {
        for text in ["/var/lib/pyrunner.db", "sqlite:/var/lib/pyrunner.db", "sqlite:///var/lib/pyrunner.db"] {
            let Location::Sqlite(path) = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!(path.to_str(), Some("/var/lib/pyrunner.db"), "{text}");
        }
    }

    #[test]
    fn a_url_of_postgresql_is_read_with_its_parameters() {
        let text = "postgresql://app:p%40ss@db.internal:5433/runs?sslmode=verify-full";
        let Location::Postgres(options) = text.parse().unwrap() else { panic!("{text}") };
        assert_eq!((options.get_host(), options.get_port()), ("db.internal", 5433));
        assert_eq!((options.get_username(), options.get_database()), ("app", Some("runs")));
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
    }

    #[test]
    fn what_is_no_location_is_refused_without_repeating_its_password() {
        for (text, part) in [
            ("", "path is missing"),
            ("mysql://root:hunter2@localhost/x", "mysql: is no database"),
            ("postgres://app:hunter2@db/x?sslmod=require", "did you mean \"sslmode\"?"),
            ("postgres://app:hunter2@db:notaport/x", "not a PostgreSQL URL"),
            ("postgres://app:hunter2@db/x?sslmode=hunter2", "not a PostgreSQL URL"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

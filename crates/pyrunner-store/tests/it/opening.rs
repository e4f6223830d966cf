//! Opening a database: who may read it, several at once, newer and foreign ones.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_pyrunner_store::{Scope, Store, StoreError};
use sqlx::Connection;

use crate::home::{Home, on_both, record};
use crate::postgres::Cluster;

on_both!(
    many_that_start_at_once_make_one_schema,
    an_older_program_works_on_a_newer_schema_that_allows_it,
    a_schema_that_does_not_allow_it_is_refused,
    two_stores_see_what_the_other_writes,
);

async fn many_that_start_at_once_make_one_schema(home: Home) {
    let location = home.location();
    let starts = (0..8).map(|_| {
        let location = location.clone();
        tokio::spawn(async move { Store::open(&location).await })
    });
    for store in futures::future::try_join_all(starts).await.unwrap() {
        let store = store.unwrap();
        store.insert_records(&[record("k1", "x")], false).await.unwrap();
    }
    assert_eq!(home.open().await.history_size().await.unwrap().records, 8);
}

async fn an_older_program_works_on_a_newer_schema_that_allows_it(home: Home) {
    home.open().await.close().await;
    home.sql("UPDATE pyrunner_schema SET version = 1000").await;
    home.sql("ALTER TABLE pyrunner_history ADD COLUMN invented BIGINT").await;
    let store = home.open().await;
    let record = record("k1", "x");
    store.insert_records(std::slice::from_ref(&record), true).await.unwrap();
    assert_eq!(store.record(record.id, &Scope::Everyone).await.unwrap(), Some(record));
    // What it does not know it leaves alone, the number of the schema included.
    home.sql("UPDATE pyrunner_schema SET oldest = 1000 WHERE version = 1000").await;
    assert!(matches!(Store::open(&home.location()).await, Err(StoreError::Newer { found: 1000, .. })));
}

async fn a_schema_that_does_not_allow_it_is_refused(home: Home) {
    home.open().await.close().await;
    home.sql("UPDATE pyrunner_schema SET version = 7, oldest = 7").await;
    let error = Store::open(&home.location()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("install the newer PyRunner"), "{error}");
}

async fn two_stores_see_what_the_other_writes(home: Home) {
    let (blue, green) = (home.open().await, home.open().await);
    for (writer, reader) in [(&blue, &green), (&green, &blue)] {
        let record = record("k1", "x");
        writer.insert_records(std::slice::from_ref(&record), false).await.unwrap();
        assert_eq!(reader.record(record.id, &Scope::Everyone).await.unwrap(), Some(record));
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_file_is_its_owners_alone() {
    let home = Home::sqlite().unwrap();
    let store = home.open().await;
    store.insert_records(&[record("k1", "x")], false).await.unwrap();
    assert_eq!(mode(home.file("").as_path()), 0o700);
    for file in ["pyrunner.db", "pyrunner.db-wal", "pyrunner.db-shm"] {
        assert_eq!(mode(&home.file(file)), 0o600, "{file}");
    }
    store.close().await;
    std::fs::set_permissions(home.file("pyrunner.db"), PermissionsExt::from_mode(0o644)).unwrap();
    let store = home.open().await;
    assert_eq!(mode(&home.file("pyrunner.db")), 0o600, "one that lay open is closed");
    assert_eq!(store.history_size().await.unwrap().records, 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.db");
    let url = format!("sqlite:{}?mode=rwc", foreign.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("PRAGMA application_id = 1; CREATE TABLE theirs (a)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let text = "these are my notes\n".repeat(100).into_bytes();
    let files = [
        ("notes.txt", text.clone(), "not an SQLite database"),
        ("foreign.db", std::fs::read(&foreign).unwrap(), "another program"),
        ("cut.db", b"SQLite format 3\0".to_vec(), "cut off"),
    ];
    for (name, content, cause) in files {
        let file = dir.path().join(name);
        std::fs::write(&file, &content).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        let error = Store::open(file.to_str().unwrap()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { database, .. } if database.ends_with(name)), "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        assert_eq!((std::fs::read(&file).unwrap(), mode(&file)), (content, 0o644), "{name}");
    }
    let error = Store::open(dir.path().to_str().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
}

#[tokio::test]
async fn an_unreachable_postgresql_says_where_and_not_with_which_password() {
    let location = "postgres://app:hunter2@127.0.0.1:1/runs";
    let error = Store::open(location).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(error.to_string().contains("PostgreSQL database runs at 127.0.0.1:1"), "{error}");
    let store = Store::open_lazily(location).await.unwrap();
    let later = store.check().await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), later.to_string(), format!("{store:?}"), store.describe().to_owned()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_postgresql_without_tls_is_refused_where_tls_is_asked_for() {
    let Some(mut cluster) = Cluster::new() else { return };
    let port = cluster.start_on_tcp(&[]);
    let open = |mode: &str| {
        let location = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode={mode}");
        async move { Store::open(&location).await }
    };
    open("prefer").await.unwrap();
    let error = open("require").await.unwrap_err().to_string();
    assert!(error.contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_postgresql_with_tls_is_trusted_by_its_authority_and_name() {
    let Some(mut cluster) = Cluster::new() else { return };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let root = cluster.dir().join("root.pem");
    std::fs::write(&root, made.cert.pem()).unwrap();
    let (cert, key) = cluster.keep_private(&made.cert.pem(), &made.signing_key.serialize_pem());
    let port = cluster.start_on_tcp(&["ssl=on", &format!("ssl_cert_file={cert}"), &format!("ssl_key_file={key}")]);
    let root = root.display();
    let open = |host: &str, parameters: String| {
        let location = format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full{parameters}");
        async move { Store::open(&location).await }
    };
    let store = open("localhost", format!("&sslrootcert={root}")).await.unwrap();
    store.insert_records(&[record("k1", "x")], true).await.unwrap();
    assert!(open("127.0.0.1", format!("&sslrootcert={root}")).await.is_err(), "the certificate is for another name");
    assert!(open("localhost", String::new()).await.is_err(), "nobody vouches for it");
}

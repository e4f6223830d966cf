use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_store::{ConfigChange, Store, StoreError};
use sqlx::{ConnectOptions, Connection};

use crate::harness::{Home, name, shop};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn refused(home: &Home) -> StoreError {
    match Store::open(&home.path()).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// A state with something sealed in it, closed.
async fn filled(home: &Home) {
    let store = home.with_shop().await;
    let change = ConfigChange { name: name("A"), value: Some("1".into()), secret: false };
    store.set_config(&shop(), &[change]).await.unwrap();
    store.close().await;
}

async fn execute(home: &Home, sql: &'static str) {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(home.file("coracle.db")).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The database is refused as corrupt, and nothing about it changes.
async fn refused_untouched(home: &Home) -> String {
    let before = std::fs::read(home.file("coracle.db")).unwrap();
    let error = refused(home).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read(home.file("coracle.db")).unwrap(), before);
    error.to_string()
}

#[tokio::test]
async fn everything_made_is_private_and_the_owner_stays() {
    let home = Home::new();
    let store = home.with_shop().await;
    let owner = store.owner().clone();
    assert_eq!(owner.as_str().len(), 12);
    assert_eq!(mode(&home.path()), 0o700);
    for file in ["coracle.db", "coracle.db-wal", "coracle.db-shm", "secret.key", "server.lock"] {
        assert_eq!(mode(&home.file(file)), 0o600, "{file}");
    }
    assert_eq!(std::fs::read(home.file("secret.key")).unwrap().len(), 32);
    store.close().await;
    drop(store);
    assert_eq!(home.open().await.owner(), &owner);
    let other = Home::new();
    assert_ne!(other.open().await.owner(), &owner);
}

#[tokio::test]
async fn a_database_left_open_to_others_is_made_private() {
    let home = Home::new();
    filled(&home).await;
    std::fs::set_permissions(home.file("coracle.db"), Permissions::from_mode(0o644)).unwrap();
    let _store = home.open().await;
    assert_eq!(mode(&home.file("coracle.db")), 0o600);
}

#[tokio::test]
async fn two_servers_do_not_share_a_state() {
    let home = Home::new();
    let first = home.with_shop().await;
    match refused(&home).await {
        StoreError::Locked { pid, .. } => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other}"),
    }
    let clone = first.clone();
    drop(first);
    assert!(matches!(refused(&home).await, StoreError::Locked { .. }), "a clone holds it too");
    drop(clone);
    home.open().await.app(&shop()).await.unwrap();
}

#[tokio::test]
async fn a_successor_waits_for_a_server_that_is_just_ending() {
    let home = Home::new();
    let first = home.with_shop().await;
    let path = home.path();
    let successor = tokio::spawn(async move { Store::open(&path).await.map(drop) });
    tokio::task::yield_now().await;
    drop(first);
    successor.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused_and_stays_as_it_is() {
    let home = Home::new();
    filled(&home).await;
    execute(&home, "PRAGMA user_version = 999").await;
    let before = std::fs::read(home.file("coracle.db")).unwrap();
    match refused(&home).await {
        StoreError::Newer { found: 999, known, .. } => assert!(known < 999),
        other => panic!("{other}"),
    }
    assert_eq!(std::fs::read(home.file("coracle.db")).unwrap(), before);
}

#[tokio::test]
async fn what_is_not_our_database_is_refused_and_stays_as_it_is() {
    for content in [&b""[..], b"SQLite", b"this is a letter, not a database\n", &[0; 5000], &[0xff; 4096]] {
        let home = Home::new();
        std::fs::create_dir_all(home.path()).unwrap();
        std::fs::write(home.file("coracle.db"), content).unwrap();
        refused_untouched(&home).await;
        assert!(!home.file("secret.key").exists(), "no key is made for it");
    }
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::File::create(home.file("coracle.db")).unwrap();
    execute(&home, "CREATE TABLE theirs (a)").await;
    let message = refused_untouched(&home).await;
    assert!(message.contains("another program"), "{message}");
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_stays_as_it_is() {
    for (from, to) in [(100, 200), (4096, 8192), (8192, 12288)] {
        let home = Home::new();
        filled(&home).await;
        let mut bytes = std::fs::read(home.file("coracle.db")).unwrap();
        bytes[from..to].fill(0xa5);
        std::fs::write(home.file("coracle.db"), bytes).unwrap();
        refused_untouched(&home).await;
    }
}

#[tokio::test]
async fn a_database_that_was_cut_off_is_refused() {
    let home = Home::new();
    filled(&home).await;
    let bytes = std::fs::read(home.file("coracle.db")).unwrap();
    std::fs::write(home.file("coracle.db"), &bytes[..bytes.len() / 2]).unwrap();
    refused_untouched(&home).await;
}

#[tokio::test]
async fn a_log_without_its_database_is_not_mixed_into_a_new_one() {
    let home = Home::new();
    filled(&home).await;
    std::fs::remove_file(home.file("coracle.db")).unwrap();
    std::fs::write(home.file("coracle.db-wal"), "pages").unwrap();
    let error = refused(&home).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!home.file("coracle.db").exists());
}

#[tokio::test]
async fn a_creation_that_was_interrupted_is_begun_anew() {
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.file("coracle.db.new"), "half").unwrap();
    std::fs::write(home.file("secret.new"), "half").unwrap();
    home.with_shop().await;
    assert!(!home.file("coracle.db.new").exists() && !home.file("secret.new").exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_refused() {
    let home = Home::new();
    std::fs::write(home.path(), "a file").unwrap();
    assert!(matches!(refused(&home).await, StoreError::Failed { .. }));
    let home = Home::new();
    std::fs::create_dir_all(home.file("coracle.db")).unwrap();
    assert!(matches!(refused(&home).await, StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn a_key_that_others_may_read_is_refused() {
    let home = Home::new();
    filled(&home).await;
    for open in [0o640, 0o604, 0o620, 0o666] {
        std::fs::set_permissions(home.file("secret.key"), Permissions::from_mode(open)).unwrap();
        let error = refused(&home).await;
        assert!(matches!(&error, StoreError::Key { cause, .. } if cause.contains("chmod 600")), "{error}");
    }
    std::fs::set_permissions(home.file("secret.key"), Permissions::from_mode(0o400)).unwrap();
    home.open().await;
}

#[tokio::test]
async fn a_key_of_the_wrong_length_is_refused_and_stays() {
    for length in [0, 31, 33] {
        let home = Home::new();
        filled(&home).await;
        std::fs::write(home.file("secret.key"), vec![7; length]).unwrap();
        assert!(matches!(refused(&home).await, StoreError::Key { .. }));
        assert_eq!(std::fs::read(home.file("secret.key")).unwrap().len(), length);
    }
}

#[tokio::test]
async fn another_key_is_refused_at_once() {
    let home = Home::new();
    filled(&home).await;
    std::fs::write(home.file("secret.key"), [7; 32]).unwrap();
    assert!(matches!(refused(&home).await, StoreError::Key { .. }));
}

#[tokio::test]
async fn a_key_behind_a_symbolic_link_is_refused() {
    let home = Home::new();
    filled(&home).await;
    std::fs::rename(home.file("secret.key"), home.file("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.file("elsewhere"), home.file("secret.key")).unwrap();
    assert!(matches!(refused(&home).await, StoreError::Failed { .. }));
}

#[tokio::test]
async fn a_missing_key_is_made_anew_only_while_nothing_is_sealed() {
    let home = Home::new();
    home.with_shop().await.close().await;
    std::fs::remove_file(home.file("secret.key")).unwrap();
    filled(&home).await;
    home.open().await.close().await;
    std::fs::remove_file(home.file("secret.key")).unwrap();
    let error = refused(&home).await;
    assert!(matches!(&error, StoreError::Key { cause, .. } if cause.contains("missing")), "{error}");
    assert!(!home.file("secret.key").exists());
}

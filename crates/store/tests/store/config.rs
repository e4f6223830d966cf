use std::collections::BTreeMap;

use coracle_model::{EnvName, Secret};
use coracle_store::{ConfigChange, Store, StoreError};
use proptest::prelude::*;

use crate::harness::{Home, deployed, name, new_release, shop};

fn set(key: &str, value: &str) -> ConfigChange {
    ConfigChange { name: name(key), value: Some(value.into()), secret: false }
}

fn unset(key: &str) -> ConfigChange {
    ConfigChange { name: name(key), value: None, secret: false }
}

async fn plain(store: &Store) -> BTreeMap<EnvName, String> {
    let entries = store.config(&shop()).await.unwrap();
    entries.into_iter().map(|entry| (entry.name, entry.value.expose().to_owned())).collect()
}

#[tokio::test]
async fn changes_are_applied_in_order_and_listed_by_name() {
    let home = Home::new();
    let store = home.with_shop().await;
    let secret = ConfigChange { secret: true, ..set("Z", "hidden") };
    store.set_config(&shop(), &[set("B", "1"), secret, set("A", ""), set("B", "2"), unset("NEVER")]).await.unwrap();
    let entries = store.config(&shop()).await.unwrap();
    let shown: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.value.expose(), e.secret)).collect();
    assert_eq!(shown, [("A", "", false), ("B", "2", false), ("Z", "hidden", true)]);
    store.set_config(&shop(), &[unset("B"), set("Z", "open")]).await.unwrap();
    let entries = store.config(&shop()).await.unwrap();
    let shown: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.value.expose(), e.secret)).collect();
    assert_eq!(shown, [("A", "", false), ("Z", "open", false)]);
}

#[tokio::test]
async fn the_configuration_of_an_app_that_is_not_there_is_refused() {
    let home = Home::new();
    let store = home.open().await;
    assert!(matches!(store.config(&shop()).await, Err(StoreError::NoSuchApp(_))));
    assert!(matches!(store.set_config(&shop(), &[set("A", "1")]).await, Err(StoreError::NoSuchApp(_))));
}

#[tokio::test]
async fn no_value_and_no_key_is_in_the_files_or_in_what_is_printed() {
    const VALUE: &str = "correct-horse-battery-staple";
    let home = Home::new();
    let store = home.with_shop().await;
    let change = ConfigChange { secret: true, ..set("SECRET_KEY", VALUE) };
    store.set_config(&shop(), std::slice::from_ref(&change)).await.unwrap();
    let deployment = deployed(&store, &shop()).await;
    let next = store.begin_deployment(&shop(), coracle_model::DeploymentKind::Config).await.unwrap();
    let release = new_release(&shop(), next.to, &[("SECRET_KEY", VALUE)]);
    let printed = format!("{release:?} {change:?}");
    store.create_release(release).await.unwrap();
    let entries = store.config(&shop()).await.unwrap();
    let printed = format!("{printed} {store:?} {entries:?} {deployment:?}");
    assert!(!printed.contains(VALUE), "{printed}");

    let key = std::fs::read(home.file("secret.key")).unwrap();
    let open = home.raw_bytes();
    store.close().await;
    let closed = home.raw_bytes();
    for bytes in [open, closed] {
        assert!(bytes.windows(10).any(|window| window == b"SECRET_KEY"), "the search itself finds what is there");
        assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
        assert!(!bytes.windows(16).any(|window| window == &key[..16]));
    }
}

#[tokio::test]
async fn equal_values_do_not_look_equal_in_the_file() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.set_config(&shop(), &[set("A", "the same"), set("B", "the same")]).await.unwrap();
    store.close().await;
    let sealed: Vec<Vec<u8>> = raw(&home, "SELECT value FROM config").await;
    assert_eq!(sealed.len(), 2);
    assert_ne!(sealed[0][25..], sealed[1][25..]);
}

#[tokio::test]
async fn a_sealed_value_moved_to_another_record_does_not_open() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.set_config(&shop(), &[set("ADMIN", "no"), set("GUEST", "yes")]).await.unwrap();
    store.close().await;
    drop(store);
    let moved = "UPDATE config SET value = (SELECT value FROM config WHERE name = 'GUEST') WHERE name = 'ADMIN' RETURNING value";
    raw(&home, moved).await;
    let store = home.open().await;
    let read = store.config(&shop()).await;
    assert!(matches!(read, Err(StoreError::Key { .. })), "{read:?}");
}

/// Reads or writes behind the store's back.
async fn raw(home: &Home, sql: &'static str) -> Vec<Vec<u8>> {
    use sqlx::{ConnectOptions, Connection};
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(home.file("coracle.db")).connect().await.unwrap();
    let rows = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is set and unset, the store holds what a map would, also after a restart.
    #[test]
    fn configuration_behaves_like_a_map(
        batches in prop::collection::vec(
            prop::collection::vec(("[A-D]", prop::option::of(any::<String>()), any::<bool>()), 0..6),
            0..4,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = Home::new();
            let store = home.with_shop().await;
            let mut expected: BTreeMap<EnvName, String> = BTreeMap::new();
            for batch in batches {
                let changes: Vec<_> = batch
                    .into_iter()
                    .map(|(key, value, secret)| ConfigChange { name: name(&key), value: value.map(Secret::new), secret })
                    .collect();
                store.set_config(&shop(), &changes).await.unwrap();
                for change in changes {
                    match change.value {
                        Some(value) => expected.insert(change.name, value.expose().to_owned()),
                        None => expected.remove(&change.name),
                    };
                }
                assert_eq!(plain(&store).await, expected);
            }
            store.close().await;
            drop(store);
            assert_eq!(plain(&home.open().await).await, expected);
        });
    }
}

#[tokio::test]
async fn configuration_changes_with_the_release_or_not_at_all() {
    let home = Home::new();
    let store = home.with_shop().await;
    deployed(&store, &shop()).await;
    let next = store.begin_deployment(&shop(), coracle_model::DeploymentKind::Config).await.unwrap();
    let refused = store.activate(next.id, &[set("A", "1")]).await;
    assert!(matches!(refused, Err(StoreError::NoSuchRelease(..))), "{refused:?}");
    assert_eq!(plain(&store).await, BTreeMap::new());
    store.create_release(new_release(&shop(), next.to, &[])).await.unwrap();
    store.activate(next.id, &[set("A", "1")]).await.unwrap();
    assert_eq!(plain(&store).await, BTreeMap::from([(name("A"), "1".to_owned())]));
    store.revert(next.id, &[unset("A")]).await.unwrap();
    assert_eq!(plain(&store).await, BTreeMap::new());
}

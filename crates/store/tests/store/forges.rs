use coracle_store::{DELIVERIES_KEPT, ForgeKey, ForgeRecord, LastEvent};
use jiff::Timestamp;

use crate::harness::{Home, shop};

fn record(hook: &str) -> ForgeRecord {
    ForgeRecord {
        app: shop(),
        hook: hook.to_owned(),
        forge: "github".to_owned(),
        url: "ssh://git@github.com/ana/shop.git".to_owned(),
        branch: "main".to_owned(),
        api: "https://api.github.com".to_owned(),
        secret: "hunter2-secret".into(),
        token: Some("hunter2-token".into()),
        key: Some(ForgeKey { private: "hunter2-key".into(), public: "ssh-ed25519 AAAA".to_owned() }),
        known_hosts: Some("github.com ssh-ed25519 AAAA".to_owned()),
        created_at: Timestamp::from_microsecond(1_000_000).unwrap(),
        last: None,
    }
}

#[tokio::test]
async fn a_connection_is_kept_sealed_and_goes_with_its_app() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.connect_forge(&record("a")).await.unwrap();
    assert_eq!(store.forge(&shop()).await.unwrap(), Some(record("a")));
    assert_eq!(store.forge_by_hook("a").await.unwrap(), Some(record("a")));
    assert_eq!(store.forge_by_hook("b").await.unwrap(), None);
    let last = LastEvent { at: Timestamp::from_microsecond(2).unwrap(), commit: None, word: "live".to_owned(), failed: true };
    store.record_forge_event(&shop(), &last).await.unwrap();
    store.amend_forge_event(&shop(), last.at, "live; not told").await.unwrap();
    store.amend_forge_event(&shop(), Timestamp::from_microsecond(1).unwrap(), "of an earlier one").await.unwrap();
    let last = LastEvent { word: "live; not told".to_owned(), ..last };
    assert_eq!(store.forge(&shop()).await.unwrap().unwrap().last, Some(last));

    store.want_forge(&shop(), true).await.unwrap();
    assert_eq!(store.wanted_forges().await.unwrap(), [shop()]);
    store.want_forge(&shop(), false).await.unwrap();
    assert!(store.wanted_forges().await.unwrap().is_empty());

    let plain = ForgeRecord { token: None, key: None, known_hosts: None, ..record("b") };
    store.connect_forge(&plain).await.unwrap();
    assert_eq!(store.forge(&shop()).await.unwrap(), Some(plain));
    store.connect_forge(&record("b")).await.unwrap();
    assert!(!home.raw_bytes().windows(7).any(|window| window == b"hunter2"), "a secret lies open");
    store.delete_app(&shop()).await.unwrap();
    assert_eq!(store.forge_by_hook("b").await.unwrap(), None);
    assert!(store.connect_forge(&record("b")).await.is_err(), "there is no such app");
    assert!(!store.disconnect_forge(&shop()).await.unwrap());
}

#[tokio::test]
async fn a_delivery_is_taken_once_by_any_of_its_names() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.connect_forge(&record("a")).await.unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let take = async |known: &[&str]| store.take_delivery(&shop(), &names(known)).await.unwrap();
    assert!(take(&["id:1", "body:x"]).await);
    assert!(!take(&["id:1", "body:y"]).await && !take(&["id:2", "body:x"]).await);
    // What was refused by one name has taken none of the others.
    assert!(take(&["id:2", "body:y"]).await);
    store.give_back_delivery(&shop(), &names(&["id:2", "body:y"])).await.unwrap();
    assert!(take(&["id:2"]).await);
    store.connect_forge(&record("a")).await.unwrap();
    assert!(!take(&["id:1"]).await, "connected again, it is the same webhook");
    store.connect_forge(&record("b")).await.unwrap();
    assert!(take(&["id:1"]).await, "another webhook, other deliveries");
}

#[tokio::test]
async fn deliveries_of_long_ago_are_forgotten() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.connect_forge(&record("a")).await.unwrap();
    let first = vec!["first".to_owned()];
    assert!(store.take_delivery(&shop(), &first).await.unwrap());
    let many: Vec<String> = (0..DELIVERIES_KEPT).map(|number| format!("later{number}")).collect();
    assert!(store.take_delivery(&shop(), &many).await.unwrap());
    assert!(store.take_delivery(&shop(), &first).await.unwrap());
}

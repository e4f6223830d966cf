use coracle_store::{DELIVERIES_KEPT, ForgeKey, ForgeRecord, LastEvent, Store};
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
        wanted: None,
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

/// How often the branch of the app is asked for, by both ways of asking.
async fn wanted(store: &Store) -> Option<i64> {
    let wanted = store.forge(&shop()).await.unwrap().unwrap().wanted;
    let listed = store.wanted_forges().await.unwrap();
    assert_eq!(listed, wanted.map(|_| shop()).into_iter().collect::<Vec<_>>());
    wanted
}

#[tokio::test]
async fn what_was_done_takes_away_nothing_that_was_asked_for_meanwhile() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.want_forge(&shop()).await.unwrap();
    store.connect_forge(&record("a")).await.unwrap();
    assert_eq!(wanted(&store).await, None, "what is not connected wants nothing");
    store.want_forge(&shop()).await.unwrap();
    assert_eq!(wanted(&store).await, Some(1));
    let begun = store.forge(&shop()).await.unwrap().unwrap();
    store.want_forge(&shop()).await.unwrap();
    store.forge_is_done(&begun).await.unwrap();
    assert_eq!(wanted(&store).await, Some(2), "it was asked for after that had begun");
    let later = store.forge(&shop()).await.unwrap().unwrap();
    store.forge_is_done(&later).await.unwrap();
    assert_eq!(wanted(&store).await, None);
    // Neither an earlier word nor the same once more undoes that, and the next wish is another one.
    store.forge_is_done(&begun).await.unwrap();
    store.forge_is_done(&later).await.unwrap();
    assert_eq!(wanted(&store).await, None);
    store.want_forge(&shop()).await.unwrap();
    assert_eq!(wanted(&store).await, Some(3));
    store.forge_is_done(&later).await.unwrap();
    assert_eq!(wanted(&store).await, Some(3));

    // Connected again, it is the same wish. Another branch, or another webhook, begins without one.
    store.connect_forge(&record("a")).await.unwrap();
    assert_eq!(wanted(&store).await, Some(3));
    let of_main = store.forge(&shop()).await.unwrap().unwrap();
    store.connect_forge(&ForgeRecord { branch: "release".to_owned(), ..record("a") }).await.unwrap();
    assert_eq!(wanted(&store).await, None);
    store.want_forge(&shop()).await.unwrap();
    store.forge_is_done(&of_main).await.unwrap();
    assert_eq!(wanted(&store).await, Some(4), "what was done was of another branch");
    let of_first = store.forge(&shop()).await.unwrap().unwrap();
    store.connect_forge(&record("b")).await.unwrap();
    for _ in 0..4 {
        store.want_forge(&shop()).await.unwrap();
    }
    store.forge_is_done(&of_first).await.unwrap();
    assert_eq!(wanted(&store).await, Some(4), "what was done was of another webhook");
}

#[tokio::test]
async fn a_delivery_is_on_record_with_what_it_asks_for_or_not_at_all() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.connect_forge(&record("a")).await.unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(store.take_delivery(&shop(), &names(&["id:1"]), None).await.unwrap());
    assert_eq!(wanted(&store).await, None);
    assert!(store.take_delivery(&shop(), &names(&["id:2", "body:x"]), Some("main")).await.unwrap());
    assert_eq!(wanted(&store).await, Some(1));
    assert!(!store.take_delivery(&shop(), &names(&["id:3", "body:x"]), Some("main")).await.unwrap());
    assert_eq!(wanted(&store).await, Some(1), "what is refused asks for nothing");
    assert!(store.take_delivery(&shop(), &names(&["id:4"]), Some("release")).await.unwrap());
    assert_eq!(wanted(&store).await, Some(1), "another branch is deployed");
    store.close().await;
    drop(store);
    assert_eq!(wanted(&home.open().await).await, Some(1));
}

#[tokio::test]
async fn a_delivery_is_taken_once_by_any_of_its_names() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.connect_forge(&record("a")).await.unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let take = async |known: &[&str]| store.take_delivery(&shop(), &names(known), None).await.unwrap();
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
    assert!(store.take_delivery(&shop(), &first, None).await.unwrap());
    let many: Vec<String> = (0..DELIVERIES_KEPT).map(|number| format!("later{number}")).collect();
    assert!(store.take_delivery(&shop(), &many, None).await.unwrap());
    assert!(store.take_delivery(&shop(), &first, None).await.unwrap());
}

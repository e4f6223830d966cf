//! Idempotency keys.

use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{Begun, Fingerprint, Store, Turn};

use crate::home::{Home, on_both, seconds};

on_both!(
    a_request_runs_once_and_is_replayed,
    another_request_under_the_same_key_is_a_mismatch,
    one_of_many_processes_gets_the_turn,
    an_abandoned_or_orphaned_request_may_run_again,
    a_key_is_forgotten_after_its_lifetime,
);

async fn begin_for(store: &Store, key: &[u8], request: &[u8], lease: Duration, lifetime: Duration) -> Begun {
    store.begin_request("k1", key, &Fingerprint::of(&[b"POST", request]), lease, lifetime).await.unwrap()
}

async fn begin(store: &Store, key: &[u8], request: &[u8]) -> Begun {
    begin_for(store, key, request, seconds(60), seconds(3600)).await
}

fn fresh(begun: Begun) -> Turn {
    match begun {
        Begun::Fresh(turn) => turn,
        other => panic!("{other:?}"),
    }
}

async fn a_request_runs_once_and_is_replayed(home: Home) {
    let (store, neighbour) = (home.open().await, home.open().await);
    let turn = fresh(begin(&store, b"key \xff\0", b"code").await);
    assert_eq!(begin(&neighbour, b"key \xff\0", b"code").await, Begun::InProgress);
    let answer = Bytes::from_static(b"200 \0\xff");
    assert!(store.complete_request(&turn, answer.clone()).await.unwrap());
    for store in [&store, &neighbour] {
        assert_eq!(begin(store, b"key \xff\0", b"code").await, Begun::Replay(answer.clone()));
    }
    assert!(!store.complete_request(&turn, Bytes::new()).await.unwrap(), "an answer is never changed");
    assert!(!store.abandon_request(&turn).await.unwrap());
    // Somebody else's key of the same text is another key.
    let other = store.begin_request("k2", b"key \xff\0", &Fingerprint::of(&[]), seconds(60), seconds(60)).await.unwrap();
    fresh(other);
}

async fn another_request_under_the_same_key_is_a_mismatch(home: Home) {
    let store = home.open().await;
    let turn = fresh(begin(&store, b"a", b"code").await);
    assert_eq!(begin(&store, b"a", b"other").await, Begun::Mismatch);
    store.complete_request(&turn, Bytes::new()).await.unwrap();
    assert_eq!(begin(&store, b"a", b"other").await, Begun::Mismatch);
    assert_eq!(begin(&store, b"a", b"code").await, Begun::Replay(Bytes::new()), "an empty answer is an answer");
    assert_ne!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"a", b"bc"]));
}

async fn one_of_many_processes_gets_the_turn(home: Home) {
    let stores = [home.open().await, home.open().await];
    for round in 0..5_u8 {
        let tries = (0..8).map(|index| {
            let store = stores[index % 2].clone();
            tokio::spawn(async move { begin(&store, &[round], b"code").await })
        });
        let begun: Vec<Begun> = futures::future::try_join_all(tries).await.unwrap();
        let fresh = begun.iter().filter(|begun| matches!(begun, Begun::Fresh(_))).count();
        let waiting = begun.iter().filter(|begun| **begun == Begun::InProgress).count();
        assert_eq!((fresh, waiting), (1, 7), "{begun:?}");
    }
}

async fn an_abandoned_or_orphaned_request_may_run_again(home: Home) {
    let store = home.open().await;
    let turn = fresh(begin(&store, b"a", b"code").await);
    assert!(store.abandon_request(&turn).await.unwrap());
    // A lease of nothing: its process died at once.
    let orphan = fresh(begin_for(&store, b"a", b"code", Duration::ZERO, seconds(60)).await);
    assert_eq!(begin(&store, b"a", b"other").await, Begun::Mismatch, "dead or not, the key is taken");
    let heir = fresh(begin(&store, b"a", b"code").await);
    assert!(!store.complete_request(&orphan, Bytes::from_static(b"late")).await.unwrap());
    assert!(!store.abandon_request(&orphan).await.unwrap());
    assert!(store.complete_request(&heir, Bytes::from_static(b"answer")).await.unwrap());
    assert_eq!(begin(&store, b"a", b"code").await, Begun::Replay(Bytes::from_static(b"answer")));
}

async fn a_key_is_forgotten_after_its_lifetime(home: Home) {
    let store = home.open().await;
    let turn = fresh(begin_for(&store, b"a", b"code", seconds(60), Duration::ZERO).await);
    store.complete_request(&turn, Bytes::new()).await.unwrap();
    fresh(begin_for(&store, b"a", b"other", seconds(60), Duration::ZERO).await);
    fresh(begin(&store, b"b", b"code").await);
    let swept = store.sweep(&Default::default()).await.unwrap();
    assert_eq!(swept.idempotency_keys, 1);
    assert_eq!(begin(&store, b"b", b"code").await, Begun::InProgress);
}

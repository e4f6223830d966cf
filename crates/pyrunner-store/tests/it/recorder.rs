//! The recorder on a database that works.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{NotRecorded, Record, Recorder, RecorderOptions, Scope, Store};

use crate::home::{Home, of, on_both, record, seconds, until};

on_both!(
    records_are_written_soon_without_asking,
    a_flush_writes_what_is_there_at_once,
    a_durable_record_is_there_when_the_call_returns,
    many_durable_records_share_commits,
    a_record_the_database_refuses_takes_no_other_with_it,
    a_shutdown_writes_everything_and_takes_no_more,
    two_recorders_share_a_database,
);

/// Writes only when a batch is full or somebody asks.
fn patient() -> RecorderOptions {
    RecorderOptions { linger: seconds(3600), ..RecorderOptions::default() }
}

async fn count(store: &Store) -> u64 {
    store.history_size().await.unwrap().records
}

async fn records_are_written_soon_without_asking(home: Home) {
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), RecorderOptions::default());
    let records: Vec<Record> = (0..3).map(|index| record("k1", &index.to_string())).collect();
    for record in &records {
        recorder.record(record.clone()).unwrap();
    }
    until("three records", async || count(&store).await == 3).await;
    for record in records {
        assert_eq!(store.record(record.id, &of("k1")).await.unwrap(), Some(record));
    }
    until("the queue is empty", async || recorder.health().queued_records == 0).await;
    let health = recorder.health();
    assert_eq!((health.written, health.queued_bytes, health.dropped.total(), health.retries), (3, 0, 0, 0));
    assert!(recorder.ready().is_ok() && health.failing.is_none());
}

async fn a_flush_writes_what_is_there_at_once(home: Home) {
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), RecorderOptions { batch_records: 100, ..patient() });
    recorder.record(record("k1", "x")).unwrap();
    assert!(recorder.flush(seconds(10)).await);
    assert_eq!(count(&store).await, 1);
    // A full batch is written without being asked for, the rest waits.
    for _ in 0..101 {
        recorder.record(record("k1", "x")).unwrap();
    }
    until("a full batch", async || count(&store).await == 101).await;
    assert_eq!(recorder.health().queued_records, 1);
    assert!(recorder.flush(seconds(10)).await);
    assert!(recorder.flush(seconds(10)).await, "nothing to do is done");
    assert_eq!(count(&store).await, 102);
}

async fn a_durable_record_is_there_when_the_call_returns(home: Home) {
    let (store, neighbour) = (home.open().await, home.open().await);
    let recorder = Recorder::start(store, patient());
    let (before, durable) = (record("k1", "before"), record("k1", "durable"));
    recorder.record(before.clone()).unwrap();
    recorder.record_durably(durable.clone()).await.unwrap();
    for record in [before, durable] {
        assert_eq!(neighbour.record(record.id, &of("k1")).await.unwrap(), Some(record));
    }
}

async fn many_durable_records_share_commits(home: Home) {
    let store = home.open().await;
    // Nothing is dropped although the queue is far smaller than the crowd.
    let options = RecorderOptions { queue_records: 16, patience: seconds(20), ..RecorderOptions::default() };
    let recorder = Recorder::start(store.clone(), options);
    let crowd = (0..300).map(|index| {
        let recorder = recorder.clone();
        tokio::spawn(async move { recorder.record_durably(record("k1", &index.to_string())).await })
    });
    for result in futures::future::try_join_all(crowd).await.unwrap() {
        result.unwrap();
    }
    let page = store.page(&of("k1"), None, 1000, 100).await.unwrap();
    let codes: HashSet<Bytes> = page.records.into_iter().map(|excerpt| excerpt.record.code).collect();
    assert_eq!(codes.len(), 300);
    assert_eq!(recorder.health().dropped.total(), 0);
}

async fn a_record_the_database_refuses_takes_no_other_with_it(home: Home) {
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), patient());
    for owner in ["k1", "k\0", "k2"] {
        recorder.record(record(owner, "x")).unwrap();
    }
    let error = recorder.record_durably(record("\0", "x")).await.unwrap_err();
    assert!(matches!(error, NotRecorded::Refused(_)), "{error}");
    recorder.record_durably(record("k3", "x")).await.unwrap();
    let page = store.page(&Scope::Everyone, None, 10, 0).await.unwrap();
    let mut owners: Vec<String> = page.records.into_iter().map(|excerpt| excerpt.record.owner).collect();
    owners.sort();
    assert_eq!(owners, ["k1", "k2", "k3"]);
    let health = recorder.health();
    assert_eq!((health.written, health.dropped.refused, health.queued_records), (3, 2, 0));
}

async fn a_shutdown_writes_everything_and_takes_no_more(home: Home) {
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), patient());
    for index in 0..1000 {
        recorder.record(record("k1", &index.to_string())).unwrap();
    }
    assert_eq!(recorder.shutdown(seconds(20)).await, 0);
    assert_eq!(count(&store).await, 1000);
    assert!(matches!(recorder.record(record("k1", "x")), Err(NotRecorded::Closed)));
    assert!(matches!(recorder.record_durably(record("k1", "x")).await, Err(NotRecorded::Closed)));
    assert!(matches!(recorder.ready(), Err(NotRecorded::Closed)));
    assert_eq!(recorder.shutdown(Duration::ZERO).await, 0);
    assert_eq!(recorder.health().dropped.shutdown, 2);
}

async fn two_recorders_share_a_database(home: Home) {
    let stores = [home.open().await, home.open().await];
    let recorders = stores.clone().map(|store| Recorder::start(store, RecorderOptions::default()));
    let crowd = (0..400).map(|index| {
        let recorder = recorders[index % 2].clone();
        tokio::spawn(async move {
            let record = record("k1", &index.to_string());
            if index % 20 == 0 { recorder.record_durably(record).await } else { recorder.record(record) }
        })
    });
    for result in futures::future::try_join_all(crowd).await.unwrap() {
        result.unwrap();
    }
    for recorder in &recorders {
        assert_eq!(recorder.shutdown(seconds(20)).await, 0);
    }
    assert_eq!(count(&stores[0]).await, 400);
    let found = stores[0].page(&of("k1"), None, 1000, 0).await.unwrap().records.len();
    assert_eq!(found, 400);
}

#[tokio::test]
async fn a_record_larger_than_the_queue_is_dropped_and_said_so() {
    let home = Home::sqlite().unwrap();
    let recorder = Recorder::start(home.open().await, RecorderOptions { queue_bytes: 10_000, ..patient() });
    let large = Record { stdout: vec![0; 10_000].into(), ..record("k1", "x") };
    assert!(matches!(recorder.record(large.clone()), Err(NotRecorded::TooLarge { most: 10_000, .. })));
    assert!(matches!(recorder.record_durably(large).await, Err(NotRecorded::TooLarge { .. })));
    assert_eq!(recorder.health().dropped.too_large, 2);
    recorder.record_durably(record("k1", "small")).await.unwrap();
}

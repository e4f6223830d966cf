//! What is old or too much goes.

use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{HistorySize, Id, JobState, NewJob, Policy, Record, Scope, Store};
use jiff::{SignedDuration, Timestamp};

use crate::home::{Home, on_both, record, seconds};

on_both!(
    what_is_too_old_goes,
    what_is_too_many_or_too_much_goes_oldest_first,
    two_that_sweep_at_once_count_right,
    ended_jobs_go_and_open_ones_stay,
);

const HOUR: Duration = Duration::from_secs(3600);

/// Records that began so many seconds ago, each of the same size.
async fn fill(store: &Store, ages: impl Iterator<Item = i64>) -> Vec<Record> {
    let records: Vec<Record> = ages
        .map(|age| {
            let started_at = Timestamp::now() - SignedDuration::from_secs(age);
            Record { id: Id::new(started_at).unwrap(), started_at, ..record("k1", &"x".repeat(1000)) }
        })
        .collect();
    store.insert_records(&records, false).await.unwrap();
    records
}

async fn left(store: &Store) -> Vec<Id> {
    let page = store.page(&Scope::Everyone, None, 1000, 0).await.unwrap();
    page.records.into_iter().map(|excerpt| excerpt.record.id).collect()
}

async fn what_is_too_old_goes(home: Home) {
    let store = home.open().await;
    let old = fill(&store, (0..450).map(|index| 3700 + index)).await;
    let young = fill(&store, (0..10).map(|index| 3500 - index)).await;
    assert_eq!(store.sweep(&Policy::default()).await.unwrap(), Default::default(), "no policy, no loss");
    let swept = store.sweep(&Policy { history_age: Some(HOUR), ..Policy::default() }).await.unwrap();
    let size = old[0].size() as u64;
    assert_eq!((swept.records, swept.bytes), (450, 450 * size));
    assert_eq!(left(&store).await, young.iter().rev().map(|record| record.id).collect::<Vec<_>>());
    assert_eq!(store.history_size().await.unwrap(), HistorySize { records: 10, bytes: 10 * size });
}

async fn what_is_too_many_or_too_much_goes_oldest_first(home: Home) {
    let store = home.open().await;
    let records = fill(&store, (0..300).map(|index| 300 - index)).await;
    let size = records[0].size() as u64;
    let newest = |count: usize| records.iter().rev().take(count).map(|record| record.id).collect::<Vec<_>>();
    let most = |history_records, history_bytes| Policy { history_records, history_bytes, ..Policy::default() };
    assert_eq!(store.sweep(&most(Some(300), Some(300 * size))).await.unwrap().records, 0);
    assert_eq!(store.sweep(&most(Some(50), None)).await.unwrap().records, 250);
    assert_eq!(left(&store).await, newest(50));
    // A byte too few for 20 of them.
    assert_eq!(store.sweep(&most(None, Some(20 * size - 1))).await.unwrap().records, 31);
    assert_eq!(left(&store).await, newest(19));
    assert_eq!(store.sweep(&most(Some(0), None)).await.unwrap().records, 19);
    assert_eq!(store.history_size().await.unwrap(), HistorySize::default());
}

async fn two_that_sweep_at_once_count_right(home: Home) {
    let stores = [home.open().await, home.open().await];
    fill(&stores[0], (0..500).map(|index| 4000 + index)).await;
    let policy = Policy { history_age: Some(HOUR), history_records: Some(15), ..Policy::default() };
    let (first, second, young) =
        tokio::join!(stores[0].sweep(&policy), stores[1].sweep(&policy), fill(&stores[1], (0..10).map(|index| 10 + index)));
    assert_eq!(first.unwrap().records + second.unwrap().records, 500);
    assert_eq!(left(&stores[0]).await.len(), young.len());
    assert_eq!(stores[0].history_size().await.unwrap().records, 10);
}

async fn ended_jobs_go_and_open_ones_stay(home: Home) {
    let store = home.open().await;
    let mut ids = Vec::new();
    for callback_url in [None, None, Some("http://example.org".to_owned())] {
        let id = Id::new(Timestamp::now()).unwrap();
        store.insert_job(NewJob { id, owner: "k1".to_owned(), request: Bytes::new(), callback_url }).await.unwrap();
        ids.push(id);
    }
    for id in &ids[1..] {
        store.claim_job(*id, "blue", seconds(60)).await.unwrap();
        store.finish_job(*id, "blue", JobState::Done, Bytes::new()).await.unwrap();
    }
    assert_eq!(store.sweep(&Policy { job_age: Some(HOUR), ..Policy::default() }).await.unwrap().jobs, 0);
    assert_eq!(store.sweep(&Policy { job_age: Some(Duration::ZERO), ..Policy::default() }).await.unwrap().jobs, 1);
    for (index, is_there) in [true, false, true].into_iter().enumerate() {
        let job = store.job(ids[index], &Scope::Everyone).await.unwrap();
        assert_eq!(job.is_some(), is_there, "the queued one and the one whose callback is due stay: {index}");
    }
}

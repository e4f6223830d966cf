//! Jobs.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{
    CallbackOutcome, CallbackState, Cancellation, Id, Interrupted, Job, JobState, NewJob, Scope, Store, StoreError,
};
use jiff::Timestamp;

use crate::home::{Home, of, on_both, seconds};

on_both!(
    a_job_goes_from_queued_to_done,
    every_job_is_claimed_once_and_the_oldest_first,
    a_job_is_cancelled_before_it_runs_and_while_it_runs,
    jobs_of_the_dead_fail_or_run_again_and_those_of_the_living_stay,
    a_released_job_is_anybodys,
    callbacks_are_told_at_least_once,
);

const NEVER: Duration = Duration::ZERO;

async fn insert(store: &Store, owner: &str, callback: Option<&str>) -> Id {
    let id = Id::new(Timestamp::now()).unwrap();
    let request = Bytes::from_static(b"{\"code\":\"\0\xff\"}");
    let job = NewJob { id, owner: owner.to_owned(), request, callback_url: callback.map(str::to_owned) };
    store.insert_job(job).await.unwrap();
    id
}

async fn look(store: &Store, id: Id) -> Job {
    store.job(id, &Scope::Everyone).await.unwrap().unwrap()
}

async fn a_job_goes_from_queued_to_done(home: Home) {
    let store = home.open().await;
    let id = insert(&store, "k1", None).await;
    assert_eq!(store.open_jobs(&of("k1")).await.unwrap(), 1);
    assert_eq!(store.job(id, &of("k2")).await.unwrap(), None);
    let queued = store.job(id, &of("k1")).await.unwrap().unwrap();
    assert_eq!((queued.state, queued.attempts, queued.started_at, queued.callback), (JobState::Queued, 0, None, None));
    let claimed = store.claim_job(id, "blue", seconds(60)).await.unwrap().unwrap();
    assert_eq!((claimed.state, claimed.attempts, &*claimed.request), (JobState::Running, 1, &b"{\"code\":\"\0\xff\"}"[..]));
    assert_eq!(store.claim_job(id, "green", seconds(60)).await.unwrap(), None);
    let result = Bytes::from_static(b"\0 result");
    assert!(!store.finish_job(id, "green", JobState::Done, result.clone()).await.unwrap(), "it is not green's");
    let error = store.finish_job(id, "blue", JobState::Queued, result.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(store.finish_job(id, "blue", JobState::Done, result.clone()).await.unwrap());
    assert!(!store.finish_job(id, "blue", JobState::Failed, result.clone()).await.unwrap(), "an end is the end");
    let done = look(&store, id).await;
    assert_eq!((done.state, done.result), (JobState::Done, Some(result)));
    assert!(done.created_at <= done.started_at.unwrap() && done.started_at <= done.finished_at);
    assert_eq!(store.open_jobs(&Scope::Everyone).await.unwrap(), 0);
}

async fn every_job_is_claimed_once_and_the_oldest_first(home: Home) {
    let stores = [home.open().await, home.open().await];
    let first = insert(&stores[0], "k1", None).await;
    let mut ids = HashSet::new();
    for _ in 0..19 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ids.insert(insert(&stores[0], "k1", None).await);
    }
    assert_eq!(stores[1].claim_next_job("first", seconds(60)).await.unwrap().unwrap().id, first);
    let claims = (0..4).map(|index| {
        let store = stores[index % 2].clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(job) = store.claim_next_job(&format!("holder {index}"), seconds(60)).await.unwrap() {
                mine.push(job.id);
            }
            mine
        })
    });
    let claimed: Vec<Id> = futures::future::try_join_all(claims).await.unwrap().concat();
    assert_eq!(claimed.len(), 19);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), ids);
}

async fn a_job_is_cancelled_before_it_runs_and_while_it_runs(home: Home) {
    let (blue, green) = (home.open().await, home.open().await);
    let waiting = insert(&blue, "k1", None).await;
    let running = insert(&blue, "k1", None).await;
    let ended = insert(&blue, "k1", None).await;
    for id in [running, ended] {
        blue.claim_job(id, "blue", seconds(60)).await.unwrap().unwrap();
    }
    blue.finish_job(ended, "blue", JobState::Failed, Bytes::new()).await.unwrap();
    assert_eq!(green.cancel_job(waiting, &of("k2")).await.unwrap(), None);
    assert_eq!(green.cancel_job(waiting, &of("k1")).await.unwrap(), Some(Cancellation::Cancelled));
    assert_eq!(green.cancel_job(waiting, &of("k1")).await.unwrap(), Some(Cancellation::Ended(JobState::Cancelled)));
    assert_eq!(green.cancel_job(ended, &of("k1")).await.unwrap(), Some(Cancellation::Ended(JobState::Failed)));
    assert_eq!(blue.renew_leases("blue", seconds(60)).await.unwrap(), []);
    assert_eq!(green.cancel_job(running, &of("k1")).await.unwrap(), Some(Cancellation::Requested));
    assert_eq!(green.renew_leases("green", seconds(60)).await.unwrap(), []);
    assert_eq!(blue.renew_leases("blue", seconds(60)).await.unwrap(), [running]);
    assert!(look(&blue, running).await.cancel_requested);
    assert!(blue.finish_job(running, "blue", JobState::Cancelled, Bytes::new()).await.unwrap());
    assert_eq!(blue.claim_next_job("blue", seconds(60)).await.unwrap(), None);
}

async fn jobs_of_the_dead_fail_or_run_again_and_those_of_the_living_stay(home: Home) {
    let store = home.open().await;
    let rerun = Interrupted::Rerun { attempts: 2, result: Bytes::from_static(b"interrupted") };
    let [dead, living, queued] =
        [insert(&store, "k1", None).await, insert(&store, "k1", None).await, insert(&store, "k1", None).await];
    store.claim_job(dead, "dead", NEVER).await.unwrap().unwrap();
    store.claim_job(living, "living", seconds(60)).await.unwrap().unwrap();
    let recovered = store.recover_jobs(&rerun).await.unwrap();
    assert_eq!(recovered.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(dead, JobState::Queued)]);
    assert!(!store.finish_job(dead, "dead", JobState::Done, Bytes::new()).await.unwrap(), "it was not that dead, and too late");
    store.claim_job(dead, "dead", NEVER).await.unwrap().unwrap();
    let recovered = store.recover_jobs(&rerun).await.unwrap();
    assert_eq!((recovered.len(), recovered[0].state, recovered[0].attempts), (1, JobState::Failed, 2));
    assert_eq!(look(&store, dead).await.result.as_deref(), Some(&b"interrupted"[..]));
    // A renewal keeps it alive, and the lack of one does not.
    assert!(store.renew_leases("living", NEVER).await.unwrap().is_empty());
    store.renew_leases("living", seconds(60)).await.unwrap();
    assert!(store.recover_jobs(&Interrupted::Fail(Bytes::new())).await.unwrap().is_empty());
    // One that was to be cancelled is, whatever the policy.
    store.cancel_job(living, &of("k1")).await.unwrap();
    store.renew_leases("living", NEVER).await.unwrap();
    let recovered = store.recover_jobs(&rerun).await.unwrap();
    assert_eq!(recovered.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(living, JobState::Cancelled)]);
    assert_eq!(look(&store, queued).await.state, JobState::Queued);
    assert_eq!(look(&store, living).await.state, JobState::Cancelled);
}

async fn a_released_job_is_anybodys(home: Home) {
    let store = home.open().await;
    let id = insert(&store, "k1", None).await;
    store.claim_job(id, "blue", seconds(60)).await.unwrap().unwrap();
    assert!(!store.release_job(id, "green").await.unwrap());
    assert!(store.release_job(id, "blue").await.unwrap());
    let again = store.claim_next_job("green", seconds(60)).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts), (id, 1), "the first claim does not count");
}

async fn callbacks_are_told_at_least_once(home: Home) {
    let store = home.open().await;
    let url = "https://example.org/hook?a=b";
    let id = insert(&store, "k1", Some(url)).await;
    insert(&store, "k1", None).await;
    while store.claim_next_job("blue", seconds(60)).await.unwrap().is_some() {}
    assert!(store.claim_callbacks(10, NEVER).await.unwrap().is_empty(), "it has not ended");
    assert!(store.finish_job(id, "blue", JobState::Done, Bytes::new()).await.unwrap());
    // Whoever claimed it first has died; the next claim keeps others out.
    for (attempts, lease) in [(1, NEVER), (2, seconds(60))] {
        let due = store.claim_callbacks(10, lease).await.unwrap();
        let callback = due[0].callback.clone().unwrap();
        assert_eq!((due.len(), due[0].id, &*callback.url), (1, id, url));
        assert_eq!((callback.state, callback.attempts), (CallbackState::Due, attempts));
    }
    assert!(store.claim_callbacks(10, NEVER).await.unwrap().is_empty());
    store.settle_callback(id, CallbackOutcome::Again(NEVER)).await.unwrap();
    assert_eq!(store.claim_callbacks(10, seconds(60)).await.unwrap().len(), 1);
    store.settle_callback(id, CallbackOutcome::Delivered).await.unwrap();
    store.settle_callback(id, CallbackOutcome::GivenUp).await.unwrap();
    assert_eq!(look(&store, id).await.callback.unwrap().state, CallbackState::Delivered);
    // A cancelled job's end is told as well.
    let cancelled = insert(&store, "k1", Some(url)).await;
    store.cancel_job(cancelled, &Scope::Everyone).await.unwrap();
    assert_eq!(store.claim_callbacks(10, seconds(60)).await.unwrap()[0].id, cancelled);
}

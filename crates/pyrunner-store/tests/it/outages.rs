//! Databases that go away or fill up, and come back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_pyrunner_store::{Health, NotRecorded, Record, Recorder, RecorderOptions, Scope, Store, StoreError};
use tempfile::TempDir;

use crate::home::{Home, of, on_both, record, seconds, until};
use crate::postgres::Cluster;

fn options() -> RecorderOptions {
    RecorderOptions {
        queue_records: 20,
        queue_bytes: 1 << 20,
        linger: Duration::from_millis(1),
        patience: Duration::from_millis(300),
        retry_pause: Duration::from_millis(100),
        ..RecorderOptions::default()
    }
}

async fn is_failing(recorder: &Recorder) -> Health {
    until("the recorder notices", async || recorder.health().failing.is_some()).await;
    recorder.health()
}

/// What the database holds is these, each once.
async fn holds(store: &Store, records: &[Record]) {
    let page = store.page(&of("k1"), None, 1000, 1 << 20).await.unwrap();
    let mut found: Vec<Record> = page.records.into_iter().map(|excerpt| excerpt.record).collect();
    found.reverse();
    let mut expected = records.to_vec();
    expected.sort_by_key(|record| record.id);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
}

/// The recorder's database has just become unusable: nothing blocks, bounds hold, drops are counted; `mend` makes it usable.
async fn lives_through_an_outage(recorder: Recorder, store: Store, mut kept: Vec<Record>, mend: impl FnOnce()) {
    let begin = Instant::now();
    let queued: Vec<Record> = (0..10).map(|index| record("k1", &format!("queued {index}"))).collect();
    for record in &queued {
        recorder.record(record.clone()).unwrap();
    }
    assert!(begin.elapsed() < seconds(1), "recording waits for nothing");
    kept.extend(queued);
    let health = is_failing(&recorder).await;
    assert!(health.failing.unwrap().error.contains("write history"));
    assert!(matches!(recorder.ready(), Err(NotRecorded::Full { last_error: Some(_) })));
    // In strict mode the answer is an error, in time, and the record stays.
    let late = record("k1", "late");
    let error = recorder.record_durably(late.clone()).await.unwrap_err();
    assert!(matches!(error, NotRecorded::Late { .. }), "{error}");
    assert!(error.to_string().contains("write history"), "{error}");
    kept.push(late);
    // The bound in bytes comes before the bound in records here, and both count what is being written.
    let large = Record { stdout: vec![0; 900 << 10].into(), ..record("k1", "large") };
    recorder.record(large.clone()).unwrap();
    assert!(matches!(recorder.record(large.clone()), Err(NotRecorded::Full { .. })));
    kept.push(large);
    while recorder.health().queued_records < 20 {
        let small = record("k1", "small");
        recorder.record(small.clone()).unwrap();
        kept.push(small);
    }
    assert!(matches!(recorder.record(record("k1", "too many")), Err(NotRecorded::Full { .. })));
    assert!(matches!(recorder.record_durably(record("k1", "too many")).await, Err(NotRecorded::Full { .. })));
    assert!(!recorder.flush(Duration::from_millis(10)).await);
    assert_eq!(recorder.health().dropped.full, 3);
    mend();
    assert!(recorder.flush(seconds(20)).await);
    holds(&store, &kept).await;
    let health = recorder.health();
    assert_eq!((health.failing, health.queued_records, health.dropped.total()), (None, 0, 3));
    assert!(health.retries > 0 && recorder.ready().is_ok());
    recorder.record_durably(record("k1", "as if nothing had been")).await.unwrap();
    assert_eq!(recorder.shutdown(seconds(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_restarted_loses_nothing_that_was_accepted() {
    let Some(mut cluster) = Cluster::new() else { return };
    cluster.start(&[]);
    let store = Store::open(&cluster.url()).await.unwrap();
    let recorder = Recorder::start(store.clone(), options());
    let first = record("k1", "first");
    recorder.record_durably(first.clone()).await.unwrap();
    cluster.stop();
    let error = store.check().await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    lives_through_an_outage(recorder, store, vec![first], || cluster.start(&[])).await;
}

/// Blue and green under load, and their database is restarted: a commit whose answer was lost on the way is sent again, and
/// must not become two records.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_loses_and_doubles_nothing() {
    let Some(mut cluster) = Cluster::new() else { return };
    cluster.start(&[]);
    let mut recorders = Vec::new();
    for _ in 0..2 {
        let store = Store::open(&cluster.url()).await.unwrap();
        recorders.push(Recorder::start(store, RecorderOptions { queue_records: 1000, patience: seconds(20), ..options() }));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|index| {
            let (recorder, stop) = (recorders[index % 2].clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut written = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let record = record("k1", &index.to_string());
                    recorder.record_durably(record.clone()).await.unwrap();
                    written.push(record);
                }
                written
            })
        })
        .collect();
    for _ in 0..3 {
        let before = recorders[0].health().written;
        until("more is written", async || recorders[0].health().written > before + 20).await;
        cluster.stop();
        cluster.start(&[]);
    }
    stop.store(true, Ordering::Relaxed);
    let written = futures::future::try_join_all(writers).await.unwrap().concat();
    for recorder in &recorders {
        assert_eq!(recorder.shutdown(seconds(20)).await, 0);
    }
    assert!(recorders.iter().map(|recorder| recorder.health().retries).sum::<u64>() > 0, "the restarts were noticed");
    let store = Store::open(&cluster.url()).await.unwrap();
    assert_eq!(store.history_size().await.unwrap().records, written.len() as u64);
    for record in written {
        assert!(store.record(record.id, &Scope::Everyone).await.unwrap().is_some(), "{}", record.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_comes_later_is_waited_for() {
    let Some(mut cluster) = Cluster::new() else { return };
    let store = Store::open_lazily(&cluster.url()).await.unwrap();
    let recorder = Recorder::start(store.clone(), options());
    lives_through_an_outage(recorder, store, Vec::new(), || cluster.start(&[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_breaks_are_replaced() {
    let Some(mut cluster) = Cluster::new() else { return };
    cluster.start(&[]);
    let store = Store::open(&cluster.url()).await.unwrap();
    let recorder = Recorder::start(store.clone(), RecorderOptions { patience: seconds(20), ..options() });
    let mut kept = Vec::new();
    for round in 0..5 {
        let record = record("k1", &round.to_string());
        recorder.record_durably(record.clone()).await.unwrap();
        kept.push(record);
        // As a fail-over or an idle timeout of something in between would.
        crate::home::postgres_sql(
            &cluster.url(),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pyrunner'",
        )
        .await;
    }
    until("reads work again", async || store.check().await.is_ok()).await;
    holds(&store, &kept).await;
}

on_both!(a_database_that_somebody_else_locks_is_given_up_in_time_and_taken_up_again);

/// A statement that never comes back: the hardest kind of outage, because nothing says that it is one.
async fn a_database_that_somebody_else_locks_is_given_up_in_time_and_taken_up_again(home: Home) {
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), options());
    let first = record("k1", "first");
    recorder.record_durably(first.clone()).await.unwrap();
    let lock = home.lock("pyrunner_history").await;
    let begin = Instant::now();
    let error = store.insert_records(&[record("k1", "never")], true).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    let second = record("k1", "second");
    assert!(matches!(recorder.record_durably(second.clone()).await, Err(NotRecorded::Late { .. })));
    lock.release().await;
    assert!(recorder.flush(seconds(20)).await);
    holds(&store, &[first, second]).await;
}

/// Somebody has put a new database in the old one's place.
#[tokio::test]
async fn a_postgresql_that_loses_its_tables_gets_them_back() {
    let Some(home) = Home::postgresql() else { return };
    let store = home.open().await;
    let recorder = Recorder::start(store.clone(), options());
    recorder.record_durably(record("k1", "lost with the old one")).await.unwrap();
    home.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    let kept = record("k1", "kept");
    recorder.record(kept.clone()).unwrap();
    assert!(recorder.flush(seconds(20)).await);
    holds(&store, &[kept]).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let silence = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silence.local_addr().unwrap().port();
    let store = Store::open_lazily(&format!("postgres://app@127.0.0.1:{port}/runs?sslmode=disable")).await.unwrap();
    let begin = Instant::now();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
    // The next ones need not find out for themselves.
    let again = store.check().await.unwrap_err();
    assert!(again.to_string().contains("not answered within 3s"), "{again}");
    assert!(begin.elapsed() < seconds(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_shutdown_while_the_database_is_away_ends_in_time_and_counts_what_is_lost() {
    let store = Store::open_lazily("postgres://app@127.0.0.1:1/runs").await.unwrap();
    let recorder = Recorder::start(store, options());
    for _ in 0..7 {
        recorder.record(record("k1", "x")).unwrap();
    }
    is_failing(&recorder).await;
    let begin = Instant::now();
    assert_eq!(recorder.shutdown(Duration::from_millis(100)).await, 7);
    assert!(begin.elapsed() < seconds(5));
    assert_eq!(recorder.health().dropped.shutdown, 7);
}

/// A file system of a few megabytes; `None` (with a remark) where we may not make one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(size.as_c_str())) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: a small file system cannot be mounted ({error}); this test wants root");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills what is left.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.path().join("ballast")).unwrap();
        while std::io::Write::write_all(&mut ballast, &[0; 4096]).is_ok() {}
    }

    fn relieve(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_lived_through_and_recovered_from() {
    let Some(disk) = SmallDisk::new(8) else { return };
    let store = Store::open(disk.path().join("pyrunner.db").to_str().unwrap()).await.unwrap();
    let recorder = Recorder::start(store.clone(), options());
    let first = record("k1", "first");
    recorder.record_durably(first.clone()).await.unwrap();
    disk.fill();
    let large = Record { stdout: vec![7; 500 << 10].into(), ..record("k1", "large") };
    let error = store.insert_records(std::slice::from_ref(&large), true).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_passing(), "{error}");
    assert_eq!(store.record(large.id, &Scope::Everyone).await.unwrap(), None);
    assert_eq!(store.record(first.id, &Scope::Everyone).await.unwrap().as_ref(), Some(&first), "reading goes on");
    // Small records may still find room in what the file has; this one does not, and those behind it wait.
    recorder.record(Record { stdout: vec![7; 64 << 10].into(), ..large.clone() }).unwrap();
    let health = is_failing(&recorder).await;
    assert!(health.failing.unwrap().error.contains("no space is left"), "{:?}", recorder.health());
    let waiting = Record { stdout: vec![7; 64 << 10].into(), ..large };
    lives_through_an_outage(recorder, store, vec![first, waiting], || disk.relieve()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_postgresql_is_named_and_recovered_from() {
    let (Some(mut cluster), Some(disk)) = (Cluster::new(), SmallDisk::new(8)) else { return };
    // Only the tables are on the small disk: a full disk under its log stops PostgreSQL altogether.
    let space = cluster.own_directory(disk.path());
    cluster.start(&[]);
    crate::home::postgres_sql(&cluster.url(), &format!("CREATE TABLESPACE small LOCATION '{space}'")).await;
    let store = Store::open(&format!("{}?options[default_tablespace]=small", cluster.url())).await.unwrap();
    let recorder = Recorder::start(store.clone(), options());
    disk.fill();
    let noise: Vec<u8> = (0..2_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let large = Record { stdout: noise.into(), ..record("k1", "large") };
    let error = store.insert_records(std::slice::from_ref(&large), true).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    disk.relieve();
    store.insert_records(&[large], true).await.unwrap();
    assert_eq!(recorder.shutdown(seconds(10)).await, 0);
}

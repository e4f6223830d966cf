//! The writing process dies by SIGKILL; what it was told is written must be there, once, and whole.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use bytes::Bytes;
use coracle_pyrunner_store::{Id, Recorder, RecorderOptions, Scope, Store};

use crate::home::{Home, on_both, record};

const LOCATION: &str = "PYRUNNER_STORE_CRASH_LOCATION";

on_both!(what_was_answered_survives_sigkill);

/// The process that is killed: several tasks record durably, one carelessly, and each durable one is told of when it is done.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other half of the test below"]
async fn victim() {
    let Ok(location) = std::env::var(LOCATION) else { return };
    let recorder = Recorder::start(Store::open(&location).await.unwrap(), RecorderOptions::default());
    let writers = (0..4).map(|_| async {
        loop {
            let mut durable = record("k1", "x");
            durable.stdout = Bytes::from(vec![7; 20_000]);
            let id = durable.id;
            recorder.record_durably(durable).await.unwrap();
            println!("\nwritten {id}");
            recorder.record(record("k1", "careless")).ok();
        }
    });
    futures::future::join_all(writers).await;
}

async fn what_was_answered_survives_sigkill(home: Home) {
    // Two processes make and share the database, and both are killed, early and late.
    for lines in [1, 30] {
        let mut victims = [Victim::start(&home.location()), Victim::start(&home.location())];
        let told: Vec<Id> = victims.iter_mut().flat_map(|victim| victim.tells(lines)).collect();
        drop(victims);
        assert_eq!(told.len(), 2 * lines);
        let store = home.open().await;
        for id in told {
            let found = store.record(id, &Scope::Everyone).await.unwrap();
            assert_eq!(found.map(|record| record.stdout.len()), Some(20_000), "{id}");
        }
        assert_eq!(count(&store).await, store.history_size().await.unwrap().records, "the total is kept with the records");
        store.close().await;
    }
}

async fn count(store: &Store) -> u64 {
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = store.page(&Scope::Everyone, cursor, 1000, 0).await.unwrap();
        found += page.records.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// Killed when it is dropped.
struct Victim {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Victim {
    fn start(location: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
            .env(LOCATION, location)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// The next so many records it tells of.
    fn tells(&mut self, lines: usize) -> Vec<Id> {
        let output = self.output.by_ref().lines().map(Result::unwrap);
        output.filter_map(|line| line.strip_prefix("written ")?.parse().ok()).take(lines).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

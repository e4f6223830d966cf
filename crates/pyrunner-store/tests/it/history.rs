//! Writing records and reading them back.

use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{Cursor, Id, Record, Scope, Usage};
use jiff::Timestamp;

use crate::home::{Home, of, on_both, record};

on_both!(
    a_record_comes_back_as_it_went_in,
    bytes_of_any_kind_survive,
    streams_of_a_megabyte_are_kept_and_cut_in_lists,
    only_its_owner_sees_a_record,
    pages_are_stable_while_records_come_in,
    the_same_record_twice_is_one,
    a_batch_is_written_whole_or_not_at_all,
    callers_that_give_up_leave_nothing_half_done,
    more_callers_than_connections_are_all_served,
);

fn full(owner: &str) -> Record {
    Record {
        origin: "job".to_owned(),
        image: "science".to_owned(),
        mode: "zygote".to_owned(),
        stdin: Some(Bytes::from_static(b"in")),
        stdout: Bytes::from_static(b"out"),
        stderr: Bytes::from_static(b"err"),
        stdout_truncated: false,
        stderr_truncated: true,
        exit_code: None,
        signal: Some(9),
        reason: "oom".to_owned(),
        limits_hit: vec!["memory".to_owned(), "output".to_owned()],
        usage: Usage { wall_us: 1_500_000, cpu_us: 7, memory_peak: 268_435_456, queue_us: u64::MAX >> 1 },
        details: Some(Bytes::from_static(b"{\"args\":[]}")),
        ..record(owner, "print(42)")
    }
}

async fn a_record_comes_back_as_it_went_in(home: Home) {
    let store = home.open().await;
    let bare = Record { exit_code: Some(-1), ..record("k1", "") };
    let records = [full("k1"), bare];
    store.insert_records(&records, true).await.unwrap();
    store.close().await;
    let store = home.open().await;
    for record in records {
        assert_eq!(store.record(record.id, &of("k1")).await.unwrap(), Some(record));
    }
    assert_eq!(store.record(Id::new(Timestamp::now()).unwrap(), &Scope::Everyone).await.unwrap(), None);
}

async fn bytes_of_any_kind_survive(home: Home) {
    let store = home.open().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let odd = Record {
        code: Bytes::from_static(b"print('\0')"),
        stdin: Some(Bytes::new()),
        stdout: every_byte.into(),
        stderr: Bytes::from_static(b"\xff\xfe\xed\xa0\x80 \x1b[31m\0"),
        ..record("ключ № 1 🔑", "")
    };
    store.insert_records(std::slice::from_ref(&odd), false).await.unwrap();
    assert_eq!(store.record(odd.id, &of(&odd.owner)).await.unwrap().as_ref(), Some(&odd));
    let page = store.page(&of(&odd.owner), None, 10, 1 << 20).await.unwrap();
    assert_eq!(page.records[0].record, odd);
}

async fn streams_of_a_megabyte_are_kept_and_cut_in_lists(home: Home) {
    let store = home.open().await;
    let stream = |byte: u8| Bytes::from(vec![byte; 1 << 20]);
    let large = Record { stdout: stream(0), stderr: stream(0xff), stdin: Some(stream(b'i')), ..record("k1", "x") };
    store.insert_records(&[large.clone(), full("k1")], false).await.unwrap();
    assert_eq!(store.record(large.id, &of("k1")).await.unwrap().as_ref(), Some(&large));
    let page = store.page(&of("k1"), None, 10, 100).await.unwrap();
    let cut = page.records.iter().find(|excerpt| excerpt.record.id == large.id).unwrap();
    assert_eq!((cut.code_bytes, cut.stdin_bytes, cut.stdout_bytes, cut.stderr_bytes), (1, 1 << 20, 1 << 20, 1 << 20));
    assert_eq!(cut.record.stdout, vec![0; 100]);
    assert_eq!(cut.record.stderr, vec![0xff; 100]);
    assert_eq!(cut.record.stdin.as_deref(), Some([b'i'; 100].as_slice()));
}

async fn only_its_owner_sees_a_record(home: Home) {
    let store = home.open().await;
    let (mine, theirs) = (record("k1", "mine"), record("k2", "theirs"));
    store.insert_records(&[mine.clone(), theirs.clone()], true).await.unwrap();
    assert_eq!(store.record(theirs.id, &of("k1")).await.unwrap(), None);
    assert_eq!(store.record(theirs.id, &Scope::Everyone).await.unwrap(), Some(theirs));
    let page = store.page(&of("k1"), None, 10, 1000).await.unwrap();
    let found: Vec<Id> = page.records.iter().map(|excerpt| excerpt.record.id).collect();
    assert_eq!((found, page.next), (vec![mine.id], None));
    assert_eq!(store.page(&Scope::Everyone, None, 10, 0).await.unwrap().records.len(), 2);
    // An owner is matched whole, and never as a pattern or in another case.
    for other in ["", "k", "K1", "k1 ", "%", "k_"] {
        assert!(store.page(&of(other), None, 10, 0).await.unwrap().records.is_empty(), "{other:?}");
    }
}

/// Records of one owner, a millisecond apart, beginning at that one.
fn series(owner: &str, first: i64, count: i64) -> Vec<Record> {
    (first..first + count)
        .map(|millisecond| {
            let started_at = Timestamp::from_millisecond(1_700_000_000_000 + millisecond).unwrap();
            Record { id: Id::new(started_at).unwrap(), started_at, ..record(owner, &millisecond.to_string()) }
        })
        .collect()
}

async fn pages_are_stable_while_records_come_in(home: Home) {
    let store = home.open().await;
    // More than one statement inserts, in every size there is.
    let old = series("k1", 0, 150);
    store.insert_records(&old, false).await.unwrap();
    store.insert_records(&series("k2", 0, 20), false).await.unwrap();
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for round in 0.. {
        let page = store.page(&of("k1"), cursor, 40, 16).await.unwrap();
        seen.extend(page.records.into_iter().map(|excerpt| excerpt.record));
        // Newer ones come in between the pages, and change nothing about the rest.
        store.insert_records(&series("k1", 1000 + round, 1), false).await.unwrap();
        // As text, like a client that comes back later.
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            assert_eq!(round, 3);
            break;
        }
    }
    let newest_first: Vec<Record> = old.into_iter().rev().collect();
    assert_eq!(seen, newest_first);
    for text in ["", "1", "2", "1zz", "../..", "117f22e2"] {
        assert!(text.parse::<Cursor>().is_err(), "{text:?}");
    }
    assert_eq!(store.page(&of("k1"), None, 0, 0).await.unwrap().records.len(), 1, "a page has at least one");
}

async fn the_same_record_twice_is_one(home: Home) {
    let store = home.open().await;
    let first = record("k1", "first");
    let again = Record { code: Bytes::from_static(b"second"), ..first.clone() };
    store.insert_records(std::slice::from_ref(&first), true).await.unwrap();
    let size = store.history_size().await.unwrap();
    store.insert_records(&[again, first.clone()], true).await.unwrap();
    assert_eq!(store.record(first.id, &of("k1")).await.unwrap(), Some(first));
    assert_eq!(store.history_size().await.unwrap(), size);
}

async fn a_batch_is_written_whole_or_not_at_all(home: Home) {
    let store = home.open().await;
    let mut records = series("k1", 0, 70);
    records[69].owner = "a\0b".to_owned();
    let error = store.insert_records(&records, true).await.unwrap_err();
    assert!(!error.is_passing(), "{error}");
    assert!(error.to_string().contains("NUL"), "{error}");
    assert_eq!(store.history_size().await.unwrap().records, 0);
    assert!(store.page(&Scope::Everyone, None, 10, 0).await.unwrap().records.is_empty());
    records[69].owner = "b".to_owned();
    store.insert_records(&records, true).await.unwrap();
    assert_eq!(store.history_size().await.unwrap().records, 70);
}

async fn callers_that_give_up_leave_nothing_half_done(home: Home) {
    let store = home.open().await;
    // Each gives up a little later than the one before: at every point of the work, from the first step to after the last.
    let mut written = 0;
    for microseconds in (0..4000).step_by(50) {
        let records = series("k1", microseconds * 10, 5);
        let work = store.insert_records(&records, false);
        let done = tokio::time::timeout(Duration::from_micros(microseconds.unsigned_abs()), work).await;
        written += u64::from(done.is_ok()) * 5;
    }
    let size = store.history_size().await.unwrap();
    let found = store.page(&Scope::Everyone, None, 1000, 0).await.unwrap().records;
    assert_eq!(found.len() as u64, size.records, "the total is changed with the records or not at all");
    assert_eq!(found.len() % 5, 0, "a batch is there whole or not at all");
    assert!(size.records >= written, "what was answered is there");
    // And the connections are as good as new.
    store.insert_records(&series("k2", 0, 1), true).await.unwrap();
}

async fn more_callers_than_connections_are_all_served(home: Home) {
    let store = home.open().await;
    let record = record("k1", "x");
    store.insert_records(std::slice::from_ref(&record), false).await.unwrap();
    let callers = (0..100).map(|index| {
        let (store, record) = (store.clone(), record.clone());
        tokio::spawn(async move {
            if index % 10 == 0 {
                store.insert_records(&series("k2", index, 1), false).await.unwrap();
            }
            assert_eq!(store.record(record.id, &Scope::Everyone).await.unwrap(), Some(record));
        })
    });
    futures::future::try_join_all(callers).await.unwrap();
    assert_eq!(store.history_size().await.unwrap().records, 11);
}

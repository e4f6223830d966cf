//! What instances write.

use futures::StreamExt;

use super::waiting::{eventually, soon};
use super::{Bench, id, skipped};
use crate::error::EngineError;
use crate::runtime::{LogQuery, Stream};

/// Lines come in the order of their stream, each with its stream and moment.
pub async fn both_streams_are_kept_apart_and_in_order(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["prints", "50", "40", "0"])).await;
    server.exit_of("shop.v1.worker.1").await;
    for (stream, word, count) in [(Stream::Stdout, "out", 50), (Stream::Stderr, "err", 40)] {
        let expected: Vec<_> = (0..count).map(|number| format!("{word} {number}")).collect();
        assert_eq!(server.written("shop.v1.worker.1", stream).await, expected);
    }
    // Between the streams an engine that reads each by itself may be off by a moment.
    let lines = server.log("shop.v1.worker.1", LogQuery::default()).await;
    let (out, err): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.stream == Stream::Stdout);
    assert!([out, err].iter().all(|stream| stream.is_sorted_by_key(|line| line.at)), "oldest first");
}

/// `tail` counts from the end.
pub async fn a_tail_is_the_last_lines(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["prints", "20", "0", "0"])).await;
    server.exit_of("shop.v1.worker.1").await;
    for (tail, expected) in [(0, 0), (1, 1), (7, 7), (500, 20)] {
        let lines = server.log("shop.v1.worker.1", LogQuery { tail: Some(tail), ..LogQuery::default() }).await;
        let texts: Vec<_> = lines.into_iter().map(|line| line.text).collect();
        let last: Vec<_> = (20 - expected..20).map(|number| format!("out {number}")).collect();
        assert_eq!(texts, last, "tail {tail}");
    }
}

/// `since` is to the line, not to the second.
pub async fn since_leaves_out_what_was_before(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["ticks"])).await;
    server.until_written("shop.v1.worker.1", "tick 9").await;
    let all = server.log("shop.v1.worker.1", LogQuery::default()).await;
    let since = all[5].at;
    let later = server.log("shop.v1.worker.1", LogQuery { since: Some(since), ..LogQuery::default() }).await;
    assert!(later.iter().all(|line| line.at >= since));
    assert_eq!(later[0].text, "tick 5");
    let query = LogQuery { since: Some(since), tail: Some(2), follow: false };
    assert_eq!(server.log("shop.v1.worker.1", query).await.len(), 2);
}

/// No line is missed or told twice between what was there and what comes.
pub async fn following_tells_every_line_once_and_ends_with_the_instance(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["ticks"])).await;
    server.until_written("shop.v1.worker.1", "tick 3").await;
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut lines = server.runtime().logs(&id("shop.v1.worker.1"), &follow).await.unwrap();
    for number in 0..12 {
        let line = soon("the next line", lines.next()).await.unwrap().unwrap();
        assert_eq!(line.text, format!("tick {number}"));
    }
    let tail = LogQuery { tail: Some(1), follow: true, since: None };
    let mut latest = server.runtime().logs(&id("shop.v1.worker.1"), &tail).await.unwrap();
    let first = soon("the last line", latest.next()).await.unwrap().unwrap();
    assert_ne!(first.text, "tick 0", "a tail applies to what was there");
    server.stop("shop.v1.worker.1").await;
    for stream in [lines, latest] {
        let rest: Vec<_> = soon("the end of what is followed", stream.collect()).await;
        assert!(rest.iter().all(Result::is_ok), "{rest:?}");
    }
}

/// Whoever follows what ends by itself gets all of it and an end.
pub async fn following_what_has_exited_ends(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["prints", "30", "0", "0"])).await;
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    // Now, while it may still run, and later, when it does not.
    for _ in 0..2 {
        assert_eq!(server.log("shop.v1.worker.1", follow.clone()).await.len(), 30);
        server.exit_of("shop.v1.worker.1").await;
    }
}

/// The log is there as long as the instance is, and not longer.
pub async fn a_log_outlives_its_program_and_goes_with_its_instance(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["prints", "1", "0", "0"])).await;
    server.exit_of("shop.v1.worker.1").await;
    assert_eq!(server.written("shop.v1.worker.1", Stream::Stdout).await, ["out 0"]);
    server.stop("shop.v1.worker.1").await;
    let gone = server.runtime().logs(&id("shop.v1.worker.1"), &LogQuery::default()).await;
    assert!(matches!(gone.err(), Some(EngineError::NoSuchInstance(_))));
    server.start(&server.spec("shop.v1.worker.1", &["prints", "0", "1", "0"])).await;
    server.exit_of("shop.v1.worker.1").await;
    assert!(server.written("shop.v1.worker.1", Stream::Stdout).await.is_empty(), "nothing of its predecessor");
}

/// Whatever a program writes becomes lines of text.
pub async fn bytes_that_are_no_text_and_lines_without_an_end_are_kept(bench: &Bench) {
    if !bench.can().programs {
        return skipped("the engine runs no programs");
    }
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["raw"])).await;
    server.exit_of("shop.v1.worker.1").await;
    let lines = eventually("the last line", || async {
        let lines = server.written("shop.v1.worker.1", Stream::Stdout).await;
        (lines.last().map(String::as_str) == Some("no end")).then_some(lines)
    })
    .await;
    assert_eq!(lines[0], "\u{fffd}\u{fffd} ok");
    assert!(lines.contains(&"after".to_owned()), "a long line does not swallow the next one");
}

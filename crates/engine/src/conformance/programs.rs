//! Programs inside instances, and one-off processes.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::server::{Heard, Server, argv};
use super::waiting::{SOON, eventually, processes_with, soon, unique};
use super::{Bench, id, skipped};
use crate::builder::OutputSink;
use crate::error::EngineError;
use crate::runtime::{InstanceSpec, Stream};

/// Waits until no process bears the marker, where there are processes at all.
async fn no_process(marker: &str) {
    eventually("the end of its processes", || async { processes_with(marker).is_empty().then_some(()) }).await;
}

/// Output, exit code and environment of a program inside an instance.
pub async fn a_program_runs_inside_an_instance(bench: &Bench) {
    let server = bench.built().await;
    server.serve("shop.v1.web.1", "hello").await;
    let (heard, cancel) = (Heard::default(), CancellationToken::new());
    let web = id("shop.v1.web.1");
    let exec = server.runtime().exec(&web, &argv(&["prints", "2", "1", "7"]), &heard.sink(), &cancel).await;
    assert_eq!(exec.unwrap().code, Some(7));
    let text = |stream| heard.lines().into_iter().filter(move |line| line.stream == stream).map(|line| line.text);
    assert_eq!(text(Stream::Stdout).collect::<Vec<_>>(), ["out 0", "out 1"]);
    assert_eq!(text(Stream::Stderr).collect::<Vec<_>>(), ["err 0"]);
    let heard = Heard::default();
    let exec = server.runtime().exec(&web, &argv(&["env"]), &heard.sink(), &cancel).await;
    assert!(exec.unwrap().success());
    assert!(heard.text().contains(r#""GREETING": "hello""#), "{}", heard.text());
    assert!(server.inspect("shop.v1.web.1").await.unwrap().is_running());
}

/// Cancelling kills the program and nothing else.
pub async fn a_cancelled_program_is_killed_and_its_instance_goes_on(bench: &Bench) {
    let server = bench.built().await;
    let address = server.serve("shop.v1.web.1", "hello").await;
    let (marker, cancel) = (unique("marker"), CancellationToken::new());
    let sink = Heard::default().cancel_after("staying", &cancel);
    let (web, arguments) = (id("shop.v1.web.1"), argv(&["stubborn", &marker]));
    let exec = server.runtime().exec(&web, &arguments, &sink, &cancel);
    let result = soon("the end of a cancelled program", exec).await;
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
    no_process(&marker).await;
    assert_eq!(super::waiting::get(address).await, "hello");
}

/// Neither an instance that never was nor one that has exited runs programs.
pub async fn there_is_nothing_to_run_in_an_instance_that_is_gone(bench: &Bench) {
    let server = bench.built().await;
    let (output, cancel) = (OutputSink::discard(), CancellationToken::new());
    let never = server.runtime().exec(&id("shop.v1.web.9"), &argv(&["env"]), &output, &cancel).await;
    assert!(matches!(never, Err(EngineError::NoSuchInstance(_))), "{never:?}");
    server.start(&server.spec("shop.v1.worker.1", &["prints", "0", "0", "0"])).await;
    server.exit_of("shop.v1.worker.1").await;
    let exited = server.runtime().exec(&id("shop.v1.worker.1"), &argv(&["env"]), &output, &cancel).await;
    assert!(exited.is_err(), "{exited:?}");
}

/// A one-off process tells its output and its end, and is gone.
pub async fn a_one_off_process_runs_to_its_end_and_is_removed(bench: &Bench) {
    let server = bench.built().await;
    for code in [0, 9] {
        let (ended, lines) = server.run(&server.spec("shop.v1.run.1", &["prints", "30", "2", &code.to_string()])).await;
        assert_eq!(ended.unwrap().code, Some(code));
        let count = |stream| lines.iter().filter(|line| line.stream == stream).count();
        assert_eq!((count(Stream::Stdout), count(Stream::Stderr)), (30, 2), "{lines:?}");
        assert!(server.ids().await.is_empty());
    }
    let (ended, lines) = server.run(&server.spec("shop.v1.run.1", &["env"]).with_env("GREETING", "hello")).await;
    assert!(ended.unwrap().success());
    assert!(lines[0].text.contains(r#""GREETING": "hello""#), "{lines:?}");
}

/// What does not end by itself ends at its deadline.
pub async fn a_one_off_process_past_its_deadline_is_killed(bench: &Bench) {
    let server = bench.built().await;
    let (marker, begun, deadline) = (unique("marker"), Instant::now(), Duration::from_secs(2));
    let spec = server.spec("shop.v1.run.1", &["stubborn", &marker]);
    let run = server.runtime().run(&spec, &OutputSink::discard(), deadline, &CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::TimedOut { .. })), "{run:?}");
    assert!(begun.elapsed() >= deadline && begun.elapsed() < deadline + SOON, "{:?}", begun.elapsed());
    gone(&server, &marker).await;
}

/// What is called off ends soon.
pub async fn a_cancelled_one_off_process_is_killed(bench: &Bench) {
    let server = bench.built().await;
    let (marker, cancel) = (unique("marker"), CancellationToken::new());
    let sink = Heard::default().cancel_after("staying", &cancel);
    let spec = server.spec("shop.v1.run.1", &["stubborn", &marker]);
    let run = soon("the end", server.runtime().run(&spec, &sink, Duration::from_secs(60), &cancel)).await;
    assert!(matches!(run, Err(EngineError::Cancelled)), "{run:?}");
    gone(&server, &marker).await;
    let never_begun = server.runtime().run(&spec, &sink, Duration::from_secs(60), &cancel).await;
    assert!(matches!(never_begun, Err(EngineError::Cancelled)), "{never_begun:?}");
    gone(&server, &marker).await;
}

/// What a server that was killed has left running, the next one can stop.
pub async fn a_one_off_process_whose_caller_is_gone_can_be_stopped(bench: &Bench) {
    let server = bench.built().await;
    let (marker, begun) = (unique("marker"), CancellationToken::new());
    let sink = Heard::default().cancel_after("staying", &begun);
    let spec = server.spec("shop.v1.run.1", &["stubborn", &marker]);
    let never = CancellationToken::new();
    tokio::select! {
        ended = server.runtime().run(&spec, &sink, Duration::from_secs(60), &never) => panic!("{ended:?}"),
        () = soon("its first line", begun.cancelled()) => {}
    }
    drop(server);
    let server = bench.server().await;
    server.runtime().stop(&id("shop.v1.run.1"), Duration::ZERO).await.unwrap();
    gone(&server, &marker).await;
}

async fn gone(server: &Server, marker: &str) {
    eventually("its removal", || async { server.ids().await.is_empty().then_some(()) }).await;
    no_process(marker).await;
}

/// A line of 100 kB arrives as one of at most 16 KiB, and the next one is whole.
pub async fn a_line_that_is_too_long_is_cut(bench: &Bench) {
    if !bench.can().programs {
        return skipped("the engine runs no programs");
    }
    let server = bench.built().await;
    let spec: InstanceSpec = server.spec("shop.v1.run.1", &["raw"]);
    let (ended, lines) = server.run(&spec).await;
    assert!(ended.unwrap().success());
    let texts: Vec<_> = lines.into_iter().map(|line| line.text).collect();
    assert_eq!(texts.len(), 4, "{:?}", texts.iter().map(String::len).collect::<Vec<_>>());
    assert_eq!((texts[0].as_str(), texts[2].as_str(), texts[3].as_str()), ("\u{fffd}\u{fffd} ok", "after", "no end"));
    assert!(texts[1].len() <= 16 << 10 && texts[1].starts_with("xxxx"), "{} bytes", texts[1].len());
}

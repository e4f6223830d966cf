//! Logs: complete, in order, bounded, followed across rotations.

use coracle_engine::{LogQuery, Stream};
use futures::StreamExt;

use crate::bench::{Bench, SOON, collector};

#[tokio::test]
async fn lines_come_with_their_stream_and_damage_is_repaired() {
    let bench = Bench::new();
    let program = "import sys\nprint('one')\nsys.stdout.flush()\nsys.stderr.write('two\\r\\n')\nsys.stdout.buffer.write(b'\\xff!\\n\\nend')";
    let artifact = bench.python(program).await;
    let spec = bench.spec("v1.task.1", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let lines = bench.engine.runtime.logs(&spec.id, &query).await.unwrap();
    let lines: Vec<_> = tokio::time::timeout(SOON, lines.map(|line| line.unwrap()).collect()).await.unwrap();
    let of = |stream| lines.iter().filter(|line| line.stream == stream).map(|line| line.text.as_str()).collect::<Vec<_>>();
    assert_eq!(of(Stream::Stdout), ["one", "\u{fffd}!", "", "end"]);
    assert_eq!(of(Stream::Stderr), ["two"]);
    assert!(lines.is_sorted_by_key(|line| line.at));
    bench.stop(&spec.id).await;
}

#[tokio::test]
async fn long_lines_are_cut() {
    let bench = Bench::new();
    let (exit, text) = bench.run("v1.task.1", "print('x' * 10_000_000)\nprint('after')").await;
    assert!(exit.unwrap().success());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0].len(), lines[1]), (2, 16 << 10, "after"));
}

#[tokio::test]
async fn tails_and_moments_choose_lines() {
    let bench = Bench::new();
    let artifact =
        bench.python("for n in range(100): print(n, flush=True)\nimport time; print('ready', flush=True); time.sleep(600)").await;
    let spec = bench.spec("v1.task.1", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    bench.wrote(&spec.id, "ready").await;
    let all: Vec<_> =
        bench.engine.runtime.logs(&spec.id, &LogQuery::default()).await.unwrap().map(|line| line.unwrap()).collect().await;
    assert_eq!(all.len(), 101);
    let tail = LogQuery { tail: Some(3), ..LogQuery::default() };
    let tail: Vec<_> = bench.engine.runtime.logs(&spec.id, &tail).await.unwrap().map(|line| line.unwrap().text).collect().await;
    assert_eq!(tail, ["98", "99", "ready"]);
    let since = LogQuery { since: Some(all[50].at), ..LogQuery::default() };
    let since: Vec<_> = bench.engine.runtime.logs(&spec.id, &since).await.unwrap().map(|line| line.unwrap()).collect().await;
    assert!(since.iter().all(|line| line.at >= all[50].at) && since.contains(&all[50]));
    bench.stop(&spec.id).await;
}

#[tokio::test]
async fn logs_are_bounded_and_followers_miss_nothing() {
    let bench = Bench::new();
    let artifact = bench.python("import sys\nfor n in range(400_000): sys.stdout.write(f'{n} ' + 'x' * 100 + '\\n')").await;
    let spec = bench.spec("v1.task.1", &artifact, &["/usr/bin/python3", "app.py"]);
    let (sink, lines) = collector();
    bench.start(&spec).await;
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut follower = bench.engine.runtime.logs(&spec.id, &query).await.unwrap();
    while let Some(line) = tokio::time::timeout(SOON, follower.next()).await.unwrap() {
        sink.line(Stream::Stdout, line.unwrap().text);
    }
    let directory = bench.home().join("instances").join(spec.id.to_string());
    let sizes: Vec<u64> =
        ["log", "log.1", "log.2"].iter().map(|name| std::fs::metadata(directory.join(name)).unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size < 11 << 20), "{sizes:?}");
    assert!(!directory.join("log.3").exists());
    let numbers: Vec<u32> =
        lines.lock().unwrap().iter().map(|line| line.text.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&399_999));
    assert!(numbers.is_sorted(), "out of order");
    bench.stop(&spec.id).await;
}

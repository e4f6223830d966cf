//! Logs, and programs run for somebody who watches.

use std::time::Duration;

use coracle_api::{ExecRequest, LogOptions, ProblemKind, RunLine, RunRequest, RunStream};
use coracle_engine::fake::{Script, Which};
use coracle_engine::{Exit, Stream};

use crate::harness::{Env, PATIENCE, app};

async fn all(mut lines: RunStream) -> Vec<RunLine> {
    let mut found = Vec::new();
    let reading = async {
        while let Some(line) = lines.next().await {
            found.push(line.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the output does not end");
    found
}

fn run(argv: &[&str]) -> RunRequest {
    RunRequest { argv: argv.iter().map(ToString::to_string).collect() }
}

#[tokio::test]
async fn a_program_is_watched_to_its_end() {
    let env = Env::start().await;
    env.deploy("shop").await;
    env.machine.install(|argv, _| (argv.first()? == "greet").then(|| Script::exits(7, &[&format!("hello {}", argv[1])])));
    let lines = all(env.client.run(&app("shop"), &run(&["greet", "a b; c"])).await.unwrap()).await;
    let [RunLine::Output(line), RunLine::Exit(exit)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((line.text.as_str(), exit.shell_code()), ("hello a b; c", 7));
    let exec = ExecRequest { argv: run(&["greet", "x"]).argv, instance: None };
    let lines = all(env.client.exec(&app("shop"), &exec).await.unwrap()).await;
    assert!(matches!(lines.last(), Some(RunLine::Exit(exit)) if exit.code == Some(7)), "{lines:?}");
}

#[tokio::test]
async fn what_cannot_be_run_is_a_problem_and_no_stream() {
    let env = Env::start().await;
    let missing = env.client.run(&app("shop"), &run(&["x"])).await.unwrap_err();
    assert_eq!(missing.kind(), Some(ProblemKind::NotFound), "{missing:?}");
    env.deploy("shop").await;
    let foreign = ExecRequest { argv: run(&["x"]).argv, instance: Some("blog.v1.web.1".parse().unwrap()) };
    assert_eq!(env.client.exec(&app("shop"), &foreign).await.unwrap_err().kind(), Some(ProblemKind::Invalid));
}

#[tokio::test]
async fn whoever_stops_watching_ends_the_program() {
    let env = Env::start().await;
    env.deploy("shop").await;
    let endless = Script::never_listens().prints(Stream::Stdout, &["begun"]);
    env.machine.install(move |argv, _| (argv.first()? == "endless").then(|| endless.clone()));
    let mut lines = env.client.run(&app("shop"), &run(&["endless"])).await.unwrap();
    assert!(matches!(lines.next().await, Some(Ok(RunLine::Output(line))) if line.text == "begun"));
    assert_eq!(env.machine.inventory().instances.len(), 2);
    drop(lines);
    env.eventually("it is ended", async |env| (env.machine.inventory().instances.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn logs_are_told_from_the_past_and_followed() {
    let env = Env::start().await;
    let talking = Script::serves().prints(Stream::Stdout, &["one", "two", "three"]).ticking(Duration::from_millis(20));
    env.machine.script(Which::all(), talking);
    env.deploy("shop").await;
    let options = LogOptions { process: Some("web".parse().unwrap()), ..LogOptions::default() };
    let mut past = env.client.logs(&app("shop"), &options).await.unwrap();
    let first = past.next().await.unwrap().unwrap();
    assert_eq!((first.text.as_str(), first.instance.to_string().as_str()), ("one", "shop.v1.web.1"));
    let mut texts = Vec::new();
    while let Some(line) = past.next().await {
        texts.push(line.unwrap().text);
    }
    assert_eq!(texts[..2], ["two", "three"]);

    let mut followed =
        env.client.logs(&app("shop"), &LogOptions { tail: Some(1), follow: true, ..LogOptions::default() }).await.unwrap();
    for _ in 0..5 {
        let line = tokio::time::timeout(PATIENCE, followed.next()).await.unwrap().unwrap().unwrap();
        assert!(line.text.starts_with("tick") || line.text == "three", "{line:?}");
    }
    let none = LogOptions { process: Some("worker".parse().unwrap()), ..LogOptions::default() };
    if let Ok(mut stream) = env.client.logs(&app("shop"), &none).await {
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn how_a_program_was_killed_is_told() {
    let env = Env::start().await;
    env.deploy("shop").await;
    env.machine.install(|argv, _| {
        (argv.first()? == "greedy").then(|| Script::ends(Exit { signal: Some(9), out_of_memory: true, ..Exit::default() }))
    });
    let lines = all(env.client.run(&app("shop"), &run(&["greedy"])).await.unwrap()).await;
    let Some(RunLine::Exit(exit)) = lines.last() else { panic!("{lines:?}") };
    assert_eq!((exit.out_of_memory, exit.shell_code(), exit.to_string().as_str()), (true, 137, "killed: out of memory"));
}

//! Steps of a pipeline: what they keep from going live, and what is left of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_engine::Exit;
use coracle_engine::fake::{Script, Which};
use coracle_model::{Outcome, Phase, Span};
use coracle_orchestrator::{Deployed, Event, OrchestratorError, Progress};
use tokio_util::sync::CancellationToken;

use crate::world::{World, spec};

/// Deploys and answers with what was told as well.
async fn told(world: &World) -> (Result<Deployed, OrchestratorError>, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let progress = Progress::new(move |event| match event {
        Event::Note(text) => kept.lock().unwrap().push(text),
        Event::Output(line) => kept.lock().unwrap().push(format!("| {}", line.text)),
        _ => {}
    });
    let result = world.orchestrator.deploy(world.request(spec("shop")), &progress, &CancellationToken::new()).await;
    let lines = lines.lock().unwrap().clone();
    (result, lines)
}

fn failed(result: Result<Deployed, OrchestratorError>) -> (Phase, String, Vec<String>) {
    match result {
        Err(OrchestratorError::Deployment { phase, cause, evidence, .. }) => (phase, cause, evidence),
        other => panic!("{other:?}"),
    }
}

fn started(world: &World, process: &str) -> usize {
    world.machine.started().iter().filter(|id| id.process.as_str() == process).count()
}

#[tokio::test]
async fn a_failing_step_keeps_the_old_release_and_leaves_nothing() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(
        "[pipeline.steps]\nlint = { run = \"lint\" }\ntest = { run = \"test\" }\nafter = { run = \"x\", needs = [\"test\"] }\n\
         slow = { run = \"x\", needs = [\"lint\"] }\n",
    );
    world.machine.script(Which::process(2, "step.test"), Script::exits(3, &["1 failed, 2 passed"]));
    let (result, lines) = told(&world).await;
    let (phase, cause, evidence) = failed(result);
    assert_eq!((phase, cause.as_str()), (Phase::Pipeline, "the step test failed: exit code 3"));
    assert_eq!(evidence, ["1 failed, 2 passed"]);
    assert!(lines.contains(&"| test: 1 failed, 2 passed".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"after: not run, since test failed".to_owned()), "{lines:#?}");
    // What does not need it is run all the same.
    assert_eq!((started(&world, "step.slow"), started(&world, "step.after")), (1, 0));
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    assert_eq!((world.instances(), world.releases("shop").await), (vec!["shop.v1.web.1".to_owned()], vec![1]));
}

#[tokio::test]
async fn several_failures_are_all_named() {
    let world = World::new().await;
    world.runs("[pipeline.steps]\na = { run = \"a\" }\nb = { run = \"b\" }\n");
    world.machine.script(Which::release(1), Script::exits(1, &["no"]));
    let (_, cause, _) = failed(told(&world).await.0);
    assert!(cause.contains("the step a failed: exit code 1") && cause.contains("b failed as well"), "{cause}");
}

#[tokio::test]
async fn what_has_passed_with_the_same_is_not_run_again() {
    let world = World::new().await;
    world.write("app.py", "1");
    world.write("README", "1");
    world.runs("[pipeline.steps]\nall = { run = \"x\" }\npart = { run = \"x\", when = { paths = \"*.py\" } }\n");
    world.deploy(spec("shop")).await.unwrap();
    let counts = || (started(&world, "step.all"), started(&world, "step.part"));
    assert_eq!(counts(), (1, 1));

    let (result, lines) = told(&world).await;
    result.unwrap();
    assert_eq!(counts(), (1, 1), "nothing has changed");
    assert!(lines.iter().any(|line| line.starts_with("all: cached: ") && line.ends_with("passed for v1")), "{lines:#?}");

    world.write("README", "2");
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(counts(), (2, 1), "a file has changed that only one of them depends on");

    world.write("app.py", "2");
    world.machine.script(Which::process(4, "step.part"), Script::exits(1, &[]));
    world.deploy(spec("shop")).await.unwrap_err();
    assert_eq!(counts(), (3, 2));
    // What failed is no success to go by; what passed beside it is.
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(counts(), (3, 3));
}

#[tokio::test]
async fn a_step_is_tried_again_as_often_as_it_says() {
    let world = World::new().await;
    world.runs("[pipeline.steps.test]\nrun = \"x\"\nretries = 2\n");
    world.machine.script(Which::process(1, "step.test"), Script::exits(1, &["flaky"]));
    let (result, lines) = told(&world).await;
    let (_, cause, evidence) = failed(result);
    assert_eq!((cause.as_str(), evidence), ("the step test failed: exit code 1", vec!["flaky".to_owned()]));
    assert_eq!(started(&world, "step.test"), 3);
    assert!(lines.contains(&"test: the step test failed: exit code 1; trying again, 2 of 2".to_owned()), "{lines:#?}");
}

#[tokio::test]
async fn a_step_that_does_not_end_is_ended() {
    let world = World::new().await;
    world.runs("[pipeline.steps.test]\nrun = \"x\"\ntimeout = \"100ms\"\n");
    world.machine.script(Which::process(1, "step.test"), Script::never_listens());
    let (phase, cause, _) = failed(told(&world).await.0);
    assert_eq!((phase, cause.as_str()), (Phase::Pipeline, "the step test did not end within 100ms"));
    assert!(world.machine.inventory().is_empty());
}

#[tokio::test]
async fn calling_off_ends_every_step() {
    let world = World::new().await;
    world.runs("[pipeline.steps]\na = { run = \"x\" }\nb = { run = \"x\" }\nlater = { run = \"x\", needs = [\"a\"] }\n");
    world.machine.script(Which::release(1), Script::never_listens());
    let cancel = CancellationToken::new();
    let (orchestrator, request, token) = (world.orchestrator.clone(), world.request(spec("shop")), cancel.clone());
    let deploying = tokio::spawn(async move { orchestrator.deploy(request, &Progress::silent(), &token).await });
    world.until("both run", async || world.instances() == ["shop.v1.step.a.1", "shop.v1.step.b.1"]).await;
    cancel.cancel();
    let result = deploying.await.unwrap();
    assert!(matches!(result, Err(OrchestratorError::Cancelled(Phase::Pipeline))), "{result:?}");
    assert!(world.machine.inventory().is_empty());
    assert_eq!(started(&world, "step.later"), 0);
}

#[tokio::test]
async fn as_many_run_at_once_as_the_section_says() {
    let world = World::new().await;
    world.runs("[pipeline]\nparallel = 2\n[pipeline.steps.test]\nrun = \"x\"\nmatrix = { N = [\"1\", \"2\", \"3\"] }\n");
    world.machine.script(Which::process(1, "step.test"), Script::never_listens());
    let cancel = CancellationToken::new();
    let (orchestrator, request, token) = (world.orchestrator.clone(), world.request(spec("shop")), cancel.clone());
    let deploying = tokio::spawn(async move { orchestrator.deploy(request, &Progress::silent(), &token).await });
    world.until("two run", async || world.instances().len() == 2).await;
    let ended = Exit { code: Some(0), ..Exit::default() };
    world.machine.end(&"shop.v1.step.test.1".parse().unwrap(), ended);
    world.until("the third follows", async || world.instances() == ["shop.v1.step.test.2", "shop.v1.step.test.3"]).await;
    for number in [2, 3] {
        world.machine.end(&format!("shop.v1.step.test.{number}").parse().unwrap(), ended);
    }
    deploying.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_a_server_that_died_are_removed() {
    let mut world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs("[pipeline.steps.test]\nrun = \"x\"\n");
    world.machine.script(Which::process(2, "step.test"), Script::never_listens());
    let (orchestrator, request) = (world.orchestrator.clone(), world.request(spec("shop")));
    let deploying =
        tokio::spawn(async move { orchestrator.deploy(request, &Progress::silent(), &CancellationToken::new()).await });
    world.until("it runs", async || world.instances().contains(&"shop.v2.step.test.1".to_owned())).await;
    deploying.abort();
    deploying.await.unwrap_err();
    world.restart_server().await;
    world.until("only the old release runs", async || world.instances() == ["shop.v1.web.1"]).await;
    assert_eq!(world.last_outcome("shop").await, Outcome::Interrupted { phase: Phase::Pipeline, completed: false });
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
}

#[tokio::test]
async fn steps_see_the_configuration_they_name_and_do_not_print_it() {
    let world = World::new().await;
    world.runs("[pipeline.steps.test]\nrun = \"x\"\nsecrets = [\"TOKEN\"]\nenv = { MODE = \"test\" }\n");
    let refused = world.deploy(spec("shop")).await.unwrap_err();
    assert!(refused.to_string().contains("required and not set: TOKEN"), "{refused}");
    world.set_config("TOKEN", Some("hunter2hunter2")).await.unwrap();
    world.set_config("OTHER", Some("unseen")).await.unwrap();
    let script = Script::exits(1, &["token=hunter2hunter2"]).then_ends(Duration::ZERO, Exit { code: Some(1), ..Exit::default() });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    world.machine.install(move |argv, env| {
        (argv == ["x"]).then(|| {
            kept.lock().unwrap().extend(env.iter().map(|(name, value)| format!("{name}={value}")));
            script.clone()
        })
    });
    let (result, lines) = told(&world).await;
    let (_, _, evidence) = failed(result);
    assert_eq!(evidence, ["token=***"]);
    assert!(!lines.iter().any(|line| line.contains("hunter2")), "{lines:#?}");
    let seen = seen.lock().unwrap();
    let has = |pair: &str| seen.iter().any(|one| one == pair);
    assert!(has("TOKEN=hunter2hunter2") && has("MODE=test") && has("CI=true") && has("CORACLE_STEP=test"), "{seen:?}");
    assert!(!seen.iter().any(|one| one.starts_with("OTHER=")), "{seen:?}");
}

#[tokio::test]
async fn images_are_refused_where_nothing_runs_them() {
    let world = World::new().await;
    for (text, what) in [("image = \"python:3.12\"", "runs in the image python:3.12"), ("services = [\"redis:7\"]", "redis:7")] {
        world.runs(&format!("[pipeline.steps.test]\nrun = \"x\"\n{text}\n"));
        let (phase, cause, _) = failed(world.deploy(spec("shop")).await);
        assert_eq!(phase, Phase::Validate);
        assert!(cause.contains("the step test") && cause.contains(what), "{cause}");
    }
    assert!(world.machine.built().is_empty());
}

#[tokio::test]
async fn a_new_release_is_asked_before_and_after_it_has_requests() {
    let world = World::new().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    let fails_after = Arc::new(Mutex::new(false));
    let fails = fails_after.clone();
    world.machine.install(move |argv, env| {
        if argv != ["ask"] {
            return None;
        }
        let value = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default();
        let when = value("CORACLE_VERIFY");
        let ends = i32::from(when == "after" && *fails.lock().unwrap());
        assert!(value("CORACLE_URL").starts_with("http://127.0.0.1:"), "{env:?}");
        assert_eq!(value("CORACLE_HOST"), "shop.localhost");
        kept.lock().unwrap().push(when);
        Some(Script::exits(ends, &["it is sick"]))
    });
    world.runs("[pipeline.verify.smoke]\nrun = \"ask\"\n");
    world.deploy(spec("shop")).await.unwrap();
    // Of the first release there is nothing to go back to.
    assert_eq!(*asked.lock().unwrap(), ["before"]);
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["before", "before", "after"]);

    *fails_after.lock().unwrap() = true;
    let (phase, cause, evidence) = failed(world.deploy(spec("shop")).await);
    assert_eq!(phase, Phase::Drain);
    assert_eq!(cause, "after the switch, which was taken back, the step smoke failed: exit code 1");
    assert_eq!(evidence, ["it is sick"]);
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
    world.until("only the old release runs", async || world.instances() == ["shop.v2.web.1"]).await;
}

#[tokio::test]
async fn a_release_that_fails_its_questions_gets_no_requests() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs("[pipeline.verify.smoke]\nrun = \"ask\"\nretries = 1\n");
    world.machine.script(Which::process(2, "step.smoke"), Script::exits(1, &["no"]));
    let (phase, cause, _) = failed(world.deploy(spec("shop")).await);
    assert_eq!((phase, cause.as_str()), (Phase::Probe, "the step smoke failed: exit code 1"));
    assert_eq!(started(&world, "step.smoke"), 2);
    assert_eq!((world.get("shop").await.as_deref(), world.instances()), (Ok("v1 web.1"), vec!["shop.v1.web.1".to_owned()]));
    // Under recreate the old release comes back.
    let mut shop = spec("shop");
    shop.deploy.strategy = Some(coracle_model::Strategy::Recreate);
    shop.deploy.watch = Span::millis(0);
    world.machine.script(Which::process(3, "step.smoke"), Script::exits(1, &["no"]));
    world.deploy(shop).await.unwrap_err();
    world.until_answers("shop", "v1 web.1").await;
}

#[tokio::test]
async fn a_repository_with_tests_gets_a_suggestion_once_and_no_surprise() {
    let world = World::new().await;
    world.write("test_shop.py", "");
    let suggests = |lines: &[String]| lines.iter().any(|line| line.contains("the tests here (test_shop.py)"));
    let plan = world.orchestrator.plan(world.request(spec("shop"))).await.unwrap().steps;
    assert!(suggests(&plan), "{plan:#?}");
    let (result, lines) = told(&world).await;
    result.unwrap();
    assert!(suggests(&lines), "{lines:#?}");
    let (result, lines) = told(&world).await;
    result.unwrap();
    assert!(!suggests(&lines), "{lines:#?}");
    world.runs("[pipeline.steps]\ntest = { run = \"x\" }\nafter = { run = \"x\", needs = [\"test\"] }\n[pipeline.verify.up]\nrun = \"x\"\n");
    let plan = world.orchestrator.plan(world.request(spec("shop"))).await.unwrap().steps;
    assert!(!suggests(&plan) && plan.contains(&"pipeline, 3 at once: test, after (after test)".to_owned()), "{plan:#?}");
    assert!(plan.contains(&"verified before and after the switch by up".to_owned()), "{plan:#?}");
    // To show what would be done does nothing.
    assert_eq!(started(&world, "step.test"), 0);
}

#[tokio::test]
async fn a_plan_says_how_often_a_release_is_asked_and_a_switch_whether_it_is_watched() {
    let world = World::new().await;
    world.runs("[pipeline.watch]\nwindow = \"10s\"\n[pipeline.verify.up]\nrun = \"x\"\n");
    let plan = async |spec| world.orchestrator.plan(world.request(spec)).await.unwrap().steps;
    let first = "verified before the switch by up, and not after it: there is no release before it to go back to".to_owned();
    assert!(plan(spec("shop")).await.contains(&first), "{:#?}", plan(spec("shop")).await);
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(started(&world, "step.up"), 1);
    assert!(plan(spec("shop")).await.contains(&"verified before and after the switch by up".to_owned()));
    let mut recreated = spec("shop");
    recreated.deploy.strategy = Some(coracle_model::Strategy::Recreate);
    let gone = "verified before the switch by up, and not after it: under the strategy recreate the old release is gone by then";
    assert!(plan(recreated).await.contains(&gone.to_owned()));
    // Nobody counts here.
    let (result, lines) = told(&world).await;
    result.unwrap();
    assert_eq!(started(&world, "step.up"), 3);
    assert!(lines.contains(&"not watched after the switch: the proxy does not tell its counts".to_owned()), "{lines:#?}");
}

//! Values of secrets in what a deployment tells, and in what it leaves behind.

use std::sync::{Arc, Mutex};

use coracle_engine::fake::{BuildScript, Script, Which};
use coracle_model::{AppSpec, Outcome};
use coracle_orchestrator::{Deployed, Event, OrchestratorError, Progress, StatefulChanges};
use coracle_store::ConfigChange;
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, env_name, spec};

/// The value as a program prints it that underlines its beginning.
const PRINTED: &str = "it is \x1b[4msuperse\x1b[0mcretvalue123";
const SHOWN: &str = "it is \x1b[4m***\x1b[0m";

async fn set_secret(world: &World, value: &str, progress: &Progress) -> Result<Option<Deployed>, OrchestratorError> {
    let change = ConfigChange { name: env_name("SEC"), value: Some(value.into()), secret: true };
    world.orchestrator.set_config(&app("shop"), vec![change], progress, &CancellationToken::new()).await
}

/// A world with an app that has a secret.
async fn world() -> World {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    set_secret(&world, "supersecretvalue123", &Progress::silent()).await.unwrap();
    world
}

/// Takes everything that is told, as text.
fn listening() -> (Progress, Arc<Mutex<String>>) {
    let all = Arc::new(Mutex::new(String::new()));
    let kept = all.clone();
    (Progress::new(move |event: Event| kept.lock().unwrap().push_str(&format!("{event:?}\n"))), all)
}

/// What failed left no trace of the value, and said the rest.
async fn left_no_trace<T: std::fmt::Debug>(world: &World, result: Result<T, OrchestratorError>, told: &Mutex<String>) {
    let error = result.unwrap_err();
    let OrchestratorError::Deployment { evidence, .. } = &error else { panic!("{error:?}") };
    assert_eq!(evidence.last().map(String::as_str), Some(SHOWN));
    let outcome = world.last_outcome("shop").await;
    assert!(
        matches!(&outcome, Outcome::Failed { evidence, .. } if evidence.last().is_some_and(|line| line == SHOWN)),
        "{outcome:?}"
    );
    for told in [format!("{error:?}"), format!("{outcome:?}"), told.lock().unwrap().clone()] {
        assert!(told.contains("***") && !told.contains("superse") && !told.contains("cretvalue"), "{told}");
    }
}

async fn fails_without_a_trace(world: &World, spec: AppSpec) {
    let (progress, told) = listening();
    let result = world.orchestrator.deploy(world.request(spec), &progress, &CancellationToken::new()).await;
    left_no_trace(world, result, &told).await;
}

#[tokio::test]
async fn a_build_shows_no_secret() {
    let world = world().await;
    let (lines, step) = (vec![PRINTED.to_owned()], format!("RUN {PRINTED}"));
    world.machine.script_build(3, BuildScript::Fails { lines, step, code: 1 });
    fails_without_a_trace(&world, spec("shop")).await;
}

#[tokio::test]
async fn a_release_command_shows_no_secret() {
    let world = world().await;
    world.procfile("release: migrate\nweb: serve\n");
    world.machine.script(Which::process(3, "release-command"), Script::exits(1, &[PRINTED]));
    fails_without_a_trace(&world, spec("shop")).await;
}

#[tokio::test]
async fn a_step_shows_no_secret_that_it_was_not_given() {
    let world = world().await;
    world.runs("[pipeline.steps.test]\nrun = \"x\"\n");
    world.machine.script(Which::process(3, "step.test"), Script::exits(1, &[PRINTED]));
    fails_without_a_trace(&world, spec("shop")).await;
}

#[tokio::test]
async fn what_does_not_start_shows_no_secret() {
    let world = world().await;
    world.machine.script(Which::process(3, "web"), Script::exits(1, &[PRINTED]));
    let (progress, told) = listening();
    let result = world.orchestrator.deploy(world.request(spec("shop")), &progress, &CancellationToken::new()).await;
    left_no_trace(&world, result, &told).await;
}

#[tokio::test]
async fn neither_a_new_secret_nor_an_earlier_one_is_shown() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.machine.script(Which::release(2), Script::exits(1, &[PRINTED]));
    let (progress, told) = listening();
    let result = set_secret(&world, "supersecretvalue123", &progress).await;
    left_no_trace(&world, result, &told).await;

    set_secret(&world, "supersecretvalue123", &Progress::silent()).await.unwrap();
    set_secret(&world, "another value", &Progress::silent()).await.unwrap();
    world.machine.script(Which::release(5), Script::exits(1, &[PRINTED]));
    let (progress, told) = listening();
    let (to, stop) = (coracle_model::ReleaseNumber::new(3), CancellationToken::new());
    let result = world.orchestrator.rollback(&app("shop"), to, StatefulChanges::None, &progress, &stop).await;
    left_no_trace(&world, result, &told).await;
}

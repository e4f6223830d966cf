//! What ends and is started again, and what the engine does not start.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_dev::{DevError, Folder, News, Options, Outcome, Session, Stops, Tell, translation};
use coracle_engine::fake::{FakeEngine, Script, Which};
use coracle_model::EngineKind;

/// No session here takes long: its pauses are fractions of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a stack of one service on an engine to its end; `react` sees everything that is told.
async fn run(service: &str, engine: &FakeEngine, react: impl Fn(&str) + Send + Sync + 'static) -> (Outcome, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("shop");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("compose.yaml"), format!("services: {{web: {service}}}")).unwrap();
    let options = coracle_compose::Options { working_dir: folder.clone(), ..coracle_compose::Options::default() };
    let stack = translation::translate(&coracle_compose::load(&options).unwrap()).stack;
    let folder = Folder::new(&folder, &directory.path().join("state")).unwrap();
    let _holding = folder.hold().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Tell::new({
        let told = Arc::clone(&told);
        move |news| {
            if let News::Trouble(text) | News::Note(text) = news {
                react(&text);
                told.lock().unwrap().push(text);
            }
        }
    });
    let reload = Arc::new(|| Err("nothing is read again".to_owned()));
    let engine = engine.engine_of(folder.owner().clone());
    let session = Session::new(folder, engine, stack, reload, tell, Stops::default(), Options::default());
    let outcome: Result<Outcome, DevError> = tokio::time::timeout(PATIENCE, session.run()).await.unwrap();
    let told = told.lock().unwrap().clone();
    (outcome.unwrap(), told)
}

#[tokio::test]
async fn what_the_engine_does_not_start_again_is_tried_as_often_as_its_policy_allows_and_then_has_ended() {
    let engine = Arc::new(FakeEngine::new(EngineKind::Process));
    engine.script(Which::all(), Script::exits(3, &[]));
    let breaks = Arc::clone(&engine);
    let (outcome, told) = run("{image: x, restart: 'on-failure:2'}", &engine, move |text| {
        if text.contains("it is started again in") {
            breaks.script(Which::all(), Script::cannot_start("no room"));
        }
    })
    .await;
    assert!(matches!(outcome, Outcome::Ended(Some(_))), "{outcome:?} {told:?}");
    let tries = told.iter().filter(|text| text.contains("cannot be started again") && text.contains("it is tried in")).count();
    assert_eq!(tries, 1, "{told:?}");
    assert!(told.iter().any(|text| text.contains("no room") && text.ends_with("waiting for a change")), "{told:?}");
}

#[tokio::test]
async fn what_the_engine_starts_at_the_second_attempt_runs() {
    let engine = Arc::new(FakeEngine::new(EngineKind::Process));
    engine.script(Which::all(), Script::exits(3, &[]));
    let other = Arc::clone(&engine);
    let (outcome, told) = run("{image: x, restart: on-failure}", &engine, move |text| {
        if text.contains("it is started again in") {
            other.script(Which::all(), Script::cannot_start("no room"));
        } else if text.contains("it is tried in") {
            other.script(Which::all(), Script::exits(0, &[]));
        }
    })
    .await;
    assert_eq!(outcome, Outcome::Ended(None), "{told:?}");
    assert!(told.iter().any(|text| text.contains("cannot be started again")), "{told:?}");
}

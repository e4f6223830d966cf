//! What the reconcile loop does when something around an app breaks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_engine::fake::{Script, Which};
use coracle_engine::{LogQuery, Stream};
use coracle_model::ProcessName;
use coracle_orchestrator::{Event, Progress};
use coracle_proxy_table::Admission;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World, app, spec};

#[tokio::test]
async fn an_engine_that_is_away_does_not_keep_the_others_apps_from_healing() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.docker.set_available(false);
    let id = "shop.v1.web.1".parse().unwrap();
    assert!(world.machine.crash(&id));
    world.until("it is started again", async || world.machine.started().iter().filter(|it| **it == id).count() == 2).await;
    world.until_answers("shop", "v1 web.1").await;
}

#[tokio::test]
async fn destroying_an_app_removes_what_can_be_reached_of_it() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.docker.set_available(false);
    assert!(world.orchestrator.destroy(&app("shop")).await.is_err(), "what docker may have is not known");
    assert!(world.machine.inventory().is_empty(), "{:?}", world.machine.inventory());
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_does_not_keep_web_from_it() {
    let world = World::new().await;
    world.procfile("web: serve\naworker: work\n");
    world.deploy(spec("shop")).await.unwrap();
    world.orchestrator.scale(&app("shop"), vec![("aworker".parse().unwrap(), 1)]).await.unwrap();
    world.machine.script(Which::process(1, "aworker"), Script::cannot_start("no such program"));
    world.machine.reboot();
    // Once, without a second look by the timer: that comes later than this waits.
    let healed = tokio::time::timeout(Duration::from_secs(8), world.until_answers("shop", "v1 web.1"));
    healed.await.expect("web is started in the same look");
}

#[tokio::test]
async fn requests_stop_waiting_for_an_app_that_keeps_ending() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.machine.script(Which::all(), Script::exits(1, &["no database"]));
    assert!(world.machine.crash(&"shop.v1.web.1".parse().unwrap()));
    world.until("requests wait", async || matches!(world.admission("shop"), Some(Admission::Hold { .. }))).await;
    world.until("requests are refused", async || world.admission("shop") == Some(Admission::Open)).await;
    assert!(world.get("shop").await.is_err());
}

#[tokio::test]
async fn a_table_that_the_proxy_did_not_take_is_told_again() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let id = "shop.v1.web.1".parse().unwrap();
    world.proxy.is_down.store(true, Ordering::Relaxed);
    assert!(world.machine.crash(&id));
    world.until("it answers probes", async || world.machine.requests(&id) >= 2).await;
    world.proxy.is_down.store(false, Ordering::Relaxed);
    world.until_answers("shop", "v1 web.1").await;
}

#[tokio::test]
async fn scaling_in_the_middle_of_a_deployment_does_not_break_it() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let (orchestrator, store) = (world.orchestrator.clone(), world.store.clone());
    let scaled = tokio::spawn(async move {
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let progress = Progress::new(move |event| {
            if matches!(event, Event::Phase(coracle_model::Phase::Probe)) {
                tell.lock().unwrap().take().map(|tell| tell.send(()));
            }
        });
        let scaling = async {
            told.await.unwrap();
            store.set_scale(&app("shop"), &[(ProcessName::web(), 2)]).await.unwrap();
        };
        let cancel = CancellationToken::new();
        let deploying = orchestrator.deploy(world.request(spec("shop")), &progress, &cancel);
        let (deployed, ()) = tokio::join!(deploying, scaling);
        (world, deployed)
    });
    let (world, deployed) = scaled.await.unwrap();
    deployed.unwrap();
    world.until("both run", async || world.instances() == ["shop.v2.web.1", "shop.v2.web.2"]).await;
}

#[tokio::test]
async fn followed_lines_of_an_instance_that_has_ended_are_told_once() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let query = LogQuery { tail: Some(0), follow: true, since: None };
    let mut followed = world.orchestrator.logs(&app("shop"), None, query).await.unwrap();
    world.machine.script(Which::all(), Script::exits(1, &["no database"]).prints(Stream::Stdout, &["starting"]));
    assert!(world.machine.crash(&"shop.v1.web.1".parse().unwrap()));
    let mut told = Vec::new();
    // Each start prints both lines; the third start comes a second after the second, and looks come every second.
    while told.iter().filter(|text| *text == "starting").count() < 4 {
        let (_, line) = tokio::time::timeout(PATIENCE, followed.next()).await.expect("another start").unwrap();
        told.push(line.text);
    }
    let starts = world.machine.started().len() - 1;
    let said = told.iter().filter(|text| *text == "starting").count();
    assert!(said <= starts, "{said} times told, {starts} times started: {told:?}");
}

//! What a person sees of deployments, told one by one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_engine::fake::{BuildScript, Script, Which};
use coracle_engine::{Health, LogQuery, OutputSink, Stream};
use coracle_model::{Outcome, Phase, ProcessName, Strategy};
use coracle_orchestrator::{Event, OrchestratorError, Progress};
use coracle_proxy_table::Admission;
use coracle_store::StoreError;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, env_name, spec};

/// The parts of a failed deployment: phase, cause, evidence, hint.
fn failure(result: Result<coracle_orchestrator::Deployed, OrchestratorError>) -> (Phase, String, Vec<String>, String) {
    match result.expect_err("it should have failed") {
        OrchestratorError::Deployment { phase, cause, evidence, hint } => (phase, cause, evidence, hint),
        other => panic!("not a failed deployment: {other}"),
    }
}

#[tokio::test]
async fn the_second_release_takes_the_place_of_the_first() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    let deployed = world.deploy(spec("shop")).await.unwrap();
    assert_eq!(deployed.deployment.outcome, Some(Outcome::Succeeded));
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
    assert_eq!(world.instances(), ["shop.v2.web.1"]);
    assert_eq!(world.proxy.drained.lock().unwrap().iter().map(|t| t.0.as_str()).next(), Some("shop.v1.web.1"));
}

#[tokio::test]
async fn a_build_that_fails_shows_its_last_lines_and_changes_nothing() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let lines = vec!["no matching distribution".to_owned()];
    world.machine.script_build(2, BuildScript::Fails { lines: lines.clone(), step: "pip install".to_owned(), code: 1 });
    let (phase, cause, evidence, hint) = failure(world.deploy(spec("shop")).await);
    assert_eq!((phase, cause.as_str(), evidence), (Phase::Build, "pip install failed with exit code 1", lines));
    assert!(hint.contains("`coracle deploy`"));
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    assert_eq!(world.releases("shop").await, [1]);
}

#[tokio::test]
async fn broken_releases_fail_with_cause_and_evidence_and_leave_nothing() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let cases = [
        (Script::exits(3, &["ImportError: flask"]), "its program ended (exit code 3)", Some("ImportError: flask")),
        (Script::never_listens(), "not healthy after 3 s", None),
        (Script::unhealthy("/up", 0), "GET /up answered 500", None),
        (Script::unhealthy("/up", 1), "GET /up answered 500", None),
        (Script::cannot_start("no such program"), "cannot be started: no such program", None),
    ];
    for (number, (script, expected, line)) in (2..).zip(cases) {
        world.machine.script(Which::release(number), script);
        let (_, cause, evidence, _) = failure(world.deploy(spec("shop")).await);
        assert!(cause.contains(expected), "{cause:?} does not say {expected:?}");
        assert_eq!(evidence.first().map(String::as_str), line);
        assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
        assert_eq!((world.instances(), world.releases("shop").await), (vec!["shop.v1.web.1".to_owned()], vec![1]));
        assert_eq!(world.machine.inventory().artifacts.len(), 1);
    }
}

#[tokio::test]
async fn a_release_that_turns_bad_after_the_switch_is_taken_back() {
    let world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.watch = coracle_model::Span::seconds(15);
    world.deploy(shop.clone()).await.unwrap();
    world.set_config("COLOUR", Some("red")).await.unwrap();
    world.machine.script(Which::release(3), Script::unhealthy("/up", 4));
    let error = world.set_config("COLOUR", Some("blue")).await.unwrap_err();
    let OrchestratorError::Deployment { phase, cause, .. } = error else { panic!("{error}") };
    assert_eq!(phase, Phase::Drain);
    assert!(cause.contains("became unhealthy after the switch"), "{cause}");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
    assert_eq!(world.instances(), ["shop.v2.web.1"]);
    assert_eq!(world.config("COLOUR").await.as_deref(), Some("red"));
    assert!(
        world.proxy.drained.lock().unwrap().iter().any(|target| target.0 == "shop.v3.web.1"),
        "its requests must run out first"
    );
}

#[tokio::test]
async fn what_is_set_already_is_no_release() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.set_config("COLOUR", Some("red")).await.unwrap();
    for (name, value) in [("COLOUR", Some("red")), ("NEVER_SET", None)] {
        let same = world.set_config(name, value).await.unwrap().unwrap();
        assert_eq!(same.release.number.get(), 2, "{name}");
    }
    assert_eq!(world.releases("shop").await, [1, 2]);
    assert_eq!(world.instances(), ["shop.v2.web.1"]);
    // What is set, and not run with, is a change.
    world.rollback(None).await.unwrap();
    world.set_config("COLOUR", Some("red")).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v4 web.1"));
}

#[tokio::test]
async fn a_release_command_runs_before_anything_starts_and_its_failure_ends_the_deployment() {
    let world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.release_command = Some("migrate --all".parse().unwrap());
    world.deploy(shop.clone()).await.unwrap();
    let started: Vec<String> = world.machine.started().iter().map(ToString::to_string).collect();
    assert_eq!(started, ["shop.v1.release-command.1", "shop.v1.web.1"]);
    world.machine.script(Which::process(2, "release-command"), Script::exits(1, &["table exists"]));
    let (phase, cause, evidence, _) = failure(world.deploy(shop).await);
    assert_eq!((phase, evidence), (Phase::Release, vec!["table exists".to_owned()]));
    assert!(cause.contains("migrate --all"), "{cause}");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
}

#[tokio::test]
async fn required_names_are_asked_for_before_the_build() {
    let world = World::new().await;
    let mut shop = spec("shop");
    shop.secrets = vec![env_name("SECRET_KEY"), env_name("DSN")];
    let (phase, cause, _, hint) = failure(world.deploy(shop.clone()).await);
    assert_eq!((phase, cause.as_str()), (Phase::Validate, "required and not set: SECRET_KEY, DSN"));
    assert_eq!(hint, "coracle secrets set SECRET_KEY DSN -a shop");
    assert!(world.machine.built().is_empty());
    world.set_config("SECRET_KEY", Some("k")).await.unwrap();
    world.set_config("DSN", Some("d")).await.unwrap();
    world.deploy(shop).await.unwrap();
    world.set_config("DSN", None).await.expect_err("a required name cannot be unset");
}

#[tokio::test]
async fn a_change_of_configuration_is_a_release_without_a_build() {
    let world = World::new().await;
    assert!(world.set_config("COLOUR", Some("red")).await.unwrap().is_none(), "there is nothing to release yet");
    world.deploy(spec("shop")).await.unwrap();
    world.set_config("COLOUR", Some("blue")).await.unwrap().expect("a release");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
    assert_eq!(world.machine.built().len(), 1);
    let running = world.machine.spec(&"shop.v2.web.1".parse().unwrap()).unwrap();
    let colour = running.env.iter().find(|(name, _)| name.as_str() == "COLOUR").map(|(_, value)| value.expose());
    assert_eq!(colour, Some("blue"));
}

#[tokio::test]
async fn rollback_brings_back_code_and_configuration_and_can_itself_be_undone() {
    let world = World::new().await;
    world.set_config("COLOUR", Some("red")).await.unwrap();
    world.deploy(spec("shop")).await.unwrap();
    world.set_config("COLOUR", Some("blue")).await.unwrap();
    world.rollback(None).await.unwrap();
    assert_eq!(world.config("COLOUR").await.as_deref(), Some("red"));
    assert_eq!(world.get("shop").await.as_deref(), Ok("v3 web.1"));
    world.rollback(None).await.unwrap();
    assert_eq!(world.config("COLOUR").await.as_deref(), Some("blue"), "the rollback was undone");
    world.rollback(Some(1)).await.unwrap();
    assert_eq!(world.config("COLOUR").await.as_deref(), Some("red"));
    assert_eq!(world.machine.built().len(), 1, "nothing was rebuilt");
    assert!(matches!(world.rollback(Some(5)).await, Err(OrchestratorError::Refused { .. })), "v5 is active");
    assert!(matches!(world.rollback(Some(77)).await, Err(OrchestratorError::Store(StoreError::NoSuchRelease(..)))));
}

#[tokio::test]
async fn there_is_nothing_to_roll_back_to_after_the_first_release() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    assert!(matches!(world.rollback(None).await, Err(OrchestratorError::Refused { .. })));
}

#[tokio::test]
async fn only_so_many_releases_are_kept_and_each_of_them_rolls_back() {
    let world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.keep = 3;
    for _ in 0..6 {
        world.deploy(shop.clone()).await.unwrap();
    }
    assert_eq!(world.releases("shop").await, [4, 5, 6]);
    assert_eq!(world.machine.inventory().artifacts.len(), 3);
    world.rollback(Some(4)).await.unwrap();
    assert_eq!(world.releases("shop").await, [5, 6, 7]);
    world.rollback(None).await.expect("the release that was active before is always kept");
}

#[tokio::test]
async fn keeping_one_release_still_keeps_the_one_to_go_back_to() {
    let world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.keep = 1;
    for _ in 0..3 {
        world.deploy(shop.clone()).await.unwrap();
    }
    assert_eq!(world.releases("shop").await, [2, 3]);
    world.rollback(None).await.unwrap();
}

#[tokio::test]
async fn a_deployment_can_be_called_off_until_the_switch() {
    for phase in [Phase::Build, Phase::Start, Phase::Probe] {
        let world = World::new().await;
        world.deploy(spec("shop")).await.unwrap();
        let cancel = CancellationToken::new();
        let fire = cancel.clone();
        let progress = Progress::new(move |event| {
            if matches!(event, Event::Phase(now) if now == phase) {
                fire.cancel();
            }
        });
        let error = world.orchestrator.deploy(world.request(spec("shop")), &progress, &cancel).await.unwrap_err();
        assert!(matches!(error, OrchestratorError::Cancelled(at) if at == phase), "{phase}: {error}");
        assert_eq!(world.last_outcome("shop").await, Outcome::Cancelled { phase });
        assert_eq!(world.instances(), ["shop.v1.web.1"]);
        assert_eq!(world.releases("shop").await, [1]);
        world.deploy(spec("shop")).await.unwrap();
    }
}

#[tokio::test]
async fn calling_off_a_hanging_build_ends_it() {
    let world = World::new().await;
    world.machine.script_build(1, BuildScript::Hangs);
    let cancel = CancellationToken::new();
    let fire = cancel.clone();
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Note(_)) {
            fire.cancel();
        }
    });
    let result = world.orchestrator.deploy(world.request(spec("shop")), &progress, &cancel).await;
    assert!(matches!(result, Err(OrchestratorError::Cancelled(Phase::Build))));
    assert!(world.machine.inventory().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_deployment_is_told_who_is_at_it() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.machine.script_build(2, BuildScript::Hangs);
    let cancel = CancellationToken::new();
    let (orchestrator, request, token) = (world.orchestrator.clone(), world.request(spec("shop")), cancel.clone());
    let first = tokio::spawn(async move { orchestrator.deploy(request, &Progress::silent(), &token).await });
    world.until("the first builds", async || world.machine.built().len() == 2).await;
    let error = world.deploy(spec("shop")).await.unwrap_err();
    let OrchestratorError::Store(StoreError::Busy(holder)) = error else { panic!("{error}") };
    assert_eq!(holder.phase, Phase::Build);
    assert!(matches!(world.orchestrator.destroy(&app("shop")).await, Err(OrchestratorError::Store(StoreError::Busy(_)))));
    world.deploy(spec("blog")).await.expect("another app is free");
    cancel.cancel();
    world.orchestrator.until_idle(&app("shop")).await;
    first.await.unwrap().unwrap_err();
    world.deploy(spec("shop")).await.unwrap();
}

#[tokio::test]
async fn a_host_belongs_to_one_app() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let mut blog = spec("blog");
    blog.http.hosts = spec("shop").http.hosts;
    let (_, cause, _, _) = failure(world.deploy(blog).await);
    assert_eq!(cause, "the host shop.localhost belongs to the app shop");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
}

#[tokio::test]
async fn a_crashed_instance_is_replaced_while_requests_wait() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    assert!(world.machine.crash(&"shop.v1.web.1".parse().unwrap()));
    world.until("requests wait", async || matches!(world.admission("shop"), Some(Admission::Hold { .. }))).await;
    world.until_answers("shop", "v1 web.1").await;
    assert_eq!(world.admission("shop"), Some(Admission::Open));
}

#[tokio::test]
async fn scaling_starts_and_stops_instances() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let status = world.orchestrator.scale(&app("shop"), vec![(ProcessName::web(), 3)]).await.unwrap();
    assert!(status.is_as_wanted());
    assert_eq!(world.instances().len(), 3);
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(world.instances(), ["shop.v2.web.1", "shop.v2.web.2", "shop.v2.web.3"], "a new release keeps the scale");
    let status = world.orchestrator.scale(&app("shop"), vec![(ProcessName::web(), 1)]).await.unwrap();
    assert!(status.is_as_wanted());
    assert_eq!(world.instances(), ["shop.v2.web.1"]);
    world.orchestrator.scale(&app("shop"), vec![(ProcessName::web(), 0)]).await.unwrap();
    assert!(matches!(world.admission("shop"), Some(Admission::Closed { .. })));
    let unknown = world.orchestrator.scale(&app("shop"), vec![("nope".parse().unwrap(), 1)]).await;
    assert!(matches!(unknown, Err(OrchestratorError::Refused { .. })));
}

#[tokio::test]
async fn a_writable_volume_means_stop_before_start_with_requests_held() {
    let world = World::new().await;
    let mut shop = spec("shop");
    let volume = "data:/data".parse().unwrap();
    shop.processes.insert(ProcessName::web(), coracle_model::ProcessSpec { volumes: vec![volume], ..Default::default() });
    world.deploy(shop.clone()).await.unwrap();
    shop.deploy.timeout = coracle_model::Span::seconds(9);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, machine) = (seen.clone(), world.machine.clone());
    let progress = Progress::new(move |event| {
        if let Event::Phase(phase @ (Phase::Start | Phase::Probe)) = event {
            let running: Vec<_> = machine.inventory().instances.iter().map(ToString::to_string).collect();
            log.lock().unwrap().push((phase, running));
        }
    });
    let deployed = world.orchestrator.deploy(world.request(shop.clone()), &progress, &CancellationToken::new()).await.unwrap();
    assert_eq!(deployed.release.spec.strategy().0, Strategy::Recreate);
    let expected = [(Phase::Start, vec![]), (Phase::Probe, vec!["shop.v2.web.1".to_owned()])];
    assert_eq!(*seen.lock().unwrap(), expected, "the two never run at once");
    let held =
        world.proxy.tables.lock().unwrap().iter().flat_map(|table| table.services.values()).find_map(|service| {
            if let Admission::Hold { deadline_ms, .. } = service.admission { Some(deadline_ms) } else { None }
        });
    // Drain and grace of the old release, the new one's timeout; and for the way back its grace and the old one's timeout.
    assert_eq!(held, Some(1000 + 1000 + 9000 + 1000 + 3000), "requests wait meanwhile");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));

    world.machine.script(Which::release(3), Script::exits(1, &[]));
    failure(world.deploy(shop).await);
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"), "the old release was started again");
    assert_eq!(world.admission("shop"), Some(Admission::Open));
}

/// The check asks whether the image's own command listens, which a worker's does not.
#[tokio::test]
async fn the_check_of_an_image_is_about_what_serves() {
    let world = World::new().await;
    world.procfile("web: serve\nworker: work\n");
    let mut shop = spec("shop");
    shop.processes.insert("worker".parse().unwrap(), coracle_model::ProcessSpec::default());
    world.machine.script_build(1, BuildScript::Succeeds { lines: Vec::new(), has_healthcheck: true });
    world.machine.script(Which::process(1, "web"), Script::serves().health(Health::Healthy));
    world.machine.script(Which::process(1, "worker"), Script::never_listens().health(Health::Unhealthy));
    world.deploy(shop).await.unwrap();
    assert_eq!(world.instances(), ["shop.v1.web.1", "shop.v1.worker.1"]);
}

#[tokio::test]
async fn workers_of_two_releases_never_run_at_once() {
    let world = World::new().await;
    world.procfile("web: serve\nworker: work\n");
    let mut shop = spec("shop");
    shop.processes.insert("worker".parse().unwrap(), coracle_model::ProcessSpec::default());
    world.deploy(shop.clone()).await.unwrap();
    world.deploy(shop.clone()).await.unwrap();
    assert_eq!(world.instances(), ["shop.v2.web.1", "shop.v2.worker.1"]);
    world.machine.script(Which::process(3, "worker"), Script::exits(1, &["no queue"]));
    let (_, cause, evidence, _) = failure(world.deploy(shop).await);
    assert!(cause.contains("shop.v3.worker.1"), "{cause}");
    assert_eq!(evidence, ["no queue"]);
    world.until("the old worker is back", async || world.instances() == ["shop.v2.web.1", "shop.v2.worker.1"]).await;
    let workers = world.machine.started().iter().filter(|id| id.process.as_str() == "worker").count();
    assert_eq!(workers, 4, "v1, v2, v3 and v2 again");
}

#[tokio::test]
async fn an_app_without_web_gets_no_route() {
    let world = World::new().await;
    world.procfile("worker: work\n");
    let mut shop = spec("shop");
    shop.processes.insert("worker".parse().unwrap(), coracle_model::ProcessSpec::default());
    world.deploy(shop).await.unwrap();
    assert_eq!(world.get("shop").await, Err("no such service".to_owned()));
    assert_eq!(world.instances(), ["shop.v1.worker.1"]);
}

#[tokio::test]
async fn an_engine_that_goes_away_fails_the_deployment_and_not_the_app() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let machine = world.machine.clone();
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Phase(Phase::Start)) {
            machine.set_available(false);
        }
    });
    let result = world.orchestrator.deploy(world.request(spec("shop")), &progress, &CancellationToken::new()).await;
    let (phase, cause, ..) = failure(result);
    assert_eq!(phase, Phase::Start);
    assert!(cause.contains("not available"), "{cause}");
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    world.machine.set_available(true);
    world.deploy(spec("shop")).await.unwrap();
    world.until("the rest is removed", async || world.instances() == ["shop.v3.web.1"]).await;
}

#[tokio::test]
async fn a_proxy_that_is_away_for_a_moment_is_told_when_it_is_back() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let proxy = world.proxy.clone();
    let back = proxy.clone();
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Phase(Phase::Switch)) {
            proxy.is_down.store(true, Ordering::Relaxed);
            let back = back.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                back.is_down.store(false, Ordering::Relaxed);
            });
        }
    });
    world.orchestrator.deploy(world.request(spec("shop")), &progress, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
}

#[tokio::test]
async fn destroying_an_app_leaves_nothing_of_it_and_everything_of_the_other() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.deploy(spec("blog")).await.unwrap();
    world.orchestrator.destroy(&app("shop")).await.unwrap();
    assert_eq!(world.get("shop").await, Err("no such service".to_owned()));
    assert_eq!(world.get("blog").await.as_deref(), Ok("v1 web.1"));
    let left = world.machine.inventory();
    assert_eq!((left.instances.len(), left.artifacts.len(), left.releases.len()), (1, 1, 1), "{left:?}");
    assert!(world.orchestrator.destroy(&app("shop")).await.is_err());
}

#[tokio::test]
async fn logs_of_all_instances_are_one_stream() {
    let world = World::new().await;
    world.machine.script(Which::all(), Script::serves().prints(Stream::Stdout, &["hello"]));
    world.deploy(spec("shop")).await.unwrap();
    world.orchestrator.scale(&app("shop"), vec![(ProcessName::web(), 2)]).await.unwrap();
    let lines = world.orchestrator.logs(&app("shop"), None, LogQuery::default()).await.unwrap();
    let lines: Vec<String> = lines.map(|(id, line)| format!("{id} {}", line.text)).collect().await;
    assert_eq!(lines, ["shop.v1.web.1 hello", "shop.v1.web.2 hello"]);

    let query = LogQuery { tail: Some(0), follow: true, since: None };
    let mut followed = world.orchestrator.logs(&app("shop"), None, query).await.unwrap();
    world.deploy(spec("shop")).await.unwrap();
    let next = tokio::time::timeout(crate::world::PATIENCE, followed.next()).await.expect("a line of the new release").unwrap();
    assert_eq!(next.0.release.get(), 2);
}

#[tokio::test]
async fn one_off_processes_run_with_the_apps_configuration_and_pass_their_code_on() {
    let world = World::new().await;
    world.set_config("COLOUR", Some("red")).await.unwrap();
    world.deploy(spec("shop")).await.unwrap();
    world.machine.install(|argv, env| {
        let colour = env.iter().find(|(name, _)| name == "COLOUR").map(|(_, value)| value.clone())?;
        (argv.first()? == "paint").then(|| Script::exits(7, &[&colour]))
    });
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let sink = OutputSink::new(move |line| log.lock().unwrap().push(line.text));
    let exit = world.orchestrator.run(&app("shop"), vec!["paint".to_owned()], &sink, &CancellationToken::new()).await.unwrap();
    assert_eq!((exit.code, lines.lock().unwrap().as_slice()), (Some(7), ["red".to_owned()].as_slice()));
    assert_eq!(world.instances(), ["shop.v1.web.1"]);
    let empty = world.orchestrator.run(&app("shop"), vec![], &sink, &CancellationToken::new()).await;
    assert!(matches!(empty, Err(OrchestratorError::Refused { .. })));
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_does_nothing() {
    let world = World::new().await;
    let mut shop = spec("shop");
    let lines = world.orchestrator.plan(world.request(shop.clone())).await.unwrap().steps;
    assert_eq!(lines.first().map(String::as_str), Some("shop is new"));
    world.deploy(shop.clone()).await.unwrap();
    let volume = "data:/data".parse().unwrap();
    shop.processes.insert(ProcessName::web(), coracle_model::ProcessSpec { volumes: vec![volume], ..Default::default() });
    let lines = world.orchestrator.plan(world.request(shop)).await.unwrap().steps;
    assert!(lines.iter().any(|line| line.starts_with("strategy recreate: a process has a writable volume")), "{lines:?}");
    assert_eq!(world.machine.built().len(), 1);
}

//! Deployments as seen by whoever asked for them.

use coracle_api::{AppState, DeployOptions, DeploymentEvent, Outcome, Phase, ProblemKind, Source};
use coracle_engine::fake::{BuildScript, Script, Which};
use coracle_model::ReleaseNumber;

use crate::harness::{Env, QUICK, all, app, attached, began, detached, outcome, tree, until};

#[tokio::test]
async fn an_app_is_deployed_shown_replayed_and_rolled_back() {
    let env = Env::start().await;
    let events = env.deploy("shop").await;
    let id = events.iter().find_map(began).unwrap();
    let Some(DeploymentEvent::Live { hosts, urls, .. }) =
        events.iter().find(|event| matches!(event, DeploymentEvent::Live { .. }))
    else {
        panic!("it never went live: {events:#?}")
    };
    assert_eq!((hosts.as_slice(), urls.as_slice()), (&["shop.localhost".into()][..], &["http://shop.localhost:8080".into()][..]));
    let phases: Vec<Phase> =
        events.iter().filter_map(|it| if let DeploymentEvent::Phase { phase } = it { Some(*phase) } else { None }).collect();
    assert!(phases.is_sorted() && phases.contains(&Phase::Switch), "{phases:?}");

    let status = env.client.app(&app("shop")).await.unwrap();
    assert_eq!((status.state, status.urls), (AppState::Running, vec!["http://shop.localhost:8080".to_owned()]));
    assert_eq!(env.client.apps().await.unwrap()[0].running, 1);
    let routes = env.client.routes().await.unwrap();
    assert_eq!((routes.routes[0].rule.as_str(), routes.routes[0].targets.len()), ("Host(`shop.localhost`)", 1));

    let replayed = all(env.client.deployment_events(id).await.unwrap()).await;
    assert_eq!(replayed, events);
    assert_eq!(env.client.deployment(id).await.unwrap().outcome, Some(Outcome::Succeeded));

    env.deploy("shop").await;
    let rolled = all(env.client.rollback(&app("shop"), None, attached()).await.unwrap()).await;
    assert_eq!(outcome(&rolled), Some(&Outcome::Succeeded));
    let releases = env.client.releases(&app("shop")).await.unwrap();
    let last = releases.last().unwrap();
    assert_eq!((last.number.get(), last.active, last.description.as_str()), (3, true, "rollback to v1"));
    assert_eq!(env.client.deployments(&app("shop")).await.unwrap().len(), 3);
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn middlewares_that_the_proxy_cannot_have_are_found_before_anything_is_done() {
    let env = Env::start().await;
    let manifest = |regex: &str| {
        let redirect = format!("[middlewares.old.redirect-regex]\nregex = \"{regex}\"\nreplacement = \"/new\"\n");
        format!("{QUICK}[http]\nmiddlewares = [\"old\"]\n{redirect}")
    };
    let refused = env.begin("shop", &manifest("^/old("), &DeployOptions::default()).await;
    let problem = match refused {
        Err(coracle_api::ClientError::Problem(problem)) => problem,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    };
    assert_eq!(problem.kind, ProblemKind::Invalid);
    assert!(problem.detail.contains("middlewares.old"), "{problem:?}");
    let events = all(env.begin("shop", &manifest("^/old"), &DeployOptions::default()).await.unwrap()).await;
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(env.client.routes().await.unwrap().routes[0].middlewares, ["shop/old"]);
}

#[tokio::test]
async fn a_failed_deployment_is_told_with_evidence_and_what_to_do() {
    let env = Env::start().await;
    env.deploy("shop").await;
    env.machine.script(Which::release(2), Script::exits(3, &["no such table: users"]));
    let events = all(env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap()).await;
    let Some(DeploymentEvent::Ended { outcome: Some(Outcome::Failed { .. }), problem: Some(problem) }) = events.last() else {
        panic!("{:?}", events.last())
    };
    assert_eq!(problem.kind, ProblemKind::DeploymentFailed);
    assert!(problem.evidence.iter().any(|line| line.contains("no such table")), "{problem:?}");
    assert!(problem.hint.is_some());
    assert_eq!(env.client.app(&app("shop")).await.unwrap().release.unwrap().number.get(), 1);
}

#[tokio::test]
async fn whoever_goes_away_before_the_switch_calls_it_off() {
    let env = Env::start().await;
    env.machine.script(Which::release(1), Script::never_listens());
    let mut events = env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap();
    let id = until(&mut events, began).await;
    until(&mut events, |event| (*event == DeploymentEvent::Phase { phase: Phase::Probe }).then_some(())).await;
    drop(events);
    let outcome = env.eventually("it is called off", async |env| env.client.deployment(id).await.unwrap().outcome).await;
    assert!(matches!(outcome, Outcome::Cancelled { .. }), "{outcome:?}");
    assert_eq!(env.machine.inventory().instances, []);
}

#[tokio::test]
async fn a_detached_deployment_goes_on_alone() {
    let env = Env::start().await;
    env.machine.script_build(1, BuildScript::Succeeds { lines: vec!["built".into()], has_healthcheck: false });
    let mut events = env.begin("shop", QUICK, &detached()).await.unwrap();
    let id = until(&mut events, began).await;
    drop(events);
    let outcome = env.eventually("it ends", async |env| env.client.deployment(id).await.unwrap().outcome).await;
    assert_eq!(outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_second_deployment_is_refused_or_waits_its_turn() {
    let env = Env::start().await;
    env.machine.script(Which::instance("shop.v1.web.1"), Script::never_listens());
    let mut first = env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap();
    let id = until(&mut first, began).await;

    let refused = env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.problem().unwrap().status), (Some(ProblemKind::Busy), 409));
    assert!(refused.hint().unwrap().contains("--wait"), "{refused:?}");
    let restart = env.client.restart(&app("shop"), attached()).await.unwrap_err();
    assert_eq!(restart.kind(), Some(ProblemKind::Busy));
    let destroy = env.client.destroy(&app("shop")).await.unwrap_err();
    assert_eq!(destroy.kind(), Some(ProblemKind::Busy));

    let waiting = DeployOptions { wait: true, ..DeployOptions::default() };
    let mut second = env.begin("shop", QUICK, &waiting).await.unwrap();
    let note =
        until(&mut second, |event| if let DeploymentEvent::Note { text } = event { Some(text.clone()) } else { None }).await;
    assert!(note.contains(&id.to_string()), "{note}");
    // Another app is nobody's business.
    env.deploy("blog").await;
    env.client.cancel(id).await.unwrap();
    assert!(matches!(outcome(&all(first).await), Some(Outcome::Cancelled { .. })));
    assert_eq!(outcome(&all(second).await), Some(&Outcome::Succeeded));
}

#[tokio::test]
async fn whoever_waits_and_goes_away_is_forgotten() {
    let env = Env::start().await;
    env.machine.script(Which::release(1), Script::never_listens());
    let mut first = env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap();
    let id = until(&mut first, began).await;
    let waiting = DeployOptions { wait: true, ..DeployOptions::default() };
    let second = env.begin("shop", QUICK, &waiting).await.unwrap();
    drop(second);
    env.eventually("its tree is removed", async |env| {
        (std::fs::read_dir(env.state_dir().join("incoming")).unwrap().count() == 1).then_some(())
    })
    .await;
    env.client.cancel(id).await.unwrap();
    all(first).await;
    assert_eq!(env.client.deployments(&app("shop")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_has_ended_cannot_be_called_off() {
    let env = Env::start().await;
    let id = env.deploy("shop").await.iter().find_map(began).unwrap();
    let error = env.client.cancel(id).await.unwrap_err();
    assert_eq!(error.kind(), Some(ProblemKind::Conflict), "{error:?}");
    let unknown = env.client.cancel(coracle_model::DeploymentId(999)).await.unwrap_err();
    assert_eq!(unknown.kind(), Some(ProblemKind::NotFound));
}

#[tokio::test]
async fn what_was_long_ago_is_told_in_short() {
    let mut env = Env::start().await;
    let id = env.deploy("shop").await.iter().find_map(began).unwrap();
    env.stop().await;
    env.serve(|_| ()).await;
    let events = all(env.client.deployment_events(id).await.unwrap()).await;
    assert!(
        matches!(
            &events[..],
            [DeploymentEvent::Began { .. }, DeploymentEvent::Ended { outcome: Some(Outcome::Succeeded), problem: None }]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let env = Env::start().await;
    let source = Source::from_bytes(tree(&[("Procfile", "web: serve\n")]));
    let plan = env.client.plan(&app("shop"), &DeployOptions::default(), source).await.unwrap();
    assert!(plan.steps.iter().any(|step| step.contains("shop")), "{plan:?}");
    assert!(env.client.apps().await.unwrap().is_empty());
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn scaling_answers_when_it_is_done() {
    let env = Env::start().await;
    env.deploy("shop").await;
    let web = "web".parse().unwrap();
    let status = env.client.scale(&app("shop"), &[(web, 3)].into()).await.unwrap();
    assert_eq!((status.state, status.processes[0].running), (AppState::Running, 3));
    let unknown = env.client.scale(&app("shop"), &[("worker".parse().unwrap(), 1)].into()).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.hint()), (Some(ProblemKind::Invalid), Some("it has: web")));
}

#[tokio::test]
async fn a_destroyed_app_is_gone() {
    let env = Env::start().await;
    env.deploy("shop").await;
    env.client.destroy(&app("shop")).await.unwrap();
    assert!(env.machine.inventory().is_empty(), "{:?}", env.machine.inventory());
    assert_eq!(env.client.app(&app("shop")).await.unwrap_err().kind(), Some(ProblemKind::NotFound));
    assert_eq!(env.client.destroy(&app("shop")).await.unwrap_err().kind(), Some(ProblemKind::NotFound));
}

#[tokio::test]
async fn a_release_that_does_not_exist_is_404() {
    let env = Env::start().await;
    env.deploy("shop").await;
    let error = env.client.rollback(&app("shop"), ReleaseNumber::new(7), attached()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 404, "{error:?}");
    let none = env.client.rollback(&app("shop"), None, attached()).await.unwrap_err();
    assert_eq!(none.kind(), Some(ProblemKind::Invalid), "{none:?}");
}

#[tokio::test]
async fn sources_of_unknown_length_are_taken_as_they_come() {
    let env = Env::start().await;
    let bytes = tree(&[("Procfile", "web: serve\n"), ("coracle.toml", QUICK)]);
    let pieces: Vec<_> = bytes.chunks(7).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    let source = Source::from_stream(futures::stream::iter(pieces));
    let events = all(env.client.deploy(&app("shop"), &DeployOptions::default(), source).await.unwrap()).await;
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded));
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let env = Env::start().await;
    let half = tree(&[("Procfile", "web: serve\n")]).slice(..40);
    let (_keep_open, never) = tokio::sync::oneshot::channel::<()>();
    let pieces = futures::stream::once(async { Ok(half) });
    let pieces = futures::StreamExt::chain(
        pieces,
        futures::stream::once(async {
            never.await.ok();
            Err(std::io::Error::other("never"))
        }),
    );
    let (shop, options) = (app("shop"), DeployOptions::default());
    tokio::select! {
        answer = env.client.deploy(&shop, &options, Source::from_stream(pieces)) => panic!("{answer:?}"),
        () = env.eventually("it is being unpacked", async |env| (!env.incoming_is_empty()).then_some(())) => {}
    }
    env.eventually("the half tree is removed", async |env| env.incoming_is_empty().then_some(())).await;
    assert!(env.client.apps().await.unwrap().is_empty());
}

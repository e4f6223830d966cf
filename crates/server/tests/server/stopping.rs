//! The server goes, apps stay.

use std::time::Duration;

use coracle_api::{AppState, DeployOptions, DeploymentEvent, LogOptions, Outcome, Phase};
use coracle_engine::Stream;
use coracle_engine::fake::{Script, Which};

use crate::harness::{Env, PATIENCE, QUICK, all, app, began, outcome, until};

#[tokio::test]
async fn a_stopped_server_leaves_apps_alone_and_finds_them_again() {
    let mut env = Env::start().await;
    env.machine.script(Which::all(), Script::serves().prints(Stream::Stdout, &["hello"]));
    env.deploy("shop").await;
    let mut logs = env.client.logs(&app("shop"), &LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().text, "hello");

    env.stop().await;
    let end = tokio::time::timeout(PATIENCE, logs.next()).await.expect("a follower is left hanging");
    assert!(end.is_none_or(|line| line.is_err()));
    assert_eq!(env.machine.inventory().instances.len(), 1);
    let error = env.client.version().await.unwrap_err();
    assert!(error.hint().unwrap().contains("coracle server run"), "{error:?}");

    env.serve(|_| ()).await;
    assert_eq!(env.client.app(&app("shop")).await.unwrap().state, AppState::Running);
    assert_eq!(env.machine.started().len(), 1, "the instance was started again");
}

#[tokio::test]
async fn a_deployment_before_its_switch_is_called_off_by_a_stop() {
    let mut env = Env::start().await;
    env.deploy("shop").await;
    env.machine.script(Which::release(2), Script::never_listens());
    let mut events = env.begin("shop", QUICK, &DeployOptions::default()).await.unwrap();
    let id = until(&mut events, began).await;
    until(&mut events, |event| (*event == DeploymentEvent::Phase { phase: Phase::Probe }).then_some(())).await;
    let (ended, ()) = tokio::join!(all(events), env.stop());
    assert!(matches!(outcome(&ended), Some(Outcome::Cancelled { .. })), "{ended:?}");
    env.serve(|_| ()).await;
    assert!(matches!(env.client.deployment(id).await.unwrap().outcome, Some(Outcome::Cancelled { .. })));
    assert_eq!(env.client.app(&app("shop")).await.unwrap().release.unwrap().number.get(), 1);
}

#[tokio::test]
async fn what_an_earlier_server_left_behind_is_swept_away() {
    let mut env = Env::start().await;
    env.stop().await;
    std::fs::create_dir_all(env.state_dir().join("incoming/tree-old/deep")).unwrap();
    env.serve(|_| ()).await;
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_a_stop() {
    let mut env = Env::start().await;
    let _idle = tokio::net::UnixStream::connect(env.state_dir().join("api.sock")).await.unwrap();
    env.client.version().await.unwrap();
    let begun = tokio::time::Instant::now();
    env.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_that_cannot_listen_says_where_and_starts_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut options = coracle_server::ServerOptions::new(dir.path().join("state"), "/nowhere/coracle".into());
    options.api_tcp = Some(taken.local_addr().unwrap());
    let Err(error) = coracle_server::Server::start(options).await else { panic!("it started") };
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
    assert!(error.hint().contains("--api-tcp"));
    assert!(!dir.path().join("state").exists());
}

#[tokio::test]
async fn a_second_server_of_the_same_state_is_told_about_the_first() {
    let env = Env::start().await;
    let parts = coracle_server::Parts {
        engines: vec![env.machine.engine()],
        default_engine: coracle_model::EngineKind::Process,
        traffic: crate::harness::no_traffic(),
        http: Vec::new(),
    };
    let mut options = coracle_server::ServerOptions::new(env.state_dir(), "/nowhere/coracle".into());
    options.patience = Duration::ZERO;
    let Err(error) = coracle_server::Server::with_parts(options, parts).await else { panic!("it started") };
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.hint().contains("coracle server stop"));
    assert_eq!(env.client.version().await.unwrap().api, "v1");
}

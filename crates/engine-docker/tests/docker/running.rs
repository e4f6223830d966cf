//! Instances.

use std::time::{Duration, Instant};

use bollard::query_parameters::InspectContainerOptions;
use coracle_engine::{EngineError, Exit, Health, InstanceEvent, InstanceState, LogQuery, PortRequest, Stream};
use coracle_model::{ByteSize, Cpus, InstanceId, Secret};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, Told, eventually};

const SLEEP: [&str; 2] = ["sleep", "300"];

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_held_tight_and_published_nowhere() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.web.1", &image, &SLEEP);
    spec.port = PortRequest::Listen(8080);
    spec.env = vec![("TOKEN".parse().unwrap(), Secret::new("s3cret-value"))];
    spec.limits.memory = Some(ByteSize::mib(64));
    spec.limits.cpus = Some(Cpus::milli(500));
    spec.limits.pids = 50;
    let instance = rig.engine.runtime.start(&spec).await.unwrap();
    let address = instance.address().unwrap();
    assert_eq!(address.port(), 8080);

    let inspected = rig.docker.inspect_container(&rig.container(&spec.id), None::<InspectContainerOptions>).await.unwrap();
    let host = inspected.host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit, host.init), (Some(500_000_000), Some(50), Some(true)));
    assert!(host.security_opt.unwrap().iter().any(|option| option.starts_with("no-new-privileges")));
    assert!(host.cap_drop.unwrap().iter().any(|capability| capability.ends_with("NET_RAW")));
    let log = host.log_config.unwrap().config.unwrap();
    assert_eq!((log["max-size"].as_str(), log["max-file"].as_str()), ("10m", "3"));
    let settings = inspected.network_settings.unwrap();
    let published: Vec<_> = settings.ports.unwrap_or_default().into_values().flatten().flatten().collect();
    assert!(published.is_empty(), "{published:?}");
    assert_eq!(settings.networks.unwrap().keys().collect::<Vec<_>>(), [&format!("coracle-{}.shop.v1", rig.owner)]);
    let config = inspected.config.unwrap();
    assert!(!format!("{:?}", config.labels).contains("s3cret"));
    assert!(!format!("{:?}{:?}", inspected.args, inspected.path).contains("s3cret"));
    assert!(config.env.unwrap().contains(&"PORT=8080".to_owned()));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_twice_is_starting_once() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let spec = rig.spec("shop.v1.worker.1", &image, &SLEEP);
    let (first, second) = tokio::join!(rig.engine.runtime.start(&spec), rig.engine.runtime.start(&spec));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(rig.engine.runtime.list().await.unwrap().len(), 1);
    // One that has ended is started anew.
    rig.seen_by_docker(&["kill", &rig.container(&spec.id)]);
    eventually("it ends", async || !rig.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().is_running()).await;
    let ended = rig.engine.runtime.inspect(&spec.id).await.unwrap().unwrap();
    assert_eq!(ended.state, InstanceState::Exited(Exit { signal: Some(9), ..Exit::default() }));
    assert!(rig.engine.runtime.start(&spec).await.unwrap().is_running());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_a_release_start_at_once_and_know_each_other() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let specs: Vec<_> = (1..=4).map(|index| rig.spec(&format!("shop.v1.worker.{index}"), &image, &SLEEP)).collect();
    let started = futures::future::join_all(specs.iter().map(|spec| rig.engine.runtime.start(spec))).await;
    assert!(started.iter().all(|instance| instance.as_ref().unwrap().is_running()));
    let ids: Vec<InstanceId> = rig.engine.runtime.list().await.unwrap().into_iter().map(|instance| instance.id).collect();
    assert_eq!(ids, specs.iter().map(|spec| spec.id.clone()).collect::<Vec<_>>());
    let networks = rig.seen_by_docker(&["network", "ls", "-q", "--filter", &format!("label=dev.coracle.owner={}", rig.owner)]);
    assert_eq!(networks.len(), 1);
    let told = Told::default();
    let argv = ["getent", "hosts", "worker"].map(String::from);
    let found = rig.engine.runtime.exec(&specs[0].id, &argv, &told.sink(), &CancellationToken::new()).await.unwrap();
    assert!(found.success(), "{}", told.text());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_is_gentle_then_firm_then_final() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let stubborn = rig.spec("shop.v1.stubborn.1", &image, &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
    rig.engine.runtime.start(&stubborn).await.unwrap();
    eventually("it ignores signals", async || {
        let lines = rig.engine.runtime.logs(&stubborn.id, &LogQuery::default()).await.unwrap();
        lines.count().await > 0
    })
    .await;
    let began = Instant::now();
    rig.engine.runtime.stop(&stubborn.id, Duration::from_millis(700)).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(rig.engine.runtime.inspect(&stubborn.id).await.unwrap(), None);

    let polite = rig.spec("shop.v1.polite.1", &image, &SLEEP);
    rig.engine.runtime.start(&polite).await.unwrap();
    let began = Instant::now();
    rig.engine.runtime.stop(&polite.id, Duration::from_secs(20)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    rig.engine.runtime.stop(&polite.id, Duration::from_secs(20)).await.unwrap();
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_keep_streams_and_order_and_can_be_followed() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let script = "echo one; echo two >&2; echo three; sleep 0.3; echo four";
    let spec = rig.spec("shop.v1.talker.1", &image, &["sh", "-c", script]);
    rig.engine.runtime.start(&spec).await.unwrap();
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let lines: Vec<_> = rig.engine.runtime.logs(&spec.id, &follow).await.unwrap().collect().await;
    let mut lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
    lines.sort_by_key(|line| line.at);
    let stdout: Vec<_> = lines.iter().filter(|line| line.stream == Stream::Stdout).map(|line| line.text.as_str()).collect();
    assert_eq!(stdout, ["one", "three", "four"]);
    assert_eq!(lines.iter().find(|line| line.stream == Stream::Stderr).unwrap().text, "two");
    let tail = LogQuery { tail: Some(1), ..LogQuery::default() };
    let tail: Vec<_> = rig.engine.runtime.logs(&spec.id, &tail).await.unwrap().collect().await;
    assert_eq!(tail[0].as_ref().unwrap().text, "four");
    let since = LogQuery { since: Some(lines[3].at), ..LogQuery::default() };
    let since: Vec<_> = rig.engine.runtime.logs(&spec.id, &since).await.unwrap().collect().await;
    assert_eq!(since.len(), 1, "{since:?}");
    let missing = rig.engine.runtime.logs(&"shop.v9.web.1".parse().unwrap(), &LogQuery::default()).await;
    assert!(matches!(missing, Err(EngineError::NoSuchInstance(_))));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_inside_and_end_with_their_code_or_when_cancelled() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.web.1", &image, &SLEEP);
    spec.env = vec![("COLOUR".parse().unwrap(), Secret::new("blue"))];
    rig.engine.runtime.start(&spec).await.unwrap();
    let exec = async |script: &str, told: &Told, cancel: &CancellationToken| {
        let argv = ["sh", "-c", script].map(String::from);
        rig.engine.runtime.exec(&spec.id, &argv, &told.sink(), cancel).await
    };
    let told = Told::default();
    let exit = exec("echo $COLOUR; echo bad >&2; exit 7", &told, &CancellationToken::new()).await.unwrap();
    assert_eq!(exit, Exit { code: Some(7), ..Exit::default() });
    let mut lines: Vec<_> = told.lines().into_iter().map(|line| (line.stream, line.text)).collect();
    lines.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(lines, [(Stream::Stdout, "blue".to_owned()), (Stream::Stderr, "bad".to_owned())]);

    let (told, cancel) = (Told::default(), CancellationToken::new());
    let stop = async {
        eventually("it runs", async || told.text().contains("going")).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(exec("echo going; sleep 299 & sleep 298", &told, &cancel), stop);
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
    eventually("the programs are gone", async || {
        !rig.seen_by_docker(&["top", &rig.container(&spec.id)]).iter().any(|line| line.contains("sleep 29"))
    })
    .await;
    let missing =
        rig.engine.runtime.exec(&"shop.v9.web.1".parse().unwrap(), &["true".into()], &Told::default().sink(), &cancel).await;
    assert!(matches!(missing, Err(EngineError::NoSuchInstance(_))), "{missing:?}");
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_to_the_end_tells_everything_and_leaves_nothing() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let run = async |script: &str, deadline: Duration, told: &Told, cancel: &CancellationToken| {
        let spec = rig.spec("shop.v2.release.1", &image, &["sh", "-c", script]);
        rig.engine.runtime.run(&spec, &told.sink(), deadline, cancel).await
    };
    let long = Duration::from_secs(30);
    let told = Told::default();
    let exit = run("seq 1 2000; exit 5", long, &told, &CancellationToken::new()).await.unwrap();
    assert_eq!(exit, Exit { code: Some(5), ..Exit::default() });
    assert_eq!(told.lines().len(), 2000);
    let result = run("sleep 300", Duration::from_millis(800), &Told::default(), &CancellationToken::new()).await;
    assert!(matches!(result, Err(EngineError::TimedOut { .. })), "{result:?}");
    let (told, cancel) = (Told::default(), CancellationToken::new());
    let stop = async {
        eventually("it runs", async || told.text().contains("going")).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(run("echo going; sleep 300", long, &told, &cancel), stop);
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
    assert!(rig.engine.runtime.list().await.unwrap().is_empty());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_wants_too_much_memory_says_so() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.greedy.1", &image, &["tail", "/dev/zero"]);
    spec.limits.memory = Some(ByteSize::mib(32));
    let exit = rig.engine.runtime.run(&spec, &Told::default().sink(), Duration::from_secs(30), &CancellationToken::new()).await;
    let exit = exit.unwrap();
    assert!(exit.out_of_memory, "{exit:?}");
    assert_eq!(exit.signal, Some(9));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_the_images_own_check_are_heard() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nHEALTHCHECK --interval=200ms --timeout=5s CMD test -e /ok\nCMD [\"sleep\", \"300\"]\n",
    );
    let artifact = rig.build(1).await;
    let mut events = rig.engine.runtime.events();
    let mut spec = rig.spec("shop.v1.web.1", &artifact.id, &SLEEP);
    spec.command = None;
    let listen = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(event) = events.next().await {
            let end = matches!(event, InstanceEvent::Exited(_));
            heard.push(event);
            if end {
                break;
            }
        }
        heard
    });
    // The engine tells only what happens after it was asked; asking it something else now orders the two.
    rig.handle.probe().await.unwrap();
    let instance = rig.engine.runtime.start(&spec).await.unwrap();
    assert!(matches!(instance.state, InstanceState::Running { health: Health::Starting, .. }), "{instance:?}");
    rig.engine
        .runtime
        .exec(&spec.id, &["touch".into(), "/ok".into()], &Told::default().sink(), &CancellationToken::new())
        .await
        .unwrap();
    eventually("it is healthy", async || {
        let seen = rig.engine.runtime.inspect(&spec.id).await.unwrap().unwrap();
        matches!(seen.state, InstanceState::Running { health: Health::Healthy, .. })
    })
    .await;
    let stats = rig.engine.runtime.stats(&spec.id).await.unwrap();
    assert!(stats.pids >= 2 && stats.memory_bytes > 0, "{stats:?}");
    rig.engine.runtime.stop(&spec.id, Duration::from_secs(5)).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), listen).await.unwrap().unwrap();
    assert!(heard.contains(&InstanceEvent::Health(spec.id.clone(), Health::Healthy)), "{heard:?}");
    assert_eq!(heard.last(), Some(&InstanceEvent::Exited(spec.id.clone())));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_outlive_releases_but_not_the_app() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let run = async |id: &str, script: &str, told: &Told| {
        let mut spec = rig.spec(id, &image, &["sh", "-c", script]);
        spec.volumes = vec!["data:/data".parse().unwrap()];
        let exit = rig.engine.runtime.run(&spec, &told.sink(), Duration::from_secs(30), &CancellationToken::new()).await;
        assert!(exit.unwrap().success());
    };
    let told = Told::default();
    run("shop.v1.web.1", "echo kept > /data/x", &told).await;
    rig.engine.runtime.remove_release(&rig.app, "v1".parse().unwrap()).await.unwrap();
    run("shop.v2.web.1", "cat /data/x", &told).await;
    assert_eq!(told.text(), "kept\n");
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_stays() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    // Somebody runs our image by hand, and somebody else took a name that we would use.
    let foreign = format!("foreign-{}", rig.owner);
    rig.seen_by_docker(&["run", "-d", "--name", &foreign, &format!("coracle-{}/shop:v1", rig.owner), "sleep", "300"]);
    let spec = rig.spec("shop.v1.web.1", &image, &SLEEP);
    rig.seen_by_docker(&["run", "-d", "--name", &rig.container(&spec.id), "debian:bookworm-slim", "sleep", "300"]);
    assert!(rig.engine.runtime.list().await.unwrap().is_empty());
    assert!(matches!(rig.engine.runtime.start(&spec).await, Err(EngineError::CannotStart { .. })));
    rig.engine.runtime.remove_app(&rig.app).await.unwrap();
    rig.engine.builder.prune(&rig.app, &[]).await.unwrap();
    let names = rig.seen_by_docker(&["ps", "--format", "{{.Names}}"]);
    assert!(names.contains(&foreign) && names.contains(&rig.container(&spec.id)), "{names:?}");
    rig.seen_by_docker(&["rm", "-f", &foreign, &rig.container(&spec.id)]);
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_and_leaves_no_container() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let gone = coracle_model::ArtifactId::new(format!("sha256:{}", "0".repeat(64)));
    let result = rig.engine.runtime.start(&rig.spec("shop.v1.web.1", &gone, &SLEEP)).await;
    assert!(matches!(result, Err(EngineError::NoSuchArtifact(_))), "{result:?}");
    let mut spec = rig.spec("shop.v1.web.1", &image, &SLEEP);
    spec.limits.memory = Some(ByteSize::bytes(1));
    let result = rig.engine.runtime.start(&spec).await;
    assert!(matches!(&result, Err(EngineError::CannotStart { cause, .. }) if cause.contains("memory")), "{result:?}");
    assert!(rig.engine.runtime.list().await.unwrap().is_empty());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_removed_even_if_its_network_went_first() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let spec = rig.spec("shop.v1.web.1", &image, &SLEEP);
    rig.engine.runtime.start(&spec).await.unwrap();
    rig.engine.runtime.stop(&spec.id, Duration::from_secs(1)).await.unwrap();
    rig.seen_by_docker(&["network", "rm", &format!("coracle-{}.shop.v1", rig.owner)]);
    // The network is thought to be there; the start finds out and makes it again.
    assert!(rig.engine.runtime.start(&spec).await.unwrap().is_running());
    // A running instance of ours does not keep a release from being removed.
    rig.engine.runtime.remove_release(&rig.app, spec.id.release).await.unwrap();
    rig.engine.runtime.remove_release(&rig.app, spec.id.release).await.unwrap();
    rig.clean().await;
}

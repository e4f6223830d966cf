//! Instances, from start to stop.

use std::time::{Duration, Instant};

use coracle_model::{ArtifactId, ByteSize, CommandLine};
use futures::StreamExt;
use futures::future::join_all;

use super::server::GRACE;
use super::waiting::{SOON, eventually, get, processes_with, soon, unique};
use super::{Bench, id, skipped};
use crate::error::EngineError;
use crate::runtime::{Health, InstanceEvent, InstanceState, LogQuery, Stream};

/// Started is running, found, and reachable from this machine.
pub async fn a_started_instance_runs_and_answers_at_its_address(bench: &Bench) {
    let server = bench.built().await;
    let before = jiff::Timestamp::now();
    let started = server.start(&server.spec("shop.v1.web.1", &["serve"]).with_env("GREETING", "hello you")).await;
    let InstanceState::Running { address: Some(address), health, since } = started.state else { panic!("{started:?}") };
    assert_eq!(health, Health::Unchecked);
    // Engines may keep moments more coarsely than we do.
    assert!(since.as_millisecond() >= before.as_millisecond() - 1000 && since <= jiff::Timestamp::now(), "{since}");
    assert_eq!(get(address).await, "hello you");
    assert_eq!(server.inspect("shop.v1.web.1").await.unwrap().address(), Some(address));
    assert_eq!(server.inspect("shop.v1.web.2").await, None);
}

/// What the artifact says about its `web` process runs and serves.
pub async fn the_command_that_the_build_found_runs(bench: &Bench) {
    let server = bench.built().await;
    let mut spec = server.spec("shop.v1.web.1", &[]).with_env("GREETING", "by default");
    spec.command = server.artifact().processes.values().next().unwrap().clone();
    let address = server.start(&spec).await.address().unwrap();
    assert_eq!(get(address).await, "by default");
}

/// A second start of what runs returns it as it is.
pub async fn starting_what_runs_changes_nothing(bench: &Bench) {
    let server = bench.built().await;
    let address = server.serve("shop.v1.web.1", "first").await;
    let before = server.inspect("shop.v1.web.1").await.unwrap();
    let again = server.start(&server.spec("shop.v1.web.1", &["serve"]).with_env("GREETING", "second")).await;
    assert_eq!(again, before);
    assert_eq!(get(address).await, "first");
    assert_eq!(server.ids().await, ["shop.v1.web.1"]);
}

/// What has exited is replaced, its log included.
pub async fn starting_what_has_exited_starts_it_anew(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.web.1", &["prints", "1", "0", "3"])).await;
    assert_eq!(server.exit_of("shop.v1.web.1").await.code, Some(3));
    server.serve("shop.v1.web.1", "back").await;
    assert!(server.inspect("shop.v1.web.1").await.unwrap().is_running());
    assert!(!server.written("shop.v1.web.1", Stream::Stdout).await.contains(&"out 0".to_owned()));
    assert_eq!(server.ids().await, ["shop.v1.web.1"]);
}

/// Parallel starts each get an address of their own.
pub async fn five_start_at_once_and_do_not_disturb_each_other(bench: &Bench) {
    let server = bench.built().await;
    let server = &server;
    let starts = (1..=5).map(|index| async move {
        let greeting = format!("I am {index}");
        (server.serve(&format!("shop.v1.web.{index}"), &greeting).await, greeting)
    });
    let mut addresses = Vec::new();
    for (address, greeting) in join_all(starts).await {
        assert_eq!(get(address).await, greeting);
        addresses.push(address);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 5);
    let ids = server.ids().await;
    assert_eq!(ids.len(), 5);
    join_all(ids.iter().map(|id| server.stop(id))).await;
    assert!(server.ids().await.is_empty());
}

/// Stopping what is not there succeeds, whatever the reason.
pub async fn what_is_gone_is_stopped_again_without_complaint(bench: &Bench) {
    let server = bench.built().await;
    server.stop("shop.v1.web.1").await;
    let address = server.serve("shop.v1.web.1", "hello").await;
    for _ in 0..2 {
        server.stop("shop.v1.web.1").await;
        assert_eq!(server.inspect("shop.v1.web.1").await, None);
    }
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    server.start(&server.spec("shop.v1.web.2", &["prints", "0", "0", "0"])).await;
    server.exit_of("shop.v1.web.2").await;
    server.stop("shop.v1.web.2").await;
    assert!(server.ids().await.is_empty());
}

/// The grace is a limit, not a wait.
pub async fn a_polite_instance_is_stopped_long_before_its_grace_is_over(bench: &Bench) {
    let server = bench.built().await;
    server.serve("shop.v1.web.1", "hello").await;
    let begun = Instant::now();
    server.runtime().stop(&id("shop.v1.web.1"), Duration::from_secs(60)).await.unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// What ignores SIGTERM gets its whole grace and is killed then.
pub async fn a_stubborn_instance_is_killed_when_its_grace_is_over(bench: &Bench) {
    let server = bench.built().await;
    server.start(&server.spec("shop.v1.worker.1", &["stubborn"])).await;
    server.until_written("shop.v1.worker.1", "staying").await;
    // Docker counts its grace in seconds.
    let (grace, begun) = (Duration::from_secs(1), Instant::now());
    soon("a stop", server.runtime().stop(&id("shop.v1.worker.1"), grace)).await.unwrap();
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    assert_eq!(server.inspect("shop.v1.worker.1").await, None);
}

/// A grandchild in a session of its own goes too.
pub async fn no_descendant_outlives_its_instance(bench: &Bench) {
    if !bench.can().programs || !bench.can().descendants {
        return skipped("the engine does not find every descendant here");
    }
    let server = bench.built().await;
    let marker = unique("marker");
    server.start(&server.spec("shop.v1.worker.1", &["forks", &marker])).await;
    server.until_written("shop.v1.worker.1", "grandchild").await;
    assert!(processes_with(&marker).len() >= 2);
    soon("a stop", server.runtime().stop(&id("shop.v1.worker.1"), Duration::from_secs(1))).await.unwrap();
    eventually("the end of all descendants", || async { processes_with(&marker).is_empty().then_some(()) }).await;
}

/// Running and exited instances of all apps, ordered by id.
pub async fn the_list_is_complete_and_in_order(bench: &Bench) {
    let server = bench.built().await;
    let expected =
        ["blog.v1.web.1", "shop.v2.web.1", "shop.v2.web.2", "shop.v2.web.10", "shop.v2.worker.1", "shop.v10.cron.nightly.1"];
    for id in expected.iter().rev() {
        server.start(&server.spec(id, &["prints", "0", "0", "0"])).await;
    }
    for id in expected {
        server.exit_of(id).await;
    }
    server.serve("shop.v2.web.2", "running").await;
    assert_eq!(server.ids().await, expected);
    let running = server.runtime().list().await.unwrap().into_iter().filter(crate::Instance::is_running);
    assert_eq!(running.map(|instance| instance.id.to_string()).collect::<Vec<_>>(), ["shop.v2.web.2"]);
}

/// Exit codes and signals are told.
pub async fn an_exited_instance_tells_how_it_ended(bench: &Bench) {
    let server = bench.built().await;
    for code in [0, 3, 255] {
        server.start(&server.spec("shop.v1.worker.1", &["prints", "0", "0", &code.to_string()])).await;
        let exit = server.exit_of("shop.v1.worker.1").await;
        assert_eq!((exit.code, exit.signal, exit.out_of_memory), (Some(code), None, false));
        assert_eq!(exit.success(), code == 0);
    }
    for signal in [9, 15] {
        server.start(&server.spec("shop.v1.worker.1", &["signals", &signal.to_string()])).await;
        let exit = server.exit_of("shop.v1.worker.1").await;
        // An engine with an init in between sees what a shell would see.
        assert_eq!((exit.shell_code(), exit.out_of_memory), (128 + signal, false), "{exit:?}");
    }
}

/// The memory limit kills, and says that it did.
pub async fn memory_beyond_the_limit_ends_the_instance_and_is_named(bench: &Bench) {
    if !bench.can().memory_limit {
        return skipped("memory limits are not enforced here");
    }
    let server = bench.built().await;
    let mut spec = server.spec("shop.v1.worker.1", &["allocates", "300"]);
    spec.limits.memory = Some(ByteSize::mib(64));
    server.start(&spec).await;
    assert!(server.exit_of("shop.v1.worker.1").await.out_of_memory);
    let (ended, _) = server.run(&spec_as(spec, "shop.v1.run.1")).await;
    assert!(ended.unwrap().out_of_memory);
    let mut modest = server.spec("shop.v1.worker.2", &["allocates", "8"]);
    modest.limits.memory = Some(ByteSize::mib(64));
    server.start(&modest).await;
    server.until_written("shop.v1.worker.2", "allocated 8").await;
}

fn spec_as(mut spec: crate::InstanceSpec, name: &str) -> crate::InstanceSpec {
    spec.id = id(name);
    spec
}

/// Neither a start nor a one-off process invents an artifact.
pub async fn an_artifact_that_is_gone_is_named(bench: &Bench) {
    let server = bench.built().await;
    let mut spec = server.spec("shop.v1.worker.1", &["stubborn"]);
    let artifact = spec.artifact.clone();
    server.prune(&[]).await;
    for gone in [artifact, ArtifactId::new("never-was"), ArtifactId::new("../../etc")] {
        spec.artifact = gone.clone();
        match server.runtime().start(&spec).await {
            Err(EngineError::NoSuchArtifact(named)) => assert_eq!(named, gone),
            other => panic!("{other:?}"),
        }
        assert!(matches!(server.run(&spec).await.0, Err(EngineError::NoSuchArtifact(_))));
    }
    assert!(server.ids().await.is_empty());
}

/// A missing program is either refused at once or an instance that ended badly, never one that runs.
pub async fn a_program_that_does_not_exist_does_not_run(bench: &Bench) {
    let server = bench.built().await;
    let mut spec = server.spec("shop.v1.worker.1", &[]);
    spec.command = Some(CommandLine::literal(vec!["no-such-program".to_owned(), "argument".to_owned()]).unwrap());
    match soon("a start", server.runtime().start(&spec)).await {
        Err(EngineError::CannotStart { id, cause }) => {
            assert_eq!(id, spec.id);
            assert!(!cause.is_empty());
        }
        Ok(_) => assert!(!server.exit_of("shop.v1.worker.1").await.success()),
        Err(other) => panic!("{other:?}"),
    }
    match server.run(&spec_as(spec, "shop.v1.run.1")).await.0 {
        Err(EngineError::CannotStart { .. }) => {}
        Ok(exit) => assert!(!exit.success()),
        Err(other) => panic!("{other:?}"),
    }
    server.stop("shop.v1.worker.1").await;
    assert!(server.ids().await.is_empty());
}

/// Dropping an engine stops nothing, and the next one finds it.
pub async fn instances_outlive_the_engine(bench: &Bench) {
    let mut server = bench.built().await;
    let address = server.serve("shop.v1.web.1", "still here").await;
    server.start(&server.spec("shop.v1.worker.1", &["ticks"])).await;
    server.start(&server.spec("shop.v1.worker.2", &["prints", "1", "0", "6"])).await;
    server.exit_of("shop.v1.worker.2").await;
    let before = server.inspect("shop.v1.web.1").await;
    drop(server);
    assert_eq!(get(address).await, "still here");
    server = bench.server().await;
    assert_eq!(server.inspect("shop.v1.web.1").await, before);
    assert_eq!(server.exit_of("shop.v1.worker.2").await.code, Some(6));
    let seen = server.log("shop.v1.worker.1", LogQuery::default()).await.len();
    eventually("more lines of what runs", || async {
        (server.log("shop.v1.worker.1", LogQuery::default()).await.len() > seen + 3).then_some(())
    })
    .await;
    server.stop("shop.v1.web.1").await;
    server.runtime().stop(&id("shop.v1.worker.1"), GRACE).await.unwrap();
    assert_eq!(server.ids().await, ["shop.v1.worker.2"]);
}

/// Events come soon, though any one of them may be missed.
pub async fn events_tell_of_starts_and_ends(bench: &Bench) {
    let server = bench.built().await;
    let mut events = server.runtime().events();
    let web = id("shop.v1.worker.1");
    let (mut started, mut exited) = (false, false);
    let all = async {
        while !(started && exited) {
            server.start(&server.spec("shop.v1.worker.1", &["prints", "0", "0", "0"])).await;
            // A listener may need a moment to be in place: then the next round tells.
            let round = tokio::time::Instant::now() + Duration::from_secs(2);
            while let Ok(event) = tokio::time::timeout_at(round, events.next()).await {
                let event = event.expect("events do not end while the engine answers");
                started |= event == InstanceEvent::Started(web.clone());
                exited |= event == InstanceEvent::Exited(web.clone());
                if started && exited {
                    break;
                }
            }
        }
    };
    soon("events", all).await;
}

/// Figures of what runs are plausible; there are none of what does not exist.
pub async fn a_running_instance_has_figures(bench: &Bench) {
    let server = bench.built().await;
    server.serve("shop.v1.web.1", "hello").await;
    let stats = soon("figures", server.runtime().stats(&id("shop.v1.web.1"))).await.unwrap();
    assert!((1 << 16..1 << 33).contains(&stats.memory_bytes), "{stats:?}");
    assert!(stats.cpu_us > 0 && stats.pids >= 1, "{stats:?}");
    let none = server.runtime().stats(&id("shop.v1.web.2")).await;
    assert!(matches!(none, Err(EngineError::NoSuchInstance(_))), "{none:?}");
}

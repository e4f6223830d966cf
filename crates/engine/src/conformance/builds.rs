//! Builds: what they make, how they fail, what they leave.

use std::time::{Duration, Instant};

use coracle_model::{ArtifactId, EngineKind, Span};
use tokio_util::sync::CancellationToken;

use super::server::Heard;
use super::trees::Tree;
use super::waiting::{SOON, soon};
use super::{Bench, nothing_left, skipped};
use crate::builder::OutputSink;
use crate::error::{BuildError, EngineError};

/// An artifact is there after its build, and others are not.
pub async fn a_build_makes_an_artifact_that_is_there(bench: &Bench) {
    let server = bench.built().await;
    let artifact = server.artifact();
    assert!(server.has(&artifact.id).await);
    assert!(!server.has(&ArtifactId::new("sha256:0000000000000000000000000000000000000000000000000000000000000000")).await);
    assert!(!server.has(&ArtifactId::new("../../etc")).await);
    assert!(artifact.processes.keys().any(|process| process.is_web()), "{artifact:?}");
}

/// What an artifact says of itself belongs to it, and one that is gone says nothing.
pub async fn an_image_tells_what_it_is(bench: &Bench) {
    let server = bench.built().await;
    let artifact = server.artifact();
    let facts = server.builder().facts(&artifact.id).await.unwrap();
    assert_eq!(facts, server.builder().facts(&artifact.id).await.unwrap());
    match artifact.engine {
        EngineKind::Docker => {
            let facts = facts.expect("an image has facts");
            assert_eq!(facts.has_healthcheck, artifact.has_healthcheck);
            assert!(!bench.can().programs || facts.env.iter().any(|(name, _)| name == "PATH"), "{:?}", facts.env);
            assert!(!bench.can().programs || !facts.history.is_empty());
        }
        EngineKind::Process => assert_eq!(facts, None),
    }
    for gone in ["sha256:0000000000000000000000000000000000000000000000000000000000000000", "../../etc"] {
        let answer = server.builder().facts(&ArtifactId::new(gone)).await;
        assert!(matches!(answer, Err(EngineError::NoSuchArtifact(_))), "{answer:?}");
    }
    server.prune(&[]).await;
    let answer = server.builder().facts(&artifact.id).await;
    assert!(matches!(answer, Err(EngineError::NoSuchArtifact(_))), "{answer:?}");
}

/// The same tree builds again, from a directory that is as it was.
pub async fn a_build_only_reads_its_source(bench: &Bench) {
    let server = bench.built().await;
    // The comparison of the tree before and after is made by every build of this suite.
    let again = server.build(bench.fixture(), 2, Tree::Program(1), &OutputSink::discard(), &CancellationToken::new()).await;
    let again = again.unwrap().unwrap();
    assert!(server.has(&again.id).await && server.has(&server.artifact().id).await);
}

/// The failing step is named, its output was told, and nothing is left.
pub async fn a_failing_step_is_named_and_its_output_told(bench: &Bench) {
    let server = bench.server().await;
    let heard = Heard::default();
    let built = server.build(bench.fixture(), 1, Tree::Fails, &heard.sink(), &CancellationToken::new()).await;
    match built {
        None => return skipped("no build fails here"),
        Some(Err(BuildError::StepFailed { step, .. })) => assert!(!step.is_empty()),
        Some(other) => panic!("{other:?}; it said: {}", heard.text()),
    }
    assert!(heard.text().contains("luck"), "it said: {}", heard.text());
    server.prune(&[]).await;
    nothing_left(bench.fixture()).await;
}

/// Cancelling ends a build within seconds.
pub async fn a_cancelled_build_ends_soon_and_says_so(bench: &Bench) {
    let server = bench.server().await;
    let cancel = CancellationToken::new();
    let already = CancellationToken::new();
    already.cancel();
    let heard = Heard::default();
    let never_begun = server.build(bench.fixture(), 1, Tree::Program(1), &OutputSink::discard(), &already).await;
    assert!(matches!(never_begun, Some(Err(BuildError::Cancelled))), "{never_begun:?}");
    let canceller = async {
        // Into the middle of it, wherever that is: the build must end from anywhere.
        tokio::time::sleep(Duration::from_millis(700)).await;
        cancel.cancel();
    };
    let sink = heard.sink();
    let build = server.build(bench.fixture(), 1, Tree::Hangs, &sink, &cancel);
    let (built, ()) = soon("the end of a cancelled build", futures::future::join(build, canceller)).await;
    match built {
        None => return skipped("no build hangs here"),
        Some(built) => assert!(matches!(built, Err(BuildError::Cancelled)), "{built:?}; it said: {}", heard.text()),
    }
    server.prune(&[]).await;
    nothing_left(bench.fixture()).await;
}

/// The deadline ends a build, and is named.
pub async fn a_build_past_its_deadline_is_ended(bench: &Bench) {
    let server = bench.server().await;
    let (limit, begun) = (Span::millis(1500), Instant::now());
    let (output, cancel) = (OutputSink::discard(), CancellationToken::new());
    let built = server.build_within(bench.fixture(), 1, Tree::Hangs, limit, &output, &cancel).await;
    match built {
        None => return skipped("no build hangs here"),
        Some(Err(BuildError::TimedOut { limit: named })) => assert_eq!(named, limit),
        Some(other) => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < limit.duration() + SOON);
    server.prune(&[]).await;
    nothing_left(bench.fixture()).await;
}

/// A server that is killed in the middle of a build finds nothing after the pruning that follows.
pub async fn a_build_whose_caller_is_gone_leaves_nothing_that_pruning_does_not_remove(bench: &Bench) {
    let server = bench.server().await;
    let (output, cancel) = (OutputSink::discard(), CancellationToken::new());
    let build = server.build(bench.fixture(), 1, Tree::Hangs, &output, &cancel);
    match tokio::time::timeout(Duration::from_millis(700), build).await {
        Ok(None) => return skipped("no build hangs here"),
        Ok(ended) => panic!("{ended:?}"),
        Err(_) => {}
    }
    drop(server);
    bench.server().await.prune(&[]).await;
    nothing_left(bench.fixture()).await;
}

/// Pruning keeps what it is told to, also when called twice.
pub async fn pruning_removes_all_but_what_is_kept(bench: &Bench) {
    let server = bench.server().await;
    let mut built = Vec::new();
    for release in 1..=3 {
        let (output, cancel) = (OutputSink::discard(), CancellationToken::new());
        let artifact = server.build(bench.fixture(), release, Tree::Program(release), &output, &cancel).await;
        built.push(artifact.unwrap().unwrap().id);
    }
    for _ in 0..2 {
        server.prune(&built[1..2]).await;
        let mut there = Vec::new();
        for artifact in &built {
            there.push(server.has(artifact).await);
        }
        assert_eq!(there, [false, true, false], "{built:?}");
    }
    server.builder().prune(&super::app("blog"), &[]).await.unwrap();
    assert!(server.has(&built[1]).await, "another app's pruning is none of ours");
}

/// A server that comes back runs what it had built.
pub async fn an_artifact_survives_the_engine(bench: &Bench) {
    let mut server = bench.built().await;
    let artifact = server.artifact().clone();
    drop(server);
    server = bench.server().await;
    assert!(server.has(&artifact.id).await);
}

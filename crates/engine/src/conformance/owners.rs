//! Two servers on one machine.

use std::time::Duration;

use super::waiting::get;
use super::{Bench, app, id};
use crate::error::EngineError;
use crate::runtime::LogQuery;

/// Another server neither sees nor stops nor removes what is ours.
pub async fn another_server_sees_and_touches_nothing(bench: &Bench) {
    let server = bench.built().await;
    let stranger = bench.stranger().await;
    let address = server.serve("shop.v1.web.1", "ours").await;
    let (web, artifact) = (id("shop.v1.web.1"), server.artifact().id.clone());
    assert!(stranger.ids().await.is_empty());
    assert_eq!(stranger.inspect("shop.v1.web.1").await, None);
    let log = stranger.runtime().logs(&web, &LogQuery::default()).await;
    assert!(matches!(log.err(), Some(EngineError::NoSuchInstance(_))));
    assert!(matches!(stranger.runtime().stats(&web).await, Err(EngineError::NoSuchInstance(_))));
    stranger.runtime().stop(&web, Duration::ZERO).await.unwrap();
    stranger.runtime().remove_release(&app("shop"), web.release).await.unwrap();
    stranger.remove_app(&app("shop")).await;
    stranger.prune(&[]).await;
    assert_eq!(get(address).await, "ours");
    assert!(server.has(&artifact).await);
    assert_eq!(server.ids().await, ["shop.v1.web.1"]);
    // And what we have built still starts.
    server.serve("shop.v1.web.2", "ours too").await;
}

/// The same app, the same release, the same process: two servers do not mind.
pub async fn two_servers_run_the_same_instance_side_by_side(bench: &Bench) {
    let server = bench.built().await;
    let mut stranger = bench.stranger().await;
    stranger.build_program(bench.fixture()).await;
    let ours = server.serve("shop.v1.web.1", "ours").await;
    let theirs = stranger.serve("shop.v1.web.1", "theirs").await;
    assert_ne!(ours, theirs);
    assert_eq!((get(ours).await.as_str(), get(theirs).await.as_str()), ("ours", "theirs"));
    stranger.remove_app(&app("shop")).await;
    stranger.prune(&[]).await;
    assert!(stranger.ids().await.is_empty());
    assert_eq!(get(ours).await, "ours");
    assert!(server.has(&server.artifact().id).await);
    server.serve("shop.v1.web.2", "ours too").await;
}

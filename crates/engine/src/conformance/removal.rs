//! Removing releases and apps, and what outlives them.

use coracle_model::ReleaseNumber;

use super::waiting::get;
use super::{Bench, app, nothing_left, skipped};

fn v(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).unwrap()
}

/// There is nothing to remove, and that is fine.
pub async fn removing_what_never_was_succeeds(bench: &Bench) {
    let server = bench.server().await;
    for _ in 0..2 {
        server.runtime().remove_release(&app("shop"), v(7)).await.unwrap();
        server.remove_app(&app("shop")).await;
        server.prune(&[]).await;
    }
    nothing_left(bench.fixture()).await;
}

/// One release goes, the other goes on; twice is as good as once.
pub async fn a_removed_release_leaves_the_others_alone(bench: &Bench) {
    let server = bench.built().await;
    server.serve("shop.v1.web.1", "old").await;
    let new = server.serve("shop.v2.web.1", "new").await;
    let other = server.serve("blog.v1.web.1", "other").await;
    server.stop("shop.v1.web.1").await;
    for _ in 0..2 {
        server.runtime().remove_release(&app("shop"), v(1)).await.unwrap();
    }
    assert_eq!((get(new).await.as_str(), get(other).await.as_str()), ("new", "other"));
    // And it can come back, as in a rollback.
    server.serve("shop.v1.web.1", "old again").await;
}

/// Instances and all; the other app stays, and artifacts are the builder's.
pub async fn a_removed_app_is_gone_with_what_runs(bench: &Bench) {
    let server = bench.built().await;
    server.serve("shop.v1.web.1", "going").await;
    server.start(&server.spec("shop.v2.worker.1", &["stubborn"])).await;
    let other = server.serve("blog.v1.web.1", "staying").await;
    for _ in 0..2 {
        server.remove_app(&app("shop")).await;
        assert_eq!(server.ids().await, ["blog.v1.web.1"]);
    }
    assert_eq!(get(other).await, "staying");
    assert!(server.has(&server.artifact().id).await);
}

/// What one release writes the next one reads, until the app goes.
pub async fn volumes_last_until_their_app_is_removed(bench: &Bench) {
    if !bench.can().programs || !bench.can().volumes {
        return skipped("volumes are not seen at their path here");
    }
    let server = bench.built().await;
    let write = server.spec("shop.v1.run.1", &["writes", "/data/note", "kept"]).with_volume("notes:/data");
    let read = server.spec("shop.v2.run.1", &["reads", "/data/note"]).with_volume("notes:/data");
    let (ended, said) = server.run(&write).await;
    assert!(ended.unwrap().success(), "{said:?}");
    server.runtime().remove_release(&app("shop"), v(1)).await.unwrap();
    let (ended, said) = server.run(&read).await;
    assert!(ended.unwrap().success(), "{said:?}");
    assert_eq!(said[0].text, "kept");
    let mut foreign = read.clone();
    foreign.id = super::id("blog.v1.run.1");
    assert!(!server.run(&foreign).await.0.unwrap().success(), "another app has volumes of its own");
    server.remove_app(&app("shop")).await;
    assert!(!server.run(&read).await.0.unwrap().success(), "it went with its app");
}

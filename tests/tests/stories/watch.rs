//! `[pipeline.watch]`: a release whose health check is fine and whose answers are not.

use std::time::Duration;

use coracle_api::Outcome;
use coracle_model::EngineKind;
use coracle_tests::{Env, RunningLoad, eventually};

/// Fails at nearly a third of what it is asked, and is in the best of health.
const SICK: &str = "\n\n@app.before_request\ndef sometimes():\n    sometimes.asked = getattr(sometimes, 'asked', 0) + 1\n    \
                    if request.path != '/healthz' and sometimes.asked % 10 in (1, 4, 7):\n        \
                    print('out of change', flush=True)\n        return 'out of change', 500\n";

/// The release before is known well enough to compare another with.
async fn asked_enough(load: &RunningLoad) {
    eventually("enough requests were answered before", Duration::from_secs(20), async || {
        let answered = load.so_far().succeeded();
        if answered >= 60 { Ok(()) } else { Err(format!("{answered}")) }
    })
    .await;
}

async fn a_release_that_answers_worse_is_taken_back(engine: EngineKind) {
    let env = Env::start(engine).await;
    let shop = env.app("flask");
    shop.tree.manifest("pipeline", "watch = \"4s\"");
    let first = shop.deploy("v1").await;
    let says = |deployed: &coracle_tests::Deployed, text: &str| {
        assert!(deployed.lines.iter().any(|line| line.contains(text)), "{text}: {deployed}");
    };
    says(&first, "not watched after the switch: there is no release before it to go back to");
    let load = shop.load(60).only_get().start();
    asked_enough(&load).await;
    let good = shop.deploy("v2").await;
    good.succeeds();
    says(&good, "watching the new release for 4s; the one before answered 0.0 % of ");
    says(&good, "watched for 4s: errors in 0.0 % of ");
    load.stop().await.lost_nothing();

    shop.tree.append("shop.py", SICK).version("v3");
    let load = shop.load(60).only_get().start();
    asked_enough(&load).await;
    let bad = shop.deploy_as_it_is().await;
    bad.fails()
        .shows("after the switch, which was taken back: it answers ")
        .shows("with an error, and the release before answered 0.0 % of ");
    shop.get("/").await.says("from v2");
    drop(load);
    assert!(matches!(shop.deployments().await.first().unwrap().outcome, Some(Outcome::Failed { .. })));
    shop.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_answers_worse_is_taken_back_on_processes() {
    a_release_that_answers_worse_is_taken_back(EngineKind::Process).await;
}

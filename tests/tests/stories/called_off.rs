//! Deployments that are called off: by Ctrl-C, or because the client is gone.

use coracle_api::{Outcome, Phase};
use coracle_tests::{App, Env, eventually};

use std::time::Duration;

/// A second version that takes its time to build and to boot.
fn slow_second_version(shop: &App) {
    shop.tree.version("v2").append("requirements.txt", "# and nothing else").append("shop.py", "time.sleep(2)");
}

/// Waits until the latest deployment has ended, and tells how.
async fn outcome(shop: &App) -> Outcome {
    eventually("the deployment has ended", Duration::from_secs(60), async || {
        let last = shop.deployments().await.remove(0);
        last.outcome.clone().ok_or_else(|| format!("{last:?}"))
    })
    .await
}

on_both_engines! {
    async fn ctrl_c_before_the_switch_changes_nothing(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        let load = shop.load(50).start();
        let sound = shop.tree.snapshot();
        slow_second_version(&shop);
        for phase in [Phase::Build, Phase::Probe] {
            let mut deploying = shop.begin_deploy();
            assert!(deploying.reaches(phase).await);
            deploying.interrupt();
            deploying.end().await.fails();
            assert_eq!(outcome(&shop).await, Outcome::Cancelled { phase });
            assert_eq!(shop.active().await, Some(1));
            shop.settles().await;
        }
        shop.tree.restore(sound);
        shop.deploy("v3").await;
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn a_client_that_vanishes_before_the_switch_changes_nothing(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        let load = shop.load(50).start();
        let sound = shop.tree.snapshot();
        slow_second_version(&shop);
        for phase in [Phase::Build, Phase::Probe] {
            let mut deploying = shop.begin_deploy();
            assert!(deploying.reaches(phase).await);
            deploying.kill_client();
            drop(deploying.end().await);
            let outcome = outcome(&shop).await;
            assert!(matches!(outcome, Outcome::Cancelled { .. }), "{outcome:?}");
            assert_eq!(shop.active().await, Some(1));
            shop.settles().await;
        }
        shop.tree.restore(sound);
        shop.deploy("v3").await;
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn after_the_switch_a_deployment_ends_by_itself(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        let load = shop.load(50).start();
        for (version, vanish) in [("v2", false), ("v3", true)] {
            shop.tree.version(version);
            let mut deploying = shop.begin_deploy();
            assert!(deploying.reaches(Phase::Drain).await);
            if vanish {
                deploying.kill_client();
                drop(deploying.end().await);
            } else {
                deploying.interrupt();
                deploying.end().await.succeeds();
            }
            assert_eq!(outcome(&shop).await, Outcome::Succeeded);
            shop.get("/").await.says(version);
            shop.settles().await;
        }
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }
}

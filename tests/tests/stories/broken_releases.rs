//! Broken releases: the old one serves on, and the person learns why, with evidence and what to type next.

use coracle_tests::{Breakage, Env};

on_both_engines! {
    async fn every_kind_of_broken_release_leaves_the_old_one_serving_under_load(env: Env) {
        let shop = env.app("flask");
        shop.tree.manifest("deploy", "timeout = \"6s\"");
        shop.deploy("v1").await;
        let load = shop.load(50).start();

        for (number, breakage) in Breakage::ALL.into_iter().enumerate() {
            let deployed = shop.deploy_broken(&format!("broken-{number}"), breakage).await;
            eprintln!("{}: {deployed}", breakage.describe());
            shop.get("/").await.says("from v1");
            assert_eq!(shop.active().await, Some(1), "{breakage:?}");
        }

        shop.deploy("v2").await;
        let report = load.stop().await;
        report.lost_nothing();
        shop.settles().await;
        env.leaves_nothing().await;
    }

    async fn a_first_release_that_is_broken_leaves_nothing_but_its_record(env: Env) {
        let shop = env.app("flask");
        shop.tree.manifest("deploy", "timeout = \"6s\"");
        shop.deploy_broken("v1", Breakage::ExitsAtStart).await;
        shop.get("/").await.has_status(404);
        assert_eq!(shop.active().await, None);
        shop.deploy("v1").await;
        shop.get("/").await.says("from v1");
        env.leaves_nothing().await;
    }
}

//! Releases come, go and come back.

use coracle_tests::{Env, Ran};

on_both_engines! {
    /// The daily life of an app.
    async fn a_changed_line_is_deployed_and_taken_back(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        shop.get("/").await.says("Hello from v1");
        let load = shop.load(60).start();

        shop.deploy("v2").await;
        shop.get("/").await.says("Hello from v2");

        shop.coracle(&["rollback"]).await.succeeds().says("undo: coracle rollback v2");
        shop.get("/").await.says("Hello from v1");

        shop.coracle(&["rollback"]).await.succeeds();
        shop.get("/").await.says("Hello from v2");

        let report = load.stop().await;
        report.lost_nothing();
        assert!(report.saw("from v1") > 0 && report.saw("from v2") > 0, "{report}");
        assert_eq!(shop.active().await, Some(4));
        shop.settles().await;
        env.leaves_nothing().await;
    }

    async fn only_the_kept_releases_stay_and_each_of_them_can_be_gone_back_to(env: Env) {
        let shop = env.app("flask");
        shop.tree.manifest("deploy", "keep = 3").manifest("deploy", "watch = \"100ms\"");
        for version in 1..=6 {
            shop.deploy(&format!("v{version}")).await;
        }
        let kept: Vec<_> = shop.releases().await.iter().map(|release| release.number.to_string()).collect();
        assert_eq!(kept, ["v4", "v5", "v6"]);
        if env.engine() == coracle_model::EngineKind::Docker {
            assert_eq!(env.belongings().images.len(), 3, "{:#?}", env.belongings());
        }

        shop.coracle(&["rollback", "v1"]).await.is_refused().says("v1");
        // v5 is the oldest by the time it is gone back to: what a rollback needs is what it must not lose.
        shop.coracle(&["rollback", "v4"]).await.succeeds();
        shop.get("/").await.says("from v4");
        shop.coracle(&["rollback"]).await.succeeds();
        shop.get("/").await.says("from v6");
        shop.coracle(&["rollback", "v7"]).await.succeeds();
        shop.get("/").await.says("from v4");
        env.leaves_nothing().await;
    }

    async fn the_second_deployment_of_an_app_is_told_to_wait_or_waits(env: Env) {
        let shop = env.app("flask");
        shop.tree.append("shop.py", "time.sleep(2)");
        shop.deploy("v1").await;

        shop.tree.version("v2");
        let mut first = shop.begin_deploy();
        assert!(first.reaches(coracle_api::Phase::Build).await);
        shop.coracle(&["deploy"]).await.fails().says("running");
        let waiting = Ran::to_its_end(shop.command(&["deploy", "--wait"]));
        let (first, second) = tokio::join!(first.end(), waiting);
        first.succeeds();
        second.succeeds();

        assert_eq!(shop.active().await, Some(3));
        shop.settles().await;
        env.leaves_nothing().await;
    }

    async fn scaling_changes_how_many_answer(env: Env) {
        let shop = env.app("flask");
        shop.tree.change("shop.py", "from {VERSION}\\n\"", "from {VERSION} by the one born at {BORN}\\n\"");
        shop.tree.append("shop.py", "BORN = time.monotonic_ns()");
        shop.deploy("v1").await;
        let load = shop.load(40).only_get().start();

        shop.coracle(&["ps", "scale", "web=3"]).await.succeeds();
        shop.settles().await;
        coracle_tests::eventually("three answer", std::time::Duration::from_secs(20), async || {
            let answers = load.so_far().answers;
            if answers.len() == 3 { Ok(()) } else { Err(format!("{answers:?}")) }
        })
        .await;

        // The number stays across deployments.
        shop.deploy("v2").await;
        assert_eq!(shop.status().await.instances.len(), 3);

        shop.coracle(&["ps:scale", "web=1"]).await.succeeds();
        shop.settles().await;
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn what_an_app_writes_can_be_read_and_what_one_runs_passes_its_exit_code_on(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        shop.coracle(&["logs", "-n", "all"]).await.succeeds().says("Listening at");

        let ran = shop.coracle(&["run", "--", "python", "-c", "import shop, sys; print(shop.VERSION, '; $(id)'); sys.exit(7)"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "v1 ; $(id)\n"), "{ran}");
        let ran = shop.coracle(&["exec", "--", "python", "-c", "import os; print(os.environ['GREETING'])"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "Hello\n"), "{ran}");
        shop.settles().await;
        env.leaves_nothing().await;
    }
}

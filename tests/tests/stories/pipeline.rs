//! `[pipeline]`: what is not to go live does not, says why, and leaves nothing behind.

use std::time::Duration;

use coracle_api::Phase;
use coracle_model::EngineKind;
use coracle_tests::{App, Env, eventually};

/// A test of the shop's own that needs nothing but Flask.
const TEST: &str = "import unittest\n\nimport shop\n\n\nclass Window(unittest.TestCase):\n    def test_greets(self):\n        \
                    self.assertIn(\"Hello from\", shop.app.test_client().get(\"/\").text)\n";

/// The shop with a test of its own.
pub(crate) fn tested_shop(env: &Env) -> App {
    let shop = env.app("flask");
    shop.tree.write("test_shop.py", TEST).manifest("pipeline.steps.test", "run = \"python -m unittest -q test_shop\"");
    shop
}

async fn a_push_that_fails_its_test_is_rejected(engine: EngineKind) {
    let env = Env::start_for_pushes(engine).await;
    let shop = tested_shop(&env);
    shop.tree.manifest("pipeline.steps.release-only", "run = \"false\"\nwhen = { branch = \"release/*\" }");
    shop.becomes_a_repository(&env).await;
    let first = shop.push(&env, &["main"]).await;
    first.succeeds().says("running the pipeline").says("test: passed after").says("v1 of shop is live");
    first.says("release-only: left out: it is for branch release/*, and this is branch main");

    let load = shop.load(50).start();
    shop.tree.change("shop.py", "f\"{os", "f\"Goodbye, {os");
    shop.tree.change("shop.py", "Goodbye, {os.environ.get('GREETING', 'Hello')}", "Goodbye");
    shop.commits(&env, "a farewell").await;
    let refused = shop.push(&env, &["main"]).await;
    refused.fails().says("! [remote rejected] main -> main (pipeline failed: the step test failed: exit code 1");
    refused.says("test: ").says("AssertionError: 'Hello from' not found in 'Goodbye from v1");
    shop.get("/").await.says("Hello from v1");

    shop.tree.change("shop.py", "Goodbye from", "Hello from");
    shop.tree.version("v2");
    shop.commits(&env, "a greeting again").await;
    shop.push(&env, &["main"]).await.succeeds().says("test: passed after");
    load.stop().await.lost_nothing();
    shop.get("/").await.says("Hello from v2");
    shop.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_fails_its_test_is_rejected_on_processes() {
    a_push_that_fails_its_test_is_rejected(EngineKind::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_fails_its_test_is_rejected_on_docker() {
    if coracle_tests::engine::can_tell(EngineKind::Docker, "a pipeline on docker") {
        a_push_that_fails_its_test_is_rejected(EngineKind::Docker).await;
    }
}

on_both_engines! {
    async fn a_step_that_depends_on_nothing_new_is_not_run_again(env: Env) {
        let shop = tested_shop(&env);
        shop.tree.manifest("pipeline.steps.test", "when = { paths = [\"*.py\", \"requirements.txt\"] }");
        shop.tree.manifest("pipeline.steps.all", "run = [\"python\", \"-c\", \"print('ran at', 6 * 7)\"]");
        let first = shop.deploy_as_it_is().await;
        first.succeeds();
        assert!(first.lines.iter().any(|line| line.contains("all: ran at 42")), "{first}");
        shop.tree.write("notes.txt", "A word more.");
        let second = shop.deploy_as_it_is().await;
        second.succeeds();
        let says = |text: &str| second.lines.iter().any(|line| line.contains(text));
        assert!(says("test: cached: nothing it depends on has changed since it passed for v1"), "{second}");
        assert!(says("all: passed after"), "{second}");
        let third = shop.deploy("v2").await;
        assert!(third.lines.iter().any(|line| line.contains("test: passed after")), "{third}");
        env.leaves_nothing().await;
    }

    async fn a_step_is_tried_again_and_ends_in_time(env: Env) {
        let shop = env.app("flask");
        shop.tree.write("flaky.py", FLAKY);
        shop.tree.manifest("pipeline.steps.flaky", "run = \"python flaky.py\"\nretries = 2\ncache = [\"/kept\"]");
        let deployed = shop.deploy_as_it_is().await;
        deployed.succeeds();
        let says = |text: &str| deployed.lines.iter().any(|line| line.contains(text));
        assert!(says("flaky: the step flaky failed: exit code 1; trying again, 1 of 2"), "{deployed}");
        assert!(says("flaky: seen before") && says("flaky: passed after"), "{deployed}");

        shop.tree.manifest("pipeline.steps.endless", "run = \"sleep 600\"\ntimeout = \"2s\"");
        let deployed = shop.deploy_as_it_is().await;
        deployed.fails().shows("the step endless did not end within 2s");
        shop.get("/").await.says("from v1");
        shop.settles().await;
        env.leaves_nothing().await;
    }

    async fn called_off_and_killed_in_the_middle_steps_leave_nothing(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        shop.tree.manifest("pipeline.steps.long", "run = [\"python\", \"-uc\", \"import time; print('at work'); time.sleep(600)\"]");
        shop.tree.version("v2");
        let mut deploying = shop.begin_deploy();
        assert!(deploying.reaches(Phase::Pipeline).await);
        deploying.interrupt();
        let deployed = deploying.end().await;
        assert_ne!(deployed.code, Some(0), "{deployed}");
        shop.settles().await;

        let mut deploying = shop.begin_deploy();
        assert!(deploying.reaches(Phase::Pipeline).await);
        step_runs(&shop).await;
        env.kill_server().await;
        deploying.end().await.fails();
        env.start_server().await;
        shop.settles().await;
        shop.get("/").await.says("from v1");
        env.leaves_nothing().await;
    }

    async fn a_release_that_fails_its_verification_is_taken_back(env: Env) {
        let shop = env.app("flask");
        shop.tree.write("smoke.py", SMOKE).manifest("pipeline.verify.smoke", "run = \"python -u smoke.py\"");
        shop.deploy("v1").await;
        let sound = shop.deploy("v2").await;
        for when in ["before", "after"] {
            assert!(sound.lines.iter().any(|line| line.contains(&format!("smoke: {when}: Hello from v2"))), "{when}: {sound}");
        }
        let load = shop.load(50).start();
        shop.tree.version("bad before");
        let refused = shop.deploy_as_it_is().await;
        refused.fails().shows("the step smoke failed: exit code 1").shows("this will not do");
        shop.get("/").await.says("from v2");
        shop.tree.version("bad after");
        let refused = shop.deploy_as_it_is().await;
        refused.fails().shows("after the switch, which was taken back, the step smoke failed").shows("this will not do");
        shop.settles().await;
        shop.get("/").await.says("from v2");
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }
}

/// Fails when it is run first.
const FLAKY: &str = r#"import os
import sys

mark = "/kept/seen"
if os.path.exists(mark):
    print("seen before")
else:
    open(mark, "w").close()
    sys.exit(1)
"#;

/// Does not like some versions.
pub(crate) const SMOKE: &str = r#"import os
import sys
import urllib.request

when = os.environ["CORACLE_VERIFY"]
text = urllib.request.urlopen(os.environ["CORACLE_URL"] + "/", timeout=10).read().decode().strip()
print(f"{when}: {text}")
if f"bad {when}" in text:
    sys.exit("this will not do")
"#;

async fn step_runs(shop: &App) {
    eventually("the step runs", Duration::from_secs(60), async || {
        let status = shop.status().await;
        let runs = status.instances.iter().any(|instance| instance.process.as_str() == "step.long");
        if runs { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_database_stands_beside_the_tests() {
    if !coracle_tests::engine::can_tell(EngineKind::Docker, "a service beside a step") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let shop = tested_shop(&env);
    shop.tree
        .write("arithmetic.py", "import pathlib\n\nprint(40 + 2, pathlib.Path('shop.py').exists())\nopen('made', 'w').close()\n");
    shop.tree.manifest(
        "pipeline.steps.database",
        "image = \"postgres:15\"\nrun = 'psql $DATABASE_URL -tAc \"select ${N} + 2\"'\nservices = [\"postgres:15\", \"redis:7\"]\nmatrix = { N = [\"40\", \"50\"] }",
    );
    // The tree is where a step with an image of its own begins, and it may write there.
    shop.tree.manifest("pipeline.steps.elsewhere", "image = \"python:3.11-slim\"\nrun = \"python -B arithmetic.py\"");
    let deployed = shop.deploy_as_it_is().await;
    deployed.succeeds();
    let says = |text: &str| deployed.lines.iter().any(|line| line.contains(text));
    assert!(says("database[N=40]: 42") && says("database[N=50]: 52") && says("elsewhere: 42 True"), "{deployed}");
    assert!(!env.state().join("mounts/shop/steps/v1").exists());
    // The networks and containers of steps are gone as soon as these have ended.
    let left = env.belongings();
    let of_steps: Vec<_> = left.networks.iter().chain(&left.containers).filter(|name| name.contains("step")).collect();
    assert!(of_steps.is_empty(), "{of_steps:?}");
    shop.settles().await;
    shop.get("/").await.says("from v1");

    // Not healthy is said with the service's own words, and nothing of it stays.
    shop.tree.manifest("pipeline.steps.broken.services.db", "image = \"postgres:15\"\nenv = { POSTGRES_USER = \"x\" }");
    shop.tree.manifest("pipeline.steps.broken", "run = \"true\"");
    let refused = shop.deploy_as_it_is().await;
    refused.fails().shows("the service db beside the step broken: it is not healthy").shows("POSTGRES_PASSWORD");
    shop.settles().await;
    env.leaves_nothing().await;
}

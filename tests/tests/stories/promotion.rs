//! The way of a change: pushed to staging, where its tests and its verification have their say, and, when a person has allowed it, in
//! production as the same image. Both apps are under load all the while.

use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::{App, Breakage, Env, Load, Ran, eventually};

use crate::pipeline::{SMOKE, tested_shop};
use crate::registry::page;

/// What is described as production: it waits for a person.
const PRODUCTION: &str = "\n[environments.production.pipeline]\napprove = true\n";

async fn pushes(shop: &App, env: &Env, version: &str) -> Ran {
    shop.tree.version(version);
    shop.commits(env, version).await;
    shop.push(env, &["main"]).await
}

/// Pushes what must not go live, sees that it has not, and takes it back.
async fn is_refused(shop: &App, env: &Env, version: &str, change: impl FnOnce(), says: [&str; 2]) {
    let (code, live) = (shop.tree.read("shop.py"), shop.remote_ref(env, "refs/heads/main").await);
    change();
    let pushed = pushes(shop, env, version).await;
    pushed.fails().says("! [remote rejected] main -> main").says(says[0]).says(says[1]).says("then push again");
    shop.get("/").await.says("Hello from v1");
    assert_eq!(shop.remote_ref(env, "refs/heads/main").await, live, "{version}");
    shop.tree.write("shop.py", code);
}

/// Has production take over what staging runs; it waits to be allowed.
async fn promotes(env: &Env) {
    env.coracle(&["promote", "shop", "shop-production", "--detach"]).await.succeeds();
    let production = "shop-production".parse().unwrap();
    eventually("production waits for a person", Duration::from_secs(60), async || {
        let status = env.client().app(&production).await.map_err(|error| error.to_string())?;
        if status.waiting.is_some() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_from_a_push_to_production() {
    if !coracle_tests::engine::can_tell(EngineKind::Docker, "promotion::approved") {
        return;
    }
    let env = Env::start_for_pushes(EngineKind::Docker).await;
    let shop = tested_shop(&env);
    shop.tree.write("smoke.py", SMOKE).manifest("pipeline.verify.smoke", "run = \"python -u smoke.py\"");
    shop.tree.manifest("deploy", "timeout = \"6s\"").append("coracle.toml", PRODUCTION).version("v1");
    shop.becomes_a_repository(&env).await;
    shop.push(&env, &["main"]).await.succeeds().says("v1 of shop is live");

    promotes(&env).await;
    env.coracle(&["approve", "-a", "shop-production", "-f"]).await.succeeds().says("is live");
    assert!(page(&env, "shop-production").await.contains("Hello from v1"));

    let plan = env.coracle(&["promote", "shop", "shop-production", "--plan"]).await;
    plan.succeeds().says("waits until an owner approves it").says("verified before and after the switch by smoke");

    let staging = shop.load(40).start();
    let production = Load::on(env.address(), "shop-production.localhost", 40).start();
    let mistake = || {
        shop.tree.change("shop.py", "app = Flask(", "app = = Flask(");
    };
    is_refused(&shop, &env, "v2", mistake, ["pipeline failed: the step test failed", "SyntaxError"]).await;
    let farewell = || {
        shop.tree.change("shop.py", "{os.environ.get('GREETING', 'Hello')} from", "Goodbye from");
    };
    is_refused(&shop, &env, "v2", farewell, ["pipeline failed: the step test failed", "'Hello from' not found"]).await;
    let asleep = || {
        shop.tree.breaks(Breakage::NeverHealthy);
    };
    is_refused(&shop, &env, "v2", asleep, ["is not healthy", Breakage::NeverHealthy.evidence()]).await;
    is_refused(&shop, &env, "bad before", || {}, ["the step smoke failed", "this will not do"]).await;
    is_refused(&shop, &env, "bad after", || {}, ["which was taken back", "this will not do"]).await;

    pushes(&shop, &env, "v2").await.succeeds().says("test: passed after").says("smoke");
    shop.get("/").await.says("Hello from v2");
    // Production is not asked of staging's pushes; nor is it changed by a promotion that nobody has allowed.
    promotes(&env).await;
    assert!(page(&env, "shop-production").await.contains("Hello from v1"));
    env.coracle(&["reject", "-a", "shop-production", "--reason", "not on a Friday"]).await.succeeds();
    promotes(&env).await;
    env.coracle(&["approve", "-a", "shop-production", "-f"]).await.succeeds().says("is live");
    assert!(page(&env, "shop-production").await.contains("Hello from v2"));
    let of = async |app: &str| env.client().releases(&app.parse().unwrap()).await.unwrap().pop().unwrap();
    let (staged, promoted) = (of("shop").await, of("shop-production").await);
    assert_eq!(staged.artifact, promoted.artifact, "it was made anew");

    staging.stop().await.lost_nothing();
    production.stop().await.lost_nothing();
    shop.settles().await;
    env.leaves_nothing().await;
}

//! The server is killed in every phase, and comes back.

use coracle_engine::fake::{Script, Which};
use coracle_model::deployment::Recovery;
use coracle_model::{Outcome, Phase, Strategy};

use crate::world::{World, spec};

/// Phases that a deployment with a release command goes through under this strategy.
fn phases(strategy: Strategy) -> impl Iterator<Item = Phase> {
    let skipped = move |phase: &Phase| {
        matches!(phase, Phase::Pipeline | Phase::Approval | Phase::Push | Phase::Services | Phase::Release)
            || (*phase == Phase::Hold && strategy == Strategy::BlueGreen)
    };
    Phase::ALL.into_iter().filter(move |phase| !skipped(phase))
}

async fn killed_in(phase: Phase, strategy: Strategy) {
    let mut world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.strategy = Some(strategy);
    world.deploy(shop.clone()).await.unwrap();

    world.deploy_and_die_in(shop.clone(), phase).await;
    if strategy == Strategy::BlueGreen {
        // Nobody reconciles now, and yet requests are answered.
        assert!(world.get("shop").await.is_ok(), "{phase}: {:?}", world.get("shop").await);
    }
    world.restart_server().await;

    let completed = phase.recovery() == Recovery::Complete;
    let expected = if completed { "v2 web.1" } else { "v1 web.1" };
    world.until_answers("shop", expected).await;
    let active = if completed { 2 } else { 1 };
    world.until("one release runs", async || world.instances() == [format!("shop.v{active}.web.1")]).await;
    assert_eq!(world.last_outcome("shop").await, Outcome::Interrupted { phase, completed }, "{strategy}");
    assert!(world.machine.inventory().build_remains.is_empty());

    world.deploy(shop).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v3 web.1"));
    world.until("only the newest runs", async || world.instances() == ["shop.v3.web.1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_is_on_the_old_or_the_new_release_whenever_the_server_dies() {
    for phase in phases(Strategy::BlueGreen) {
        killed_in(phase, Strategy::BlueGreen).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_is_on_the_old_or_the_new_release_whenever_the_server_dies() {
    for phase in phases(Strategy::Recreate) {
        killed_in(phase, Strategy::Recreate).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_command_that_was_running_is_removed() {
    let mut world = World::new().await;
    let mut shop = spec("shop");
    shop.deploy.release_command = Some("migrate".parse().unwrap());
    world.machine.script(Which::process(1, "release-command"), Script::never_listens());
    world.deploy_and_die_in(shop, Phase::Release).await;
    world.restart_server().await;
    world.until("nothing is left", async || world.machine.inventory().is_empty()).await;
    assert_eq!(world.last_outcome("shop").await, Outcome::Interrupted { phase: Phase::Release, completed: false });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_while_its_engine_is_silent_leaves_requests_where_they_go() {
    let mut world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.machine.set_available(false);
    world.restart_server().await;
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    world.orchestrator.republish().await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    world.machine.set_available(true);
    world.deploy(spec("shop")).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_brings_every_app_back() {
    let mut world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.deploy(spec("blog")).await.unwrap();
    world.machine.reboot();
    world.restart_server().await;
    world.until_answers("shop", "v1 web.1").await;
    world.until_answers("blog", "v1 web.1").await;
}

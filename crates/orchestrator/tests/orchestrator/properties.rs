//! Whatever happens in whatever order, the app is on exactly one release, and that is the right one.

use coracle_engine::fake::{Script, Which};
use coracle_model::{Phase, deployment::Recovery};
use coracle_orchestrator::OrchestratorError;
use proptest::prelude::*;

use crate::world::{World, spec};

/// Something that happens to an app.
#[derive(Debug, Clone)]
enum Happening {
    Deploy,
    BrokenDeploy,
    Config(u8),
    Rollback,
    InstanceCrash,
    ServerRestart,
    ServerKilledIn(Phase),
}

fn happening() -> impl Strategy<Value = Happening> {
    let phases = [Phase::Build, Phase::Start, Phase::Probe, Phase::Switch, Phase::Drain, Phase::Stop, Phase::Record];
    prop_oneof![
        3 => Just(Happening::Deploy),
        2 => Just(Happening::BrokenDeploy),
        1 => any::<u8>().prop_map(Happening::Config),
        2 => Just(Happening::Rollback),
        1 => Just(Happening::InstanceCrash),
        1 => Just(Happening::ServerRestart),
        2 => proptest::sample::select(phases.to_vec()).prop_map(Happening::ServerKilledIn),
    ]
}

/// What should be true: the active release, the one to go back to, and the number of the next deployment.
struct Expected {
    active: u32,
    previous: Option<u32>,
    next: u32,
}

impl Expected {
    fn succeed(&mut self) {
        (self.previous, self.active) = (Some(self.active), self.next);
        self.next += 1;
    }
}

async fn happens(world: &mut World, what: &Happening, expected: &mut Expected) {
    match what {
        Happening::Deploy => {
            world.deploy(spec("shop")).await.unwrap();
            expected.succeed();
        }
        Happening::BrokenDeploy => {
            world.machine.script(Which::release(expected.next), Script::exits(1, &[]));
            world.deploy(spec("shop")).await.unwrap_err();
            expected.next += 1;
        }
        Happening::Config(value) => {
            // What is set already is no change.
            world.set_config("VALUE", Some(&format!("{value} {}", expected.next))).await.unwrap();
            expected.succeed();
        }
        Happening::Rollback => match (world.rollback(None).await, expected.previous) {
            (Ok(_), Some(_)) => expected.succeed(),
            (Err(OrchestratorError::Refused { .. }), None) => {}
            (result, previous) => panic!("rollback to {previous:?} gave {result:?}"),
        },
        Happening::InstanceCrash => {
            world.machine.crash(&format!("shop.v{}.web.1", expected.active).parse().unwrap());
        }
        Happening::ServerRestart => world.restart_server().await,
        Happening::ServerKilledIn(phase) => {
            world.deploy_and_die_in(spec("shop"), *phase).await;
            world.restart_server().await;
            match phase.recovery() {
                Recovery::Complete => expected.succeed(),
                Recovery::Undo => expected.next += 1,
            }
        }
    }
}

async fn check(happenings: Vec<Happening>) {
    let mut world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    let mut expected = Expected { active: 1, previous: None, next: 2 };
    for what in &happenings {
        happens(&mut world, what, &mut expected).await;
        world.until_answers("shop", &format!("v{} web.1", expected.active)).await;
    }
    let only = format!("shop.v{}.web.1", expected.active);
    world.until("only the active release runs", async || world.instances() == [only.as_str()]).await;
    assert!(world.store.unfinished_deployments().await.unwrap().is_empty());
    assert!(world.releases("shop").await.contains(&expected.active));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_app_is_always_on_the_right_release(happenings in proptest::collection::vec(happening(), 1..7)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(happenings));
    }
}

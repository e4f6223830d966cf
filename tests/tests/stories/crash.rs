//! The server is killed in the middle of a deployment, at each of its phases. Not a request is lost, and when the server
//! comes back the app is on the old or on the new release, never on both or neither, and nothing is stuck.

use std::time::Duration;

use coracle_api::{Outcome, Phase};
use coracle_model::EngineKind;
use coracle_tests::engine::can_tell;
use coracle_tests::{App, Env};

/// A second version whose every phase takes long enough to be caught in.
fn slow_second_version(shop: &App, phase: Phase) {
    shop.tree.version("v2");
    match phase {
        Phase::Build => {
            // New dependencies are installed anew.
            shop.tree.append("requirements.txt", "# and nothing else");
        }
        Phase::Release => {
            shop.tree.write("release.py", "import time\n\ntime.sleep(3)\n");
            shop.tree.manifest("deploy", "release_command = \"python release.py\"");
        }
        Phase::Start | Phase::Probe => {
            shop.tree.append("shop.py", "time.sleep(2)");
        }
        _ => {}
    }
}

/// One server, killed in this phase of its second deployment.
async fn killed_during(phase: Phase, engine: EngineKind) {
    if !can_tell(engine, &format!("crash: killed during {phase} on {engine}")) {
        return;
    }
    let env = Env::start(engine).await;
    let shop = env.app("flask");
    if phase == Phase::Hold {
        shop.tree.manifest("deploy", "strategy = \"recreate\"");
    }
    shop.deploy("v1").await;
    let load = shop.load(50).start();
    // A request that is still being answered makes the draining and the stopping of the old instance take their time.
    let (address, host) = (env.address(), shop.host());
    let slow = tokio::spawn(async move { coracle_tests::browser::get(address, &host, "/slow?s=4").await });

    slow_second_version(&shop, phase);
    let mut deploying = shop.begin_deploy();
    assert!(deploying.reaches(phase).await, "{}", deploying.end().await);
    env.kill_server().await;
    env.start_server().await;
    // The client finds the restarted server by itself and tells how it ended; how, depends on the phase.
    let told = deploying.end().await;

    slow.await.unwrap().unwrap().says("At last, from v1");
    shop.settles().await;
    let last = shop.deployments().await.remove(0);
    let active = shop.active().await;
    eprintln!("killed during {phase} on {engine}: {:?}, active {active:?}", last.outcome);
    match last.outcome {
        Some(Outcome::Interrupted { completed, phase: at }) => {
            assert_eq!(active, Some(if completed { 2 } else { 1 }), "{told}");
            assert_eq!(completed, !at.can_cancel(), "{last:?}");
        }
        // The last phases are short; the deployment may have come to its end before the signal did.
        Some(Outcome::Succeeded) if phase >= Phase::Switch => assert_eq!(active, Some(2)),
        other => panic!("{other:?} {told}"),
    }
    let version = if active == Some(2) { "from v2" } else { "from v1" };
    shop.get("/").await.says(version);

    // Nothing is stuck.
    shop.deploy("v3").await;
    shop.get("/").await.says("from v3");
    shop.settles().await;
    let report = load.stop().await;
    report.lost_nothing();
    assert!(report.latency(1.0) < Duration::from_secs(20), "{report}");
    env.leaves_nothing().await;
}

macro_rules! killed_during_each_phase {
    ($($name:ident: $phase:ident,)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_docker() {
                killed_during(Phase::$phase, EngineKind::Docker).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_processes() {
                killed_during(Phase::$phase, EngineKind::Process).await;
            }
        }
    )*};
}

killed_during_each_phase! {
    killed_during_validate: Validate,
    killed_during_build: Build,
    killed_during_release_command: Release,
    killed_while_holding: Hold,
    killed_during_start: Start,
    killed_during_probe: Probe,
    killed_during_switch: Switch,
    killed_during_drain: Drain,
    killed_during_stop: Stop,
    killed_during_record: Record,
}

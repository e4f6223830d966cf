//! What dies is brought back: one instance, or all of them at once as after a reboot.

use std::process::Command;
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::belongings::signal;
use coracle_tests::{App, Env, eventually};
use rustix::process::{Pid, Signal};

/// Kills every instance there is, behind the server's back.
fn kill_all_instances(env: &Env) {
    match env.engine() {
        EngineKind::Docker => {
            let containers = env.belongings().containers;
            assert!(!containers.is_empty());
            let status = Command::new("docker").arg("kill").args(containers).output().unwrap().status;
            assert!(status.success());
        }
        EngineKind::Process => {
            let instances = env.belongings().processes;
            let mut instances: Vec<_> = instances.iter().filter(|process| process.command.contains("gunicorn")).collect();
            assert!(!instances.is_empty());
            instances.sort();
            for process in instances {
                signal(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
            }
        }
    }
}

async fn answers_again(env: &Env, shop: &App) {
    eventually("the app answers again", Duration::from_secs(40), async || {
        match coracle_tests::browser::get(env.address(), &shop.host(), "/").await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

on_both_engines! {
    async fn an_instance_that_dies_is_replaced(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        for _ in 0..2 {
            kill_all_instances(&env);
            answers_again(&env, &shop).await;
            shop.settles().await;
        }
        env.leaves_nothing().await;
    }

    async fn after_a_reboot_everything_comes_back(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        shop.deploy("v2").await;
        env.kill_server().await;
        kill_all_instances(&env);
        signal(env.belongings().proxy().expect("the proxy runs without the server"), Signal::KILL);
        // As a machine that starts: nothing runs.
        env.start_server().await;
        answers_again(&env, &shop).await;
        shop.get("/").await.says("from v2");
        shop.settles().await;
        shop.coracle(&["rollback"]).await.succeeds();
        shop.get("/").await.says("from v1");
        env.leaves_nothing().await;
    }
}

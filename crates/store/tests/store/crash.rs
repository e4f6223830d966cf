//! The writing process dies by SIGKILL; what it was told is written must be there.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use coracle_model::{DeploymentKind, Outcome, Phase};
use coracle_store::{ConfigChange, Store};

use crate::harness::{Home, name, new_release, shop};

const DIRECTORY: &str = "CORACLE_STORE_CRASH_DIRECTORY";

/// The process that is killed: deploys in a loop and tells each release that it has made active.
#[tokio::test]
#[ignore = "the other half of the test below"]
async fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(&PathBuf::from(directory)).await.unwrap();
    store.ensure_app(&shop()).await.unwrap();
    loop {
        let deployment = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
        let number = deployment.to.get().to_string();
        let change = ConfigChange { name: name("NUMBER"), value: Some(number.as_str().into()), secret: false };
        store.set_config(&shop(), &[change]).await.unwrap();
        store.create_release(new_release(&shop(), deployment.to, &[("NUMBER", &number)])).await.unwrap();
        store.enter_phase(deployment.id, Phase::Probe).await.unwrap();
        store.activate(deployment.id, &[]).await.unwrap();
        println!("active {number}");
        store.finish_deployment(deployment.id, &Outcome::Succeeded).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_survives_sigkill_and_nothing_is_half() {
    let home = Home::new();
    for told in [1, 4, 9] {
        let last = kill_after(&home, told);
        let store = home.open().await;
        let active = store.app(&shop()).await.unwrap().active.unwrap();
        assert!(active.get() >= last, "release {last} was told to be active, and {active} is");
        let env = store.release_env(&shop(), active).await.unwrap();
        assert_eq!(env[0].1.expose(), active.get().to_string());
        let unfinished = store.unfinished_deployments().await.unwrap();
        assert!(unfinished.len() <= 1);
        for deployment in unfinished {
            let complete = !deployment.phase.can_cancel();
            assert_eq!(complete, deployment.to == active, "{deployment:?} while {active} is active");
            let phase = deployment.phase;
            store.finish_deployment(deployment.id, &Outcome::Interrupted { phase, completed: complete }).await.unwrap();
        }
        store.close().await;
    }
}

/// Kills the victim after so many of its lines; the last release it told of.
fn kill_after(home: &Home, lines: usize) -> u32 {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env(DIRECTORY, home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    // The harness prints on the same line before the test does.
    let told = output.filter_map(|line| line.rsplit_once("active ")?.1.parse().ok());
    let last = told.take(lines).last();
    victim.kill().unwrap();
    victim.wait().unwrap();
    last.expect("the victim told nothing")
}

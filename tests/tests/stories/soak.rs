//! Many deployments under a steady load, a third of them broken in different ways. Nothing is lost and nothing piles up.
//!
//! `make test` runs a short one; `make soak` the full one: COUNT deployments at RATE requests a second.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use coracle_model::EngineKind;
use coracle_tests::{Breakage, Env};

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

on_both_engines! {
    async fn deployments_under_load_lose_nothing_and_leave_nothing(env: Env) {
        let (count, rate) = (number("SOAK_COUNT", 12), number("SOAK_RATE", 200));
        let layers = unnamed_images();
        let shop = env.app("flask");
        shop.tree.manifest("deploy", "timeout = \"5s\"").manifest("deploy", "keep = 3");
        shop.deploy("v0").await;
        let load = shop.load(rate).start();
        let begun = Instant::now();

        let mut serving = "v0".to_owned();
        let mut broken = Breakage::ALL.into_iter().cycle();
        for deployment in 1..=count {
            let version = format!("v{deployment}");
            if deployment % 3 == 0 {
                shop.deploy_broken(&version, broken.next().unwrap()).await;
            } else {
                shop.deploy(&version).await;
                serving = version;
            }
            shop.get("/").await.says(&format!("from {serving}\n"));
            let failed = load.so_far().failed_count();
            assert_eq!(failed, 0, "after deployment {deployment}: {}", load.so_far());
        }

        shop.settles().await;
        let report = load.stop().await;
        eprintln!("{count} deployments in {:.0?} on {}: {report}", begun.elapsed(), env.engine());
        report.lost_nothing();
        assert!(report.latency(0.5) < Duration::from_millis(500), "{report}");
        bounded(&env, &shop).await;
        env.leaves_nothing().await;
        // Other stories make such layers, too; where this one runs alone, there must not be more than before.
        if std::env::var_os("NEXTEST").is_some() || std::env::var_os("SOAK_ALONE").is_some() {
            let left: Vec<_> = unnamed_images().difference(&layers).cloned().collect();
            assert!(left.is_empty(), "layers that nobody needs are left: {left:?}");
        }
    }
}

/// Images without a name, which is how the classic builder leaves its layers.
fn unnamed_images() -> BTreeSet<String> {
    let listed = Command::new("docker").args(["images", "--quiet", "--filter", "dangling=true"]).output();
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// What is there is what three kept releases and one running instance need.
async fn bounded(env: &Env, shop: &coracle_tests::App) {
    assert_eq!(shop.releases().await.len(), 3);
    let there = env.belongings().of_apps(&[env.server_pid()]);
    match env.engine() {
        EngineKind::Docker => {
            assert_eq!(there.containers.len(), 1, "{there:#?}");
            assert_eq!(there.networks.len(), 1, "{there:#?}");
            assert_eq!(there.images.len(), 3, "{there:#?}");
        }
        EngineKind::Process => {
            // A supervisor, gunicorn and its worker.
            assert!(there.processes.len() <= 4, "{there:#?}");
            let slugs = there.directories.iter().filter(|path| path.parent().is_some_and(|app| app.ends_with("slugs/shop")));
            assert_eq!(slugs.count(), 3, "{there:#?}");
            let instances = there.directories.iter().filter(|path| path.parent().is_some_and(|kind| kind.ends_with("instances")));
            assert_eq!(instances.count(), 1, "{there:#?}");
        }
    }
    assert!(there.volumes.is_empty(), "{there:#?}");
}

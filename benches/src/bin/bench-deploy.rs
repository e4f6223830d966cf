//! `make bench-deploy`: what a changed line costs on both engines, beside the floor of doing it by hand; how soon requests
//! change over; what both planes use when ten apps run and nobody asks for anything.
//!
//! The last line is `RESULT {json}`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use coracle_benches::floor::{PlainDocker, PlainGunicorn, answers};
use coracle_benches::rounds::{Rounds, median, rounded};
use coracle_benches::switch::switches;
use coracle_model::EngineKind;
use coracle_tests::engine::docker_answers;
use coracle_tests::{App, Env, memory};
use serde_json::{Map, Value, json};
use tokio::time::sleep;

/// How many rounds are measured, after one that warms the caches of both.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().map_or(9, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    let mut result = Map::new();
    if docker_answers() {
        deploys(EngineKind::Docker, &mut result).await;
    } else {
        println!("docker: no Docker answers, so it is left out");
    }
    deploys(EngineKind::Process, &mut result).await;
    let switch = median(switches(10, 200).await.into_iter().map(|took| took.as_secs_f64() * 1000.0));
    println!("a route of 10 leads elsewhere {switch:.2} ms after the proxy was told, at the median of 200 times");
    result.insert("route_switch_ms".to_owned(), json!({ "ours": rounded(switch) }));
    idle(EngineKind::Process, "idle_rss_mb", &mut result).await;
    if docker_answers() {
        idle(EngineKind::Docker, "idle_rss_mb_docker", &mut result).await;
    }
    println!("RESULT {}", Value::Object(result));
}

/// By hand, on the engine's terms.
enum Floor {
    Docker(PlainDocker),
    Gunicorn(PlainGunicorn),
}

impl Floor {
    async fn change(&mut self, version: &str) -> Duration {
        match self {
            Self::Docker(docker) => docker.change(version).await,
            Self::Gunicorn(gunicorn) => gunicorn.change(version).await,
        }
    }
}

/// One-line changes, ours and by hand in turn.
async fn deploys(engine: EngineKind, result: &mut Map<String, Value>) {
    let env = Env::start(engine).await;
    let shop = env.app("flask");
    let mut floor = match engine {
        EngineKind::Docker => Floor::Docker(PlainDocker::new(env.path("plain"))),
        EngineKind::Process => Floor::Gunicorn(PlainGunicorn::new(&env.path("home"))),
    };
    let (mut measured, mut phases) = (Rounds::default(), Vec::new());
    for round in 0..=rounds() {
        let version = format!("round-{round}");
        // Who begins changes from round to round.
        let (ours, peer) = if round % 2 == 0 {
            let ours = ours(&env, &shop, &version, &mut phases).await;
            (ours, floor.change(&version).await)
        } else {
            let peer = floor.change(&version).await;
            (ours(&env, &shop, &version, &mut phases).await, peer)
        };
        if round > 0 {
            measured.add(ours.as_secs_f64(), peer.as_secs_f64());
        }
    }
    println!("{engine}: `deploy` typed → new version answering: {measured}");
    if let Some(line) = phases.last() {
        println!("  the last of ours:  {line}");
    }
    if let Floor::Docker(docker) = &floor {
        println!("  the last by hand:  {}", docker.last);
    }
    result.insert(format!("deploy_{engine}"), measured.json());
    drop(floor);
    env.leaves_nothing().await;
}

/// From `coracle deploy` to the first answer of the new version.
async fn ours(env: &Env, shop: &App, version: &str, phases: &mut Vec<String>) -> Duration {
    shop.tree.version(version);
    let begun = Instant::now();
    let deploying = shop.begin_deploy();
    let (address, host) = (env.address(), shop.host());
    let answering = async {
        answers(address, &host, version).await;
        begun.elapsed()
    };
    // The deployment goes on after the switch (watching, draining); it is not part of the figure, but ends before the next.
    let (took, deployed) = tokio::join!(answering, deploying.end());
    deployed.succeeds();
    phases.extend(deployed.phases().map(str::to_owned));
    took
}

/// Ten apps, and nobody asks for anything.
async fn idle(engine: EngineKind, name: &str, result: &mut Map<String, Value>) {
    const WATCHED: Duration = Duration::from_secs(10);
    let env = Env::start(engine).await;
    let app = env.app("flask");
    let manifest = app.tree.read("coracle.toml");
    for number in 1..=10 {
        app.tree.write("coracle.toml", manifest.replace("app = \"shop\"", &format!("app = \"shop-{number}\"")));
        app.deploy_as_it_is().await.succeeds();
    }
    let planes = || [env.server_pid(), env.belongings().proxy().unwrap()];
    let before: f64 = planes().into_iter().map(memory::processor).sum();
    sleep(WATCHED).await;
    let busy = (planes().into_iter().map(memory::processor).sum::<f64>() - before) / WATCHED.as_secs_f64() * 100.0;
    let [server, proxy] = planes().map(|pid| memory::resident(pid) as f64 / 1e6);
    // Supervisors of single instances, which outlive the server: no part of either plane, but not to be hidden either.
    let others = env.belongings().of_apps(&[env.server_pid()]);
    let supervisors = others.processes.iter().filter(|process| process.is_supervisor());
    let supervisors: Vec<_> = supervisors.filter_map(|process| rustix::process::Pid::from_raw(process.pid)).collect();
    let supervising: f64 = supervisors.iter().map(|pid| memory::resident(*pid) as f64 / 1e6).sum::<f64>() + 0.0;
    println!(
        "{engine}: 10 apps, idle: server {server:.1} MB, proxy {proxy:.1} MB, together {:.1} MB; {busy:.2} % of a core; \
         beside them {} supervisors with {supervising:.1} MB",
        server + proxy,
        supervisors.len(),
    );
    result.insert(name.to_owned(), json!({ "ours": rounded(server + proxy) }));
    result.insert(format!("{name}_supervisors"), json!({ "ours": rounded(supervising) }));
    result.insert(format!("idle_cpu_percent_{engine}"), json!({ "ours": rounded(busy) }));
    env.leaves_nothing().await;
}

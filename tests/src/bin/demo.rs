//! `make demo`: Coracle's reason to exist, shown in a minute on this machine. A throw-away server and proxy, a real Flask
//! app, a steady load; two deployments, a broken one, a rollback; then the figures, and nothing left behind.
//!
//! Ends with an error if a single request failed.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle_model::EngineKind;
use coracle_tests::engine::docker_answers;
use coracle_tests::{App, Breakage, Env, Report, RunningLoad, memory};

/// Requests a second.
const RATE: u32 = 200;

#[tokio::main]
async fn main() -> ExitCode {
    let (engine, why) = engine();
    println!("\nCoracle, on this machine\n");
    row("engine", &format!("{engine}: {why}"));
    let env = Env::start(engine).await;
    row("server", &format!("a throw-away one; its proxy listens on {}", env.address()));
    let report = story(&env).await;
    figures(&env, &report);
    env.leaves_nothing().await;
    row("left behind", "nothing");
    println!();
    if report.failed_count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The engine, and why it. `scripts/demo` knows better than this program whether images can be had.
fn engine() -> (EngineKind, String) {
    let asked = std::env::var("DEMO_ENGINE").ok().filter(|name| !name.is_empty());
    let why = std::env::var("DEMO_WHY").ok().filter(|why| !why.is_empty());
    match asked.map(|name| name.parse().unwrap()) {
        Some(engine) => (engine, why.unwrap_or_else(|| "because DEMO_ENGINE says so".to_owned())),
        None if docker_answers() => (EngineKind::Docker, "its socket answers".to_owned()),
        None => (EngineKind::Process, "no Docker answers, and none is needed".to_owned()),
    }
}

async fn story(env: &Env) -> Report {
    let shop = env.app("flask");
    row("app", "examples/flask: Flask and gunicorn");
    println!();

    step("deploy v1", async || {
        shop.deploy("v1").await;
        shop.get("/").await.body
    })
    .await;
    let load = shop.load(RATE).start();
    println!("     from here on {RATE} requests a second, one in ten of them a POST\n");

    changed_line(&shop, &load).await;
    let mut broken = None;
    step("deploy a v3 that is broken", async || {
        broken = Some(shop.deploy_broken("v3", Breakage::ExitsAtStart).await);
        shop.get("/").await.body
    })
    .await;
    for line in broken.iter().flat_map(|deployed| deployed.stderr.lines()) {
        // A traceback has many lines; its end is what tells.
        if !line.trim_start().starts_with('│') || line.contains(Breakage::ExitsAtStart.evidence()) {
            println!("       {line}");
        }
    }
    step("roll back", async || {
        shop.coracle(&["rollback"]).await.succeeds();
        shop.get("/").await.body
    })
    .await;
    println!();
    shop.settles().await;
    load.stop().await
}

async fn changed_line(shop: &App, load: &RunningLoad) {
    let typed = load.elapsed();
    step("change one line, deploy v2", async || {
        shop.deploy("v2").await;
        shop.get("/").await.body
    })
    .await;
    let first = load.so_far().first("from v2").map(|first| first.saturating_sub(typed));
    if let Some(first) = first {
        println!("       the new version answered {:.2} s after `coracle deploy` was typed", first.as_secs_f64());
    }
}

/// Does something, and says what, how long it took and what the app answers now.
async fn step(what: &str, doing: impl AsyncFnOnce() -> String) {
    let begun = Instant::now();
    let answer = doing().await;
    println!("  {what:<28} {:>6.2} s   now: {}", begun.elapsed().as_secs_f64(), answer.trim());
}

fn figures(env: &Env, report: &Report) {
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    row("requests", &format!("{} answered, {} failed", report.succeeded(), report.failed_count()));
    let (median, p99) = (millis(report.latency(0.5)), millis(report.latency(0.99)));
    row("latency", &format!("median {median:.1} ms, p99 {p99:.1} ms, longest {:.1} ms", millis(report.latency(1.0))));
    let megabytes = |pid| memory::resident(pid) as f64 / 1e6;
    let proxy = env.belongings().proxy().map_or(0.0, megabytes);
    row("memory", &format!("server {:.0} MB, proxy {proxy:.0} MB", megabytes(env.server_pid())));
    if report.failed_count() > 0 {
        println!("\n{report}");
    }
}

fn row(name: &str, text: &str) {
    println!("  {name:<12} {text}");
}

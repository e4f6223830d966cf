//! `make bench-push`: what a changed line costs when it is pushed with git, beside `coracle deploy` of the same change to the
//! same app, on both engines, over HTTP and over SSH; and how long a step of the pipeline that nothing keeps from running waits
//! for its start, beside a bare container (`docker run`) or bare namespaces (`unshare`) that run the same.
//!
//! The last line is `RESULT {json}`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::time::Instant;

use coracle_benches::floor::answers;
use coracle_benches::options::number;
use coracle_benches::rounds::Rounds;
use coracle_benches::scoreboard::{Goal, Scoreboard};
use coracle_model::EngineKind;
use coracle_tests::engine::docker_answers;
use coracle_tests::ssh::Key;
use coracle_tests::{App, Env, Settings};

/// How many seconds a push may take beyond a deployment.
const BEYOND: f64 = 0.4;

#[tokio::main]
async fn main() {
    let mut board = Scoreboard::default();
    if docker_answers() {
        compare(EngineKind::Docker, &mut board).await;
    } else {
        println!("docker: no Docker answers, so it is left out");
    }
    compare(EngineKind::Process, &mut board).await;
    println!("\n{board}");
    println!("RESULT {}", board.json());
}

/// Seconds within which a step starts.
const START: f64 = 0.5;

/// A step in what was built; one in an image of its own; then two at once.
const STEPS: [&str; 4] = ["inside", "own", "left", "right"];

/// How a change is brought to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Ssh,
    Deploy,
}

/// An app, brought there in each way in turn.
struct Contest {
    env: Env,
    shop: App,
    ssh: String,
}

/// One-line changes; who begins changes from round to round.
async fn compare(engine: EngineKind, board: &mut Scoreboard) {
    let contest = Contest::prepare(engine).await;
    let (mut http, mut ssh) = (Rounds::default(), Rounds::default());
    let mut ways = [Way::Http, Way::Ssh, Way::Deploy];
    for round in 0..=number("ROUNDS", 9) {
        ways.rotate_left(1);
        let mut took = Vec::new();
        for way in ways {
            took.push((way, contest.change(way, &format!("round-{round}-{way:?}")).await));
        }
        let of = |wanted| took.iter().find(|(way, _)| *way == wanted).unwrap().1;
        println!(
            "{engine} {round}: push {:.3} s, over SSH {:.3} s, deploy {:.3} s",
            of(Way::Http),
            of(Way::Ssh),
            of(Way::Deploy)
        );
        // The first warms the caches of all.
        if round > 0 {
            http.add(of(Way::Http), of(Way::Deploy));
            ssh.add(of(Way::Ssh), of(Way::Deploy));
        }
    }
    let goal = Goal::OverAtMost(BEYOND);
    board.add(&format!("push_{engine}"), "s from `git push` to the answer; `coracle deploy`", http, goal);
    board.add(&format!("push_{engine}_ssh"), "the same over SSH; `coracle deploy`", ssh, goal);
    contest.starts(board).await;
    contest.env.leaves_nothing().await;
}

impl Contest {
    async fn prepare(engine: EngineKind) -> Self {
        let arguments = ["--api-tcp", "127.0.0.1:0", "--ssh", "127.0.0.1:0"].map(str::to_owned).to_vec();
        let env = Env::prepare(Settings { arguments, ..Settings::of(engine) });
        env.start_server().await;
        let shop = env.app("flask");
        shop.becomes_a_repository(&env).await;
        let key: Key = env.person("ana", "deployer", "shop").await;
        shop.uses_key(&env, &key).await;
        let ssh = env.ssh_url("shop").await;
        Self { env, shop, ssh }
    }

    /// Seconds from what is typed to the first answer of the new version. What goes on after the switch (watching, draining) is
    /// no part of the figure, but ends before the next change.
    async fn change(&self, way: Way, version: &str) -> f64 {
        let Self { env, shop, ssh } = self;
        shop.tree.version(version);
        shop.commits(env, version).await;
        let begun = Instant::now();
        let (address, host) = (env.address(), shop.host());
        let answering = async {
            answers(address, &host, version).await;
            begun.elapsed().as_secs_f64()
        };
        let bringing = async {
            match way {
                Way::Http => {
                    shop.push(env, &["main"]).await.succeeds();
                }
                Way::Ssh => {
                    shop.git(env, &["push", ssh, "main"]).await.succeeds();
                }
                Way::Deploy => {
                    shop.begin_deploy().end().await.succeeds();
                }
            }
        };
        tokio::join!(answering, bringing).0
    }

    /// What steps wait for once they are ready.
    async fn starts(&self, board: &mut Scoreboard) {
        let Self { env, shop, .. } = self;
        let engine = env.engine();
        for (name, needs) in STEPS.into_iter().zip(["[]", "[\"inside\"]", "[\"own\"]", "[\"own\"]"]) {
            let image = if engine == EngineKind::Docker && name != "inside" { "image = \"python:3.11-slim\"\n" } else { "" };
            shop.tree
                .manifest(&format!("pipeline.steps.{name}"), &format!("{image}run = \"true\"\nneeds = {needs}\nalways = true"));
        }
        let (mut one, mut two) = (Rounds::default(), Rounds::default());
        for round in 0..=number("ROUNDS", 9) {
            shop.deploy(&format!("steps-{round}")).await.succeeds();
            let runs = env.client().pipeline_runs(&shop.name).await.unwrap();
            let run = env.client().pipeline_run(runs.first().unwrap().id).await.unwrap();
            let waited = |name: &str| {
                let step = run.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step {name}: {run:?}"));
                step.waited_ms.unwrap_or_else(|| panic!("{name} did not start: {run:?}")) as f64 / 1e3
            };
            let [inside, own, left, right] = STEPS.map(waited);
            let (bare, both) = (bare(engine).await, async { tokio::join!(bare(engine), bare(engine)) }.await);
            println!(
                "{engine} {round}: steps start after {inside:.3} and {own:.3} s, two at once after {left:.3} and {right:.3} s"
            );
            if round > 0 {
                one.add(inside.max(own), bare);
                two.add(left.max(right), both.0.max(both.1));
            }
        }
        let goal = Goal::AtMost(START);
        board.add(
            &format!("step_{engine}"),
            "s from ready to started, the slower of two kinds; a bare one to its end",
            one,
            goal,
        );
        board.add(&format!("step_{engine}_two"), "the same for two at once, the slower one; two bare ones", two, goal);
    }
}

/// Seconds that a program takes to its end which does nothing, as bare as its engine has it.
async fn bare(engine: EngineKind) -> f64 {
    let begun = Instant::now();
    let words: &[&str] = match engine {
        EngineKind::Docker => &["docker", "run", "--rm", "python:3.11-slim", "true"],
        EngineKind::Process => &["unshare", "--user", "--pid", "--mount", "--net", "--ipc", "--fork", "true"],
    };
    let ended = tokio::process::Command::new(words[0]).args(&words[1..]).status().await.unwrap();
    assert!(ended.success(), "{words:?}: {ended}");
    begun.elapsed().as_secs_f64()
}

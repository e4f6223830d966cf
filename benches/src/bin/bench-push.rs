//! `make bench-push`: what a changed line costs when it is pushed with git, beside `coracle deploy` of the same change to the
//! same app, on both engines, over HTTP and over SSH.
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
}

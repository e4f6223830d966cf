//! PyRunner as an app: as a process that confines its programs by itself (examples/pyrunner-deploy), and as a compose project
//! with PostgreSQL (examples/pyrunner-compose).

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::browser::{self, Answer};
use coracle_tests::engine::{can_tell, can_tell_as_root};
use coracle_tests::{App, Env, eventually, program};
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::compose::with_docker;

/// How long sandboxes may take to be there, on a machine that has other things to do.
const READY: Duration = Duration::from_secs(60);
/// How many people execute something at any time.
const CALLERS: usize = 4;

/// The example with the program in it, as `make pyrunner` leaves it, open to as many calls as come.
async fn example(env: &Env, name: &str) -> App {
    let app = env.app(name);
    let stripped = app.tree.path().join("pyrunner");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(program::pyrunner()).stdin(Stdio::null()).status().await;
    assert!(strip.unwrap().success(), "strip does not work");
    app.coracle(&["config", "set", "PYRUNNER_RATE=0"]).await.succeeds();
    app
}

/// Where to ask for it, and under which name.
#[derive(Debug, Clone)]
struct Door {
    address: SocketAddr,
    host: String,
}

impl Door {
    fn of(env: &Env, app: &App) -> Self {
        Self { address: env.address(), host: app.host() }
    }
}

async fn post(door: &Door, code: &str) -> Answer {
    let body = ("application/json", json!({ "code": code }).to_string().into());
    browser::send(door.address, &door.host, Method::POST, "/execute", body).await.unwrap()
}

async fn execute(door: &Door, code: &str) -> Value {
    let answer = post(door, code).await;
    answer.has_status(200);
    serde_json::from_str(&answer.body).unwrap()
}

async fn until_it_executes(door: &Door) {
    eventually("it executes", READY, async || {
        let answer = post(door, "print(6 * 7)").await;
        if answer.body.contains("42\\n") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// People who execute one program after the other, each of which takes a while, until they are told to stop.
struct Callers {
    stop: CancellationToken,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Callers {
    fn start(door: &Door) -> Self {
        let (stop, done) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let caller = |number: usize| {
            let (door, stop, done) = (door.clone(), stop.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.is_cancelled() {
                    let word = format!("{number}-{round}");
                    let result = execute(&door, &format!("import time\ntime.sleep(0.2)\nprint('{word}')")).await;
                    assert_eq!(result["stdout"], format!("{word}\n"), "{result}");
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
            })
        };
        let tasks = (0..CALLERS).map(caller).collect();
        Self { stop, done, tasks }
    }

    /// Waits until each of them may have executed something more.
    async fn go_on(&self) {
        let wanted = self.done.load(Ordering::Relaxed) + 2 * CALLERS;
        eventually("callers are answered", READY, async || match self.done.load(Ordering::Relaxed) {
            done if done >= wanted => Ok(()),
            done => Err(format!("{done} of {wanted}")),
        })
        .await;
    }

    /// Panics if one of them was not answered as it should be. Answers how many executions there were.
    async fn stop(self) -> usize {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// What happens to a running PyRunner while people use it: another release, one that is broken, and back.
async fn lives_through_releases(door: &Door, app: &App) {
    let callers = Callers::start(door);
    callers.go_on().await;
    app.coracle(&["config", "set", "PYRUNNER_SLOTS=4"]).await.succeeds();
    callers.go_on().await;
    // A setting that it does not understand: it never becomes ready, and the release before serves on.
    app.coracle(&["config", "set", "PYRUNNER_SLOTS=many"]).await.fails().says("many");
    callers.go_on().await;
    app.coracle(&["rollback"]).await.succeeds();
    callers.go_on().await;
    let executed = callers.stop().await;
    assert!(executed >= 8 * CALLERS, "{executed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_confines_programs_within_its_own_confinement_and_loses_no_execution() {
    if !can_tell(EngineKind::Process, "pyrunner::process") || !can_tell_as_root("pyrunner::process") {
        return;
    }
    let env = Env::start(EngineKind::Process).await;
    let app = example(&env, "pyrunner-deploy").await;
    app.deploy_as_it_is().await.succeeds();
    let door = Door::of(&env, &app);
    until_it_executes(&door).await;
    // A program is held by its own limits, not by those of the app.
    let result = execute(&door, "x = bytearray(400 << 20)").await;
    assert_eq!((result["status"].as_str(), result["reason"].as_str()), (Some("error"), Some("oom")), "{result}");
    let result = execute(&door, "import os\nprint(sorted(p for p in os.listdir('/proc') if p.isdigit()))").await;
    assert_eq!(result["stdout"], "['2']\n", "its parent is not its to see: {result}");
    lives_through_releases(&door, &app).await;
    app.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_compose_project_its_history_is_in_a_database_that_outlives_releases() {
    let Some(env) = with_docker("pyrunner::compose").await else { return };
    let app = example(&env, "pyrunner-compose").await;
    let files = ["-f", "compose.yml", "-f", "compose.prebuilt.yml"];
    app.deploy_with(&files).await.succeeds();
    let door = Door::of(&env, &app);
    until_it_executes(&door).await;
    let id = execute(&door, "print('remembered')").await["id"].as_str().unwrap().to_owned();
    lives_through_releases(&door, &app).await;
    eventually("the history has it", READY, async || {
        let answer = app.get(&format!("/executions/{id}")).await;
        if answer.body.contains("remembered") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    app.settles().await;
    env.leaves_nothing().await;
}

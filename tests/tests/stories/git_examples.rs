//! Every example, brought by `git push` alone: the first push makes the app, a changed line replaces it under load, and what
//! does not start is refused while the old one serves.

use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::engine::{can_tell, docker, skip};
use coracle_tests::{App, Env, eventually};

/// How long what keeps data may take to be ready.
const FIRST_START: Duration = Duration::from_secs(90);

/// One example, and how it is known to be there.
struct Example {
    folder: &'static str,
    /// Beneath the address of the app.
    page: &'static str,
    /// What the page says at first, and after the change.
    says: (&'static str, &'static str),
    /// The file with the line that is changed.
    file: &'static str,
    /// The line, and what becomes of it.
    change: (&'static str, &'static str),
    /// What is changed so that it cannot start, and what the refusal names.
    mistake: Option<(&'static str, &'static str, &'static str)>,
}

const PYTHON: (&str, &str) = ("VERSION = \"v1\"", "VERSION = \"v2\"");
/// A syntax error, and how Python tells of it.
const UNCLOSED: &str = "VERSION = (\"v2\"";

const fn python(folder: &'static str, file: &'static str, says: (&'static str, &'static str)) -> Example {
    Example { folder, page: "/", says, file, change: PYTHON, mistake: Some((PYTHON.1, UNCLOSED, "SyntaxError")) }
}

const FLASK: Example = python("flask", "shop.py", ("from v1", "from v2"));
const WEBSOCKET: Example = Example {
    change: ("<h1>Parrot</h1>", "<h1>Grey parrot</h1>"),
    mistake: Some((PYTHON.0, UNCLOSED, "SyntaxError")),
    ..python("websocket", "parrot.py", ("<h1>Parrot</h1>", "<h1>Grey parrot</h1>"))
};
const WORKER: Example = python("worker", "kitchen.py", ("\"version\":\"v1\"", "\"version\":\"v2\""));
const BARE_FLASK: Example = python("no-dockerfile/flask", "app.py", ("v1 by gunicorn/", "v2 by gunicorn/"));
const DJANGO: Example = python("no-dockerfile/django", "shop/urls.py", ("v1 with", "v2 with"));
const NODE: Example = Example {
    change: ("VERSION = \"v1\"", "VERSION = \"v2\""),
    mistake: Some(("VERSION = \"v2\"", "VERSION = (\"v2\"", "SyntaxError")),
    ..python("no-dockerfile/node", "server.js", ("v1 ...hello", "v2 ...hello"))
};
const STATIC: Example = Example {
    folder: "static",
    page: "/",
    says: ("Light v1", "Light v2"),
    file: "public/index.html",
    change: ("Light v1", "Light v2"),
    mistake: None,
};
const EXAMIST: Example = Example { page: "/api/version", mistake: None, ..python("examist", "server/init.py", ("v1", "v2")) };
const COURSE: Example = python("course", "course.py", ("v1", "v2"));
const SITE: Example = Example {
    folder: "heroku/site",
    page: "/",
    says: ("never changes", "has changed"),
    file: "public/index.html",
    change: ("never changes", "has changed"),
    mistake: None,
};

/// A repository of the example, not pushed yet.
async fn repository(env: &Env, example: &Example) -> App {
    let app = env.app(example.folder);
    app.becomes_a_repository(env).await;
    app
}

/// The first push, a changed line, and one that is wrong.
async fn is_pushed(env: &Env, app: &App, example: &Example) {
    let Example { page, says, file, change, mistake, .. } = example;
    app.push(env, &["main"]).await.succeeds().says("is live at http");
    eventually("the first release says so", FIRST_START, async || match app.get(page).await {
        answer if answer.body.contains(says.0) => Ok(()),
        answer => Err(format!("{answer:?}")),
    })
    .await;
    let load = app.load(20).only_get().of_page(page).start();
    app.tree.change(file, change.0, change.1);
    app.commits(env, "one line").await;
    app.push(env, &["main"]).await.succeeds();
    app.get(page).await.says(says.1);
    let live = app.head(env).await;
    if let Some((from, to, cause)) = mistake {
        app.tree.change(file, from, to);
        app.commits(env, "a bracket is missing").await;
        app.push(env, &["main"]).await.fails().says("[remote rejected] main -> main (").says(cause);
        app.get(page).await.says(says.1);
    }
    load.stop().await.lost_nothing();
    assert_eq!(app.remote_ref(env, "refs/heads/main").await, Some(live));
    app.settles().await;
}

async fn all_are_pushed(engine: EngineKind, story: &str, examples: &[&Example]) {
    if !can_tell(engine, story) {
        return;
    }
    let env = Env::start_for_pushes(engine).await;
    for example in examples {
        let app = repository(&env, example).await;
        if example.page == "/" && app.tree.path().join("coracle.toml").exists() {
            // What cannot start need not be waited for long.
            app.tree.manifest("deploy", "timeout = \"8s\"");
            app.commits(&env, "impatient").await;
        }
        if app.tree.path().ends_with("django") {
            app.coracle(&["config", "set", "DJANGO_SECRET_KEY=s3cret"]).await.succeeds();
        }
        is_pushed(&env, &app, example).await;
    }
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_are_pushed_on_processes() {
    all_are_pushed(EngineKind::Process, "git_examples on process", &[&FLASK, &STATIC, &WEBSOCKET, &WORKER, &BARE_FLASK]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_with_and_without_a_dockerfile_are_pushed_on_docker() {
    all_are_pushed(EngineKind::Docker, "git_examples on docker", &[&FLASK, &BARE_FLASK, &DJANGO]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_pushed_on_docker() {
    const STORY: &str = "git_examples: node";
    if docker(&["image", "inspect", "node:18-slim"]).await.is_err() {
        skip(STORY, "there is no node:18-slim; make it with scripts/base-images node:18-slim");
        return;
    }
    all_are_pushed(EngineKind::Docker, STORY, &[&NODE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_files_are_pushed_as_they_are() {
    all_are_pushed(EngineKind::Docker, "git_examples: compose", &[&EXAMIST, &COURSE, &SITE]).await;
}

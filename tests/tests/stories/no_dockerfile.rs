//! examples/no-dockerfile: an app is its source, and Coracle finds out the rest, by the same rules on both engines.

use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::engine::{docker, skip};
use coracle_tests::{Deployed, Env, eventually};

use crate::compose::with_docker;

/// What pip and npm say when they install something.
const INSTALLING: [&str; 3] = ["Collecting", "Successfully installed", "added "];

/// Packages were taken as they were.
#[track_caller]
fn installed_nothing(deployed: &Deployed) {
    let installing = deployed.lines.iter().find(|line| INSTALLING.iter().any(|sign| line.contains(sign)));
    assert!(installing.is_none(), "something was installed anew: {installing:?}\n{deployed}");
}

/// A line of the deployment says this.
#[track_caller]
fn told(deployed: &Deployed, text: &str) {
    assert!(deployed.lines.iter().any(|line| line.contains(text)), "nobody said {text:?}\n{deployed}");
}

on_both_engines! {
    async fn flask_is_served_by_gunicorn_which_it_does_not_bring(env: Env) {
        let flask = env.app("no-dockerfile/flask");
        let deployed = flask.deploy_as_it_is().await;
        deployed.succeeds();
        told(&deployed, "gunicorn==27.0.1 is added");
        let page = flask.get("/").await;
        page.says("v1 by gunicorn/");
        if env.engine() == EngineKind::Docker {
            page.says("user 10001");
        }
        installed_nothing(&flask.deploy("v2").await);
        flask.get("/").await.says("v2 by gunicorn/");

        // What can be known beforehand is told before anything is built, and the old release goes on.
        for (file, text, cause) in [
            ("runtime.txt", "python-2.7.18\nRUN curl evil\n", "runtime.txt asks for Python"),
            ("uv.lock", "", "there is uv.lock, but no pyproject.toml"),
        ] {
            flask.tree.write(file, text);
            flask.deploy_as_it_is().await.fails().shows(cause);
            flask.tree.remove(file);
        }
        flask.tree.write("poetry.lock", "").write("Pipfile.lock", "{}");
        flask.deploy_as_it_is().await.fails().shows("poetry.lock (Poetry) and Pipfile.lock (Pipenv)");
        flask.tree.remove("poetry.lock").remove("Pipfile.lock").remove("app.py");
        flask.deploy_as_it_is().await.fails().shows("nothing says how to run it");
        flask.get("/").await.says("v2");
        flask.settles().await;
        env.leaves_nothing().await;
    }

    async fn django_has_its_static_files_gathered_without_its_secret(env: Env) {
        let django = env.app("no-dockerfile/django");
        django.coracle(&["config", "set", "DJANGO_SECRET_KEY=the-real-one"]).await.succeeds();
        let deployed = django.deploy_as_it_is().await;
        deployed.succeeds();
        told(&deployed, "static file copied");
        assert!(!deployed.to_string().contains("the-real-one"), "{deployed}");
        django.get("/").await.says("v1 with style.css");
        django.tree.change("shop/urls.py", "VERSION = \"v1\"", "VERSION = \"v2\"");
        django.deploy_as_it_is().await.succeeds();
        django.get("/").await.says("v2 with style.css");
        env.leaves_nothing().await;
    }
}

/// The text that is printed is the one that is built: kept as the app's own, every step of it is there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dockerfile_that_is_printed_is_the_one_that_was_built() {
    let Some(env) = with_docker("no_dockerfile::printed").await else { return };
    let flask = env.app("no-dockerfile/flask");
    // A path of health, so that nobody has to wait for the image's own check.
    flask
        .tree
        .write("coracle.toml", "app = \"flask\"\n\n[http]\nhealth = \"/\"\n")
        .write("Procfile", "web: gunicorn app:app\nidle: sleep 1000\n");
    flask.deploy_as_it_is().await.succeeds();
    let printed = flask.coracle(&["init", "--dockerfile"]).await;
    printed.succeeds().says("FROM python:3.11-slim").says("CMD [\"gunicorn\",\"app:app\"]").says("gunicorn==27.0.1");
    flask.coracle(&["init", "--dockerfile", "--write"]).await.succeeds().says("wrote Dockerfile");
    assert_eq!(flask.tree.read("Dockerfile").trim_end(), printed.stdout.trim_end());
    flask.coracle(&["init", "--dockerfile"]).await.fails().says("built from its own Dockerfile");
    let deployed = flask.deploy("v2").await;
    told(&deployed, "found Dockerfile");
    installed_nothing(&deployed);
    let page = flask.get("/").await;
    page.says("v2 by gunicorn/");
    page.says("user 10001");
    let web = container_of(&env, "web");
    eventually("the image's own check passes", Duration::from_secs(60), async || {
        let health = docker(&["inspect", "--format", "{{.State.Health.Status}}", &web]).await.unwrap();
        if health.trim() == "healthy" { Ok(()) } else { Err(health) }
    })
    .await;
    env.leaves_nothing().await;
}

/// Go and Rust: compiled in the image that has the toolchain, run in one that has neither it nor the source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiled_programs_leave_their_toolchain_behind() {
    const STORY: &str = "no_dockerfile::compiled";
    let Some(env) = with_docker(STORY).await else { return };
    for (language, image, source, versions) in [
        ("go", "golang:1.19-bookworm", "main.go", ["version = \"v1\"", "version = \"v2\""]),
        ("rust", "rust:1-slim-bookworm", "src/main.rs", ["VERSION: &str = \"v1\"", "VERSION: &str = \"v2\""]),
    ] {
        if docker(&["image", "inspect", image]).await.is_err() {
            skip(STORY, &format!("there is no {image}; make it with scripts/base-images {image}"));
            continue;
        }
        let lamp = env.app(&format!("no-dockerfile/{language}"));
        lamp.deploy_as_it_is().await.succeeds();
        let load = lamp.load(30).only_get().start();
        let page = lamp.get("/").await;
        page.says("v1 by ");
        if language == "go" {
            page.says("user 10001, source true");
        }
        let has_compiler = lamp.coracle(&["run", "--", "sh", "-c", "command -v go cargo rustc || echo none"]).await;
        has_compiler.succeeds().says("none");
        lamp.tree.change(source, versions[0], versions[1]);
        let deployed = lamp.deploy_as_it_is().await;
        deployed.succeeds();
        let fetching = deployed.lines.iter().find(|line| line.contains("Downloading") || line.contains("Downloaded"));
        assert!(fetching.is_none(), "something was fetched anew: {fetching:?}\n{deployed}");
        lamp.get("/").await.says("v2 by ");
        load.stop().await.lost_nothing();
    }
    env.leaves_nothing().await;
}

/// The container of a process of the active release.
fn container_of(env: &Env, process: &str) -> String {
    let containers = env.belongings().containers;
    let found = containers.iter().rfind(|name| name.contains(&format!(".{process}.")));
    found.unwrap_or_else(|| panic!("no container of {process} among {containers:?}")).clone()
}

/// npm, a build script, and development dependencies that stay behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_built_with_what_it_does_not_run_with() {
    const STORY: &str = "no_dockerfile::node";
    let Some(env) = with_docker(STORY).await else { return };
    if docker(&["image", "inspect", "node:18-slim"]).await.is_err() {
        skip(STORY, "there is no node:18-slim; make it with scripts/base-images node:18-slim");
        return;
    }
    let node = env.app("no-dockerfile/node");
    node.deploy_as_it_is().await.succeeds();
    node.get("/").await.says("v1 ...hello 1000 ms, user 1000, development absent");
    node.tree.change("server.js", "VERSION = \"v1\"", "VERSION = \"v2\"");
    let deployed = node.deploy_as_it_is().await;
    deployed.succeeds();
    installed_nothing(&deployed);
    node.get("/").await.says("v2 ...hello");
    node.tree.write("yarn.lock", "");
    node.deploy_as_it_is().await.fails().shows("package-lock.json (npm) and yarn.lock (yarn)");
    node.tree.remove("yarn.lock").change("package.json", "node server.js", "nodemon server.js");
    node.deploy_as_it_is().await.fails().shows("development server (nodemon)");
    node.get("/").await.says("v2");
    env.leaves_nothing().await;
}

//! `[policy]`: what is wrong with a release is told, and what must not serve does not.

use coracle_model::EngineKind;
use coracle_tests::env::Settings;
use coracle_tests::{App, Deployed, Env};

use crate::compose::with_docker;

/// A line of the deployment says this.
#[track_caller]
fn told(deployed: &Deployed, text: &str) {
    assert!(deployed.lines.iter().any(|line| line.contains(text)), "nobody said {text:?}\n{deployed}");
}

/// And this none.
#[track_caller]
fn silent(deployed: &Deployed, text: &str) {
    assert!(!deployed.lines.iter().any(|line| line.contains(text)), "somebody said {text:?}\n{deployed}");
}

/// The shop with a Dockerfile of its own that has everything against it but what ends a deployment.
fn careless_shop(env: &Env) -> App {
    let shop = env.app("flask");
    shop.tree.write("Dockerfile", DOCKERFILE).remove(".dockerignore");
    shop
}

const DOCKERFILE: &str = "FROM python:3.11-slim\nWORKDIR /app\nCOPY requirements.txt .\n\
    RUN pip install --no-cache-dir -q -r requirements.txt\nCOPY . .\nARG BUILD_TOKEN\nRUN test -n \"$BUILD_TOKEN\" || true\n\
    CMD [\"sh\", \"-c\", \"exec python shop.py\"]\n";

/// The value of a secret of the app's own configuration.
const VALUE: &str = "zq7-Unmistakable-0415";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_once_and_what_must_not_serve_does_not() {
    let Some(env) = with_docker("policy::docker").await else { return };
    let shop = careless_shop(&env);
    shop.coracle(&["config", "set", &format!("BUILD_TOKEN={VALUE}")]).await.succeeds();
    let planned = shop.coracle(&["deploy", "--plan"]).await;
    planned.succeeds().says("warning: root: its Dockerfile says no USER").says("nothing was changed");

    let first = shop.deploy("v1").await;
    first.succeeds();
    told(&first, "warning: root: its image runs as root (Dockerfile:1)");
    told(&first, "warning: ignore: it copies everything into the image");
    told(&first, "silence: [policy] root = { level = \"off\"");
    // Told once.
    let second = shop.deploy("v2").await;
    second.succeeds();
    silent(&second, "warning: root");
    told(&second, "as before (");

    // Silenced is silent, and blocked is blocked.
    let load = shop.load(50).start();
    shop.tree.manifest("policy", "root = \"block\"");
    shop.tree.version("v3");
    let refused = shop.deploy_as_it_is().await;
    refused.fails().shows("blocked by the policy: root: its image runs as root");
    shop.get("/").await.says("from v2");
    shop.tree.change("coracle.toml", "root = \"block\"", "root = { level = \"off\", reason = \"it is a test\" }");
    let third = shop.deploy("v4").await;
    third.succeeds();
    silent(&third, "warning: root");

    // A secret of the configuration that is built in ends the deployment, and is not repeated anywhere.
    shop.tree.manifest("build.args", &format!("BUILD_TOKEN = \"{VALUE}\""));
    shop.tree.version("v5");
    let refused = shop.deploy_as_it_is().await;
    refused.fails().shows("secret-in-image: the value of BUILD_TOKEN, of the app's own configuration, stands in its history");
    refused.shows("Dockerfile:6");
    assert!(!refused.to_string().contains(VALUE), "{refused}");
    assert!(!env.server_log().contains(VALUE));
    shop.get("/").await.says("from v4");
    load.stop().await.lost_nothing();
    shop.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_cannot_loosen_what_its_server_holds_it_to() {
    let engine = EngineKind::Process;
    if !coracle_tests::engine::can_tell(engine, "policy::server") {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let policy = files.path().join("policy.toml");
    std::fs::write(&policy, "development-server = { level = \"block\", reason = \"house rule\" }\n").unwrap();
    let mut settings = Settings::of(engine);
    settings.arguments.extend(["--policy".to_owned(), policy.display().to_string()]);
    let env = Env::prepare(settings);
    env.start_server().await;
    let shop = env.app("flask");
    shop.deploy("v1").await.succeeds();
    let load = shop.load(50).start();
    shop.tree.write("Procfile", "web: python -m flask --app shop run --port $PORT\n");
    shop.tree.manifest("policy", "development-server = \"off\"");
    shop.tree.version("v2");
    let refused = shop.deploy_as_it_is().await;
    refused.fails().shows("development-server: flask run is a server for development (Procfile:1)");
    refused.shows("only the administrator of this server can");
    shop.get("/").await.says("from v1");
    load.stop().await.lost_nothing();
    let said = shop.coracle(&["policy", "--json"]).await;
    said.succeeds().says("\"rule\": \"development-server\"").says("\"level\": \"off\"");
    env.leaves_nothing().await;
}

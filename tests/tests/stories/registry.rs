//! Images from and to a registry that asks for a password over TLS, and one app that takes over what another runs.

use coracle_model::EngineKind;
use coracle_tests::engine::docker;
use coracle_tests::registry::{PASSWORD, Registry, USER, typed};
use coracle_tests::{App, Deployed, Env, Load, browser};
use http::Method;

use crate::compose::with_docker;

/// The smallest shop: what it says is in a file, and with a word it ends, well or badly.
const SHOP: &str = r#"
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char page[200], in[9000];

int main(int count, char **words) {
    if (count > 1) return words[1][0] == 'f';
    signal(SIGCHLD, SIG_IGN);
    signal(SIGTERM, (void (*)(int))_exit);
    int door = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(8080)};
    if (bind(door, (void *)&place, sizeof place) || listen(door, 128)) return 2;
    FILE *file = fopen("/version", "r");
    if (!file || !fgets(page, sizeof page, file)) return 3;
    for (;;) {
        int guest = accept(door, 0, 0);
        if (guest < 0 || fork()) { close(guest); continue; }
        ssize_t had = 0, more;
        while (!strstr(in, "\r\n\r\n") && (more = read(guest, in + had, sizeof in - 1 - had)) > 0) had += more;
        dprintf(guest, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(page), page);
        shutdown(guest, SHUT_WR);
        while (read(guest, in, sizeof in) > 0);
        _exit(0);
    }
}
"#;

/// A shop whose image is small enough to be pushed around.
async fn small_shop(env: &Env) -> App {
    let shop = env.app("flask");
    shop.tree.remove("Procfile").write("shop.c", SHOP);
    shop.tree.write("Dockerfile", "FROM scratch\nCOPY web version /\nEXPOSE 8080\nCMD [\"/web\"]\n");
    let place = shop.tree.path();
    let mut compiling = tokio::process::Command::new("cc");
    compiling.args(["-static", "-Os", "-o"]).arg(place.join("web")).arg(place.join("shop.c"));
    assert!(compiling.status().await.unwrap().success());
    shop
}

async fn deploys(shop: &App, version: &str) -> Deployed {
    shop.tree.write("version", format!("Hello from {version}\n"));
    let deployed = shop.deploy_as_it_is().await;
    deployed.succeeds();
    deployed
}

/// What a page of an app says.
pub(crate) async fn page(env: &Env, app: &str) -> String {
    let answer = browser::ask(env.address(), &format!("{app}.localhost"), Method::GET, "/", String::new()).await;
    answer.unwrap_or_else(|error| panic!("{app}: {error:#}\n{}", env.server_log())).body
}

/// The images of an app's releases in the registry, oldest first.
async fn images(env: &Env, app: &str) -> Vec<Option<String>> {
    let releases = env.client().releases(&app.parse().unwrap()).await.unwrap();
    releases.into_iter().map(|release| release.image).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_deployed_elsewhere_and_comes_back_by_its_digest() {
    let Some(registry) = Registry::start("registry::pushed").await else { return };
    let host = registry.host.as_str();
    let (here, there) = (Env::start(EngineKind::Docker).await, Env::start(EngineKind::Docker).await);
    let shop = small_shop(&here).await;
    let repository = format!("{host}/team/shop");
    shop.tree.manifest("registry", &format!("push = \"{repository}\"")).manifest("deploy", "watch = \"100ms\"");

    // Without a login, nothing goes live.
    shop.tree.write("version", "Hello from v0\n");
    let deployed = shop.deploy_as_it_is().await;
    deployed.fails().shows("push failed: cannot push").shows("coracle registry login");
    assert_eq!(shop.active().await, None);

    // A login is tried before it is kept.
    let login = |words: &[&str]| {
        let words: Vec<&str> =
            ["registry", "login", host, "--username", USER, "--password-stdin"].iter().chain(words).copied().collect();
        here.command(&words)
    };
    typed(login(&[]), "guessed").await.is_refused().says("does not take this name and password; nothing was kept");
    here.coracle(&["registry"]).await.succeeds().says("no registry is logged in to");
    typed(login(&["-a", "shop"]), PASSWORD).await.succeeds().says("kept for shop");
    here.coracle(&["registry", "list", "-a", "shop"]).await.succeeds().says(host).says(USER);

    let deployed = deploys(&shop, "v1").await;
    assert!(deployed.lines.iter().any(|line| line.contains("pushing to the registry")), "{deployed}");
    let first = registry.digest_of("team/shop", "latest").unwrap();
    assert_eq!(images(&here, "shop").await, [Some(format!("{repository}@{first}"))]);
    shop.coracle(&["releases"]).await.succeeds().says(&first[..19]);
    // A release that does not go live moves nothing.
    shop.tree.change("Dockerfile", "[\"/web\"]", "[\"/web\", \"fail\"]");
    shop.deploy_as_it_is().await.fails();
    shop.tree.change("Dockerfile", ", \"fail\"", "");
    assert_eq!(registry.digest_of("team/shop", "latest").unwrap(), first);

    // Another server: no source, no build, and a login of its own.
    let latest = format!("{repository}:latest");
    let deploy = ["deploy", "--image", latest.as_str(), "-a", "shop"];
    there.coracle(&deploy).await.fails().says("lets nobody do this").says("coracle registry login");
    std::fs::create_dir(there.path("home/.docker")).unwrap();
    // base64 of `ana:sesame-street-42`.
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"YW5hOnNlc2FtZS1zdHJlZXQtNDI="}}}}}}"#);
    std::fs::write(there.path("home/.docker/config.json"), config).unwrap();
    there.coracle(&["registry", "login", host, "--from-docker-config"]).await.succeeds().says("kept for every app");
    let plan: Vec<&str> = deploy.iter().copied().chain(["--plan"]).collect();
    there.coracle(&plan).await.succeeds().says(&format!("{latest} is {repository}@{first}"));
    there.coracle(&deploy).await.succeeds().says("live");
    assert_eq!(page(&there, "shop").await, "Hello from v1\n");
    there.coracle(&deploy).await.succeeds().says("nothing changed");

    // The tag moves on; who has pinned it stays.
    shop.tree.manifest("pipeline.steps.peek", &format!("image = \"{latest}\"\nrun = \"/web ok\""));
    let fetches = |deployed: &Deployed| deployed.lines.iter().any(|line| line.contains("Fetching image"));
    shop.tree.manifest("pipeline.steps.no", "run = \"/web fail\"");
    let deployed = shop.deploy_as_it_is().await;
    deployed.fails();
    assert!(fetches(&deployed), "{deployed}");
    // What a step was fetched for stays, whatever became of the deployment.
    shop.tree.change("coracle.toml", "/web fail", "/web ok");
    let deployed = deploys(&shop, "v3").await;
    assert!(!fetches(&deployed), "{deployed}");
    let second = registry.digest_of("team/shop", "latest").unwrap();
    assert_ne!(first, second);
    let load = Load::on(there.address(), "shop.localhost", 40).only_get().start();
    there.coracle(&["restart", "-a", "shop"]).await.succeeds();
    assert_eq!(page(&there, "shop").await, "Hello from v1\n");
    there.coracle(&deploy).await.succeeds();
    assert_eq!(page(&there, "shop").await, "Hello from v3\n");

    // The first server goes, and with it the last copy of v1 on this machine but one; that one is removed by hand.
    here.leaves_nothing().await;
    let oldest = there.client().releases(&"shop".parse().unwrap()).await.unwrap().remove(0);
    let (of_first, number) = (oldest.artifact, oldest.number.to_string());
    for image in there.belongings().images {
        if docker(&["inspect", "--format", "{{.Id}}", &image]).await.unwrap() == of_first {
            docker(&["rmi", &image]).await.unwrap();
        }
    }
    assert!(docker(&["inspect", &of_first]).await.is_err(), "the image is still there");
    there.coracle(&["rollback", &number, "-a", "shop"]).await.succeeds().says("Fetching image");
    assert_eq!(page(&there, "shop").await, "Hello from v1\n");
    assert_eq!(images(&there, "shop").await.last().unwrap().as_deref(), Some(format!("{repository}@{first}").as_str()));
    load.stop().await.lost_nothing();

    // What is wrong is said with what to do about it.
    let of = |tag: &str| format!("{repository}:{tag}");
    let asks = async |image: String| there.coracle(&["deploy", "--image", &image, "-a", "shop"]).await;
    asks(of("v99")).await.fails().says("the registry has no such image").says("name and tag");
    asks(format!("{}:1/x:1", host.split(':').next().unwrap())).await.fails().says("the registry does not answer");
    registry.lose_trust();
    asks(of("latest")).await.fails().says("certificate is not trusted").says("/etc/docker/certs.d");
    for env in [&here, &there] {
        assert!(!env.server_log().contains(PASSWORD), "the password is in the log");
        let database = std::fs::read(env.state().join("coracle.db")).unwrap();
        assert!(!database.windows(PASSWORD.len()).any(|piece| piece == PASSWORD.as_bytes()), "the password is readable");
    }
    there.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_takes_over_what_staging_runs_without_a_rebuild() {
    let Some(env) = with_docker("registry::promotion").await else { return };
    let shop = env.app("flask");
    shop.tree.append("coracle.toml", "\n[environments.production.http]\nhealth = \"/healthz\"\n");
    shop.tree.manifest("pipeline.verify.greets", "run = [\"python\", \"-c\", \"print('asked', 6 * 7)\"]");
    shop.tree.manifest("deploy", "watch = \"100ms\"");
    shop.coracle(&["config", "set", "SECRET_OF_STAGING=1"]).await.succeeds();
    shop.deploy("v1").await;

    let promote = ["promote", "shop", "shop-production"];
    let plan: Vec<&str> = promote.iter().copied().chain(["--plan"]).collect();
    env.coracle(&plan).await.succeeds().says("shop-production is new").says("built no second time");
    env.coracle(&promote).await.succeeds().says("described by [environments.production]").says("asked 42");
    assert_eq!(page(&env, "shop-production").await, "Hello from v1\n");
    let config = env.coracle(&["config", "-a", "shop-production", "--json"]).await;
    assert!(!config.output().contains("SECRET_OF_STAGING"), "{config}");

    let load = Load::on(env.address(), "shop-production.localhost", 50).start();
    shop.deploy("v2").await;
    assert_eq!(page(&env, "shop-production").await, "Hello from v1\n");
    let promoted = env.coracle(&promote).await;
    promoted.succeeds();
    assert!(!promoted.output().contains("Running in") && !promoted.output().contains("[1/"), "{promoted}");
    assert_eq!(page(&env, "shop-production").await, "Hello from v2\n");
    let of = async |app: &str| env.client().releases(&app.parse().unwrap()).await.unwrap().pop().unwrap();
    let (staging, production) = (of("shop").await, of("shop-production").await);
    assert_eq!(staging.artifact, production.artifact);
    assert_eq!(production.description, format!("promoted from shop {}", staging.number));

    env.coracle(&["rollback", "-a", "shop-production"]).await.succeeds();
    assert_eq!(page(&env, "shop-production").await, "Hello from v1\n");
    // Whoever goes takes nothing from the other.
    env.coracle(&["-y", "destroy", "-a", "shop"]).await.succeeds();
    env.coracle(&["restart", "-a", "shop-production"]).await.succeeds();
    env.coracle(&["rollback", "-a", "shop-production", "v2"]).await.succeeds();
    assert_eq!(page(&env, "shop-production").await, "Hello from v2\n");
    load.stop().await.lost_nothing();

    // What is another app's is its own: no name of an image leads to it.
    let image = env.belongings().images.into_iter().find(|name| name.contains("/shop-production:")).unwrap();
    env.coracle(&["deploy", "--image", &image, "-a", "thief"]).await.fails().says("an image of the app shop-production");
    let thief = env.app("static");
    for (file, text) in [
        ("coracle.toml", format!("app = \"thief\"\n[build]\nimage = \"{image}\"\n")),
        ("coracle.toml", format!("app = \"thief\"\n[services.db]\nimage = \"docker.io/{image}\"\nvolume = \"/data\"\n")),
        ("Dockerfile", format!("FROM \\\n  {image}\n")),
    ] {
        thief.tree.write("coracle.toml", "app = \"thief\"\n").write(file, text);
        thief.deploy_as_it_is().await.fails().shows("no app is made from another's");
    }
    env.leaves_nothing().await;
}

//! Stacks that people keep in compose files are deployed as they are: examples/examist, examples/course and examples/heroku.

use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::browser;
use coracle_tests::engine::{can_tell, docker};
use coracle_tests::{Env, eventually};
use http::HeaderValue;

/// How long a database may take to start for the first time.
const FIRST_START: Duration = Duration::from_secs(60);

/// An environment with Docker; nothing, said aloud, if this machine has none.
pub(crate) async fn with_docker(story: &str) -> Option<Env> {
    match can_tell(EngineKind::Docker, story) {
        true => Some(Env::start(EngineKind::Docker).await),
        false => None,
    }
}

/// The container of a service that keeps data, by Docker's own id.
async fn container(env: &Env, service: &str) -> String {
    let containers = env.belongings().containers;
    let name = containers.iter().find(|name| name.contains(&format!(".{service}"))).unwrap_or_else(|| {
        panic!("no container of {service} among {containers:?}");
    });
    docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name]).await.unwrap()
}

/// nginx in front of Flask in front of PostgreSQL, the database filled from a dump by its own image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examist_is_deployed_as_it_is_and_its_database_outlives_every_release() {
    let Some(env) = with_docker("compose::examist").await else { return };
    let examist = env.app("examist");
    examist.deploy_as_it_is().await.succeeds();
    let first = eventually("the dump is loaded", FIRST_START, async || match examist.get("/api/exams").await {
        answer if answer.body.contains("Compilers") => Ok(answer),
        answer => Err(format!("{answer:?}")),
    });
    first.await.says("\"v1\"");
    let page = examist.get("/").await;
    page.says("Past exams");
    // nginx's own variable, which a careless envsubst would have taken out.
    assert_eq!(page.headers["x-served-for"], HeaderValue::from_static("examist.localhost"));

    let database = container(&env, "db").await;
    examist.post("/api/exams", "").await.has_status(400);
    let remembered = examist.post("/api/exams", "title=Topology&year=2016").await;
    remembered.has_status(201);

    let load = examist.load(10).only_get().of_page("/api/exams").start();
    examist.tree.change("server/init.py", "VERSION = \"v1\"", "VERSION = \"v2\"");
    examist.deploy_as_it_is().await.succeeds();
    examist.get("/api/version").await.says("v2");
    examist.coracle(&["rollback"]).await.succeeds();
    load.stop().await.lost_nothing();
    examist.get("/api/version").await.says("v1");
    let exams = examist.get("/api/exams").await;
    for title in ["Discrete Mathematics", "Compilers", "Topology"] {
        exams.says(title);
    }
    assert_eq!(container(&env, "db").await, database, "the database was never touched");

    // The same tree once more is nothing new.
    let releases = examist.releases().await.len();
    examist.tree.change("server/init.py", "VERSION = \"v2\"", "VERSION = \"v3\"");
    examist.deploy_as_it_is().await.succeeds();
    examist.deploy_as_it_is().await.succeeds();
    assert_eq!(examist.releases().await.len(), releases + 1, "a deploy that changes nothing makes no release");
    examist.settles().await;
    env.leaves_nothing().await;
}

/// A web app, PostgreSQL with a volume, and Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_of_every_course_keeps_its_data() {
    let Some(env) = with_docker("compose::course").await else { return };
    let course = env.app("course");
    course.deploy_as_it_is().await.succeeds();
    let enrolled = eventually("the database takes students", FIRST_START, async || {
        let answer = course.post("/students", "name=Ada").await;
        if answer.status.as_u16() == 201 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    enrolled.await;
    course.get("/").await.says("\"visits\":1");

    let load = course.load(10).only_get().of_page("/students").start();
    course.deploy("v2").await;
    load.stop().await.lost_nothing();
    course.get("/students").await.says("Ada");
    let page = course.get("/").await;
    page.says("v2");
    page.says("\"visits\":2");
    page.says("\"env\":\"production\"");
    course.settles().await;
    env.leaves_nothing().await;
}

/// Several projects on one server: labels, files for production, variables from the app's configuration, a cron without a port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_side_projects_share_a_server_by_their_labels() {
    const PRODUCTION: [&str; 4] = ["-f", "docker-compose.yml", "-f", "docker-compose.prod.yml"];
    if !can_tell(EngineKind::Docker, "compose::heroku") {
        return;
    }
    let env = Env::start_for_pushes(EngineKind::Docker).await;
    let network = Network::make("web").await;
    let shop = env.app("heroku/shop");
    shop.coracle(&["config", "set", "DOMAIN=shop.localhost", "SECRET_KEY=s3cret"]).await.succeeds();
    shop.deploy_with(&PRODUCTION).await.succeeds();
    shop.get("/").await.says("shop v1 in production");
    let www = browser::get(env.address(), "www.shop.localhost", "/cart").await.unwrap();
    www.has_status(301);
    let apex = www.headers["location"].to_str().unwrap();
    assert!(apex.starts_with("http://shop.localhost") && apex.ends_with("/cart"), "{apex}");

    let blog = env.app("heroku/blog");
    let admins = "ADMINS=admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    blog.coracle(&["config", "set", "DOMAIN=blog.localhost", "SECRET_KEY=s3cret", admins]).await.succeeds();
    blog.deploy_with(&PRODUCTION).await.succeeds();
    blog.get("/").await.has_status(401);
    let known = tokio::process::Command::new("curl")
        .args(["--silent", "--fail", "--user", "admin:secret", "--header", "Host: blog.localhost"])
        .arg(format!("http://{}/", env.address()))
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&known.stdout), "blog v1 in production\n");

    let site = env.app("heroku/site");
    site.deploy_as_it_is().await.succeeds();
    site.get("/").await.says("never changes");
    let cron = env.app("heroku/cron");
    cron.deploy_as_it_is().await.succeeds();
    let ticks = cron.coracle(&["logs", "-n", "all"]).await;
    ticks.succeeds().says("tick 1");
    assert_eq!(browser::get(env.address(), "cron.localhost", "/").await.unwrap().status.as_u16(), 404);

    // Whoever pushes cannot type `-f`: the manifest says which files are meant.
    shop.tree.write("coracle.toml", "[compose]\nfiles = [\"docker-compose.yml\", \"docker-compose.prod.yml\"]\n");
    let load = shop.load(40).only_get().start();
    shop.tree.version("v2");
    shop.becomes_a_repository(&env).await;
    shop.push(&env, &["main"]).await.succeeds();
    load.stop().await.lost_nothing();
    shop.get("/").await.says("shop v2 in production");
    for app in [&shop, &blog, &site, &cron] {
        app.settles().await;
    }
    env.leaves_nothing().await;
    network.remove().await;
}

/// A network that several projects share, as their files expect. Removed if it was not there before.
struct Network {
    name: &'static str,
    ours: bool,
}

impl Network {
    async fn make(name: &'static str) -> Self {
        let there = docker(&["network", "inspect", name]).await.is_ok();
        if !there {
            docker(&["network", "create", name]).await.unwrap();
        }
        Self { name, ours: !there }
    }

    async fn remove(self) {
        if self.ours {
            docker(&["network", "rm", self.name]).await.unwrap();
        }
    }
}

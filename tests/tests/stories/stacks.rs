//! Stacks of compose files in trouble, and at rest: what changes nothing restarts nothing, what stops gets no more requests,
//! and whatever breaks in the middle of a deployment, what ran goes on.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_api::{Outcome, Phase};
use coracle_model::EngineKind;
use coracle_tests::engine::docker;
use coracle_tests::{App, Env, Settings, eventually};
use tokio::net::{UnixListener, UnixStream};

use crate::compose::with_docker;

/// Answers with the colour it is told, or takes its time to begin.
const SERVE: &str = r#"import http.server, os, time


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = os.environ.get("COLOUR", "none").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


time.sleep(float(os.environ.get("SLEEP", "0")))
# Requests that were held come many at once; five is what Python would have wait for being accepted.
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
"#;

const DOCKERFILE: &str = "FROM python:3.11-slim\nARG NUMBER=0\nENV NUMBER=$NUMBER\nCOPY serve.py /serve.py\n\
                          STOPSIGNAL SIGKILL\nCMD [\"python\", \"/serve.py\"]\n";

/// An app of this compose file; its pages come from `serve.py`.
fn app_of(env: &Env, compose: &str) -> App {
    let app = env.app("course");
    app.tree.write("serve.py", SERVE).write("Dockerfile", DOCKERFILE).write("docker-compose.yml", compose);
    app
}

/// A front, something in the background, and something that keeps data.
fn small_stack(colour: &str) -> String {
    format!(
        "services:\n  web:\n    build: .\n    ports: [\"8080:8000\"]\n    environment: {{COLOUR: {colour}, SLEEP: \"1\"}}\n    \
         depends_on: [cache]\n  worker:\n    build: .\n    environment: {{COLOUR: {colour}}}\n  \
         cache:\n    image: redis:7\n    volumes: [\"cache:/data\"]\nvolumes: {{cache: {{}}}}\nx-coracle: {{watch: \"1s\"}}\n"
    )
}

/// Ten services: a front, seven behind it, and two that keep data.
fn ten_services() -> String {
    let backend = |number: usize| {
        format!(
            "  back{number}:\n    build: {{context: ., args: {{NUMBER: \"{number}\"}}}}\n    expose: [\"8000\"]\n    \
             volumes: [\"./conf:/conf:ro\"]\n"
        )
    };
    let backends: String = (1..=7).map(backend).collect();
    format!(
        "services:\n  web:\n    build: .\n    ports: [\"8080:8000\"]\n    environment: {{COLOUR: \"${{COLOUR:-red}}\"}}\n    \
         depends_on: {{db: {{condition: service_healthy}}}}\n{backends}  db:\n    image: postgres:15\n    \
         environment: {{POSTGRES_PASSWORD: secret}}\n    volumes: [\"data:/var/lib/postgresql/data\"]\n    \
         healthcheck: {{test: [\"CMD-SHELL\", \"pg_isready -U postgres\"], interval: 1s, retries: 60}}\n  \
         cache:\n    image: redis:7\n    volumes: [\"cache:/data\"]\nvolumes: {{data: {{}}, cache: {{}}}}\n"
    )
}

/// Every container of the server: Docker's id of it, and when it was started.
async fn containers(env: &Env) -> BTreeMap<String, String> {
    let inspections = env.belongings().containers.into_iter().map(|name| async move {
        let facts = docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}", &name]).await.unwrap();
        (name, facts)
    });
    futures::future::join_all(inspections).await.into_iter().collect()
}

/// The container of a part, by Docker's name.
fn container_of(env: &Env, part: &str) -> String {
    let containers = env.belongings().containers;
    containers.iter().find(|name| name.contains(&format!(".{part}."))).unwrap_or_else(|| panic!("{part}: {containers:?}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_ten_services_that_changes_nothing_restarts_nothing() {
    let Some(env) = with_docker("stacks: ten services").await else { return };
    let ten = app_of(&env, &ten_services());
    std::fs::create_dir_all(ten.tree.path().join("conf")).unwrap();
    ten.tree.write("conf/large", vec![b'x'; 4 << 20]);
    ten.deploy_as_it_is().await.succeeds();
    ten.get("/").await.says("red");
    let (before, releases) = (containers(&env).await, ten.releases().await.len());
    assert_eq!(before.len(), 10, "{before:#?}");
    let load = ten.load(20).only_get().start();
    for _ in 0..3 {
        let again = ten.deploy_as_it_is().await;
        again.succeeds();
        assert!(again.lines.iter().any(|line| line.contains("nothing changed")), "{again}");
        eprintln!("a deployment of 10 services that changes nothing: {:.0?}", again.took);
    }
    assert_eq!((containers(&env).await, ten.releases().await.len()), (before.clone(), releases));

    // A variable is filled into the same files again; the next number is the next.
    ten.coracle(&["config", "set", "COLOUR=blue"]).await.succeeds();
    ten.get("/").await.says("blue");
    assert_eq!(ten.active().await, Some(2));
    let after = containers(&env).await;
    for name in before.keys().filter(|name| name.contains(".db.") || name.contains(".cache.")) {
        assert_eq!(after.get(name), before.get(name), "{name} keeps data and stays");
    }
    load.stop().await.lost_nothing();
    let status = ten.status().await;
    let services: Vec<_> = status.services.iter().map(|it| (it.name.as_str(), it.image.as_deref(), it.release.get())).collect();
    assert_eq!(services, [("cache", Some("redis:7"), 1), ("db", Some("postgres:15"), 1)]);
    ten.coracle(&["status"]).await.succeeds().says("db postgres:15, since v1: running for ");
    ten.settles().await;
    env.leaves_nothing().await;
}

/// How often a target did not answer as it should, or not at all, as the proxy counts it.
async fn upstream_errors(env: &Env) -> u64 {
    let socket = env.state().join("proxy/control.sock");
    let metrics = env.coracle(&["proxy", "metrics", "--control-socket", socket.to_str().unwrap()]).await;
    let counted = metrics.succeeds().output();
    let errors: Vec<&str> = counted.lines().filter(|line| line.starts_with("coracle_proxy_upstream_errors_total{")).collect();
    assert!(!errors.is_empty(), "{counted}");
    errors.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_stop_get_no_more_requests() {
    replicas_come_and_go("ports: [\"8080:8000\"]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_labels_route_and_that_stop_get_no_more_requests() {
    let labels = "labels: [\"traefik.enable=true\", \"traefik.http.routers.many.rule=Host(`course.localhost`)\", \
                  \"traefik.http.services.many.loadbalancer.server.port=8000\"]";
    replicas_come_and_go(labels).await;
}

/// Replicas of a service that is reached in this way, by the words of the compose file.
async fn replicas_come_and_go(reached: &str) {
    let Some(env) = with_docker("stacks: replicas").await else { return };
    let many = app_of(
        &env,
        &format!(
            "services:\n  web:\n    build: .\n    {reached}\n    environment: {{COLOUR: \"${{COLOUR:-red}}\"}}\n    \
             deploy: {{replicas: 4}}\nx-coracle: {{watch: \"0s\"}}\n"
        ),
    );
    many.deploy_as_it_is().await.succeeds();
    let load = many.load(100).only_get().start();
    for (round, scale) in ["web=1", "web=3"].iter().enumerate() {
        many.coracle(&["config", "set", &format!("COLOUR=red{round}")]).await.succeeds();
        many.coracle(&["ps", "scale", scale]).await.succeeds();
        many.coracle(&["restart"]).await.succeeds();
        many.settles().await;
        // Not even an attempt to reach somebody who has gone.
        assert_eq!(upstream_errors(&env).await, 0, "in round {round}: {}", load.so_far());
    }
    // Somebody else stops one: the requests go to the others, and it comes back.
    docker(&["stop", "-t", "2", &container_of(&env, "web")]).await.unwrap();
    many.settles().await;
    let report = load.stop().await;
    eprintln!("replicas that stop: {report}");
    report.lost_nothing();
    env.leaves_nothing().await;
}

/// The server is killed in the middle of a stack's deployment, in one phase after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_a_stack_is_deployed_leaves_one_stack() {
    let Some(env) = with_docker("stacks: killed").await else { return };
    let stack = app_of(&env, &small_stack("c0"));
    stack.deploy_as_it_is().await.succeeds();
    let cache = containers(&env).await.remove(&container_of(&env, "cache")).unwrap();
    let load = stack.load(40).only_get().start();
    let phases = [Phase::Build, Phase::Services, Phase::Start, Phase::Probe, Phase::Switch, Phase::Drain, Phase::Stop];
    let mut colour = "c0".to_owned();
    for (number, phase) in phases.into_iter().enumerate() {
        let next = format!("c{}", number + 1);
        stack.tree.write("docker-compose.yml", small_stack(&next));
        let mut deploying = stack.begin_deploy();
        assert!(deploying.reaches(phase).await, "{}", deploying.end().await);
        env.kill_server().await;
        env.start_server().await;
        let told = deploying.end().await;
        stack.settles().await;
        let last = stack.deployments().await.remove(0);
        match last.outcome {
            Some(Outcome::Interrupted { completed: true, .. } | Outcome::Succeeded) if last.phase >= Phase::Switch => {
                colour = next
            }
            Some(Outcome::Interrupted { completed: false, .. }) if last.phase < Phase::Switch => {}
            other => panic!("killed during {phase}: {other:?}; {told}"),
        }
        stack.get("/").await.says(&colour);
        assert_eq!(containers(&env).await.get(&container_of(&env, "cache")), Some(&cache), "after {phase}");
        // One network of the active release and one of the app; nothing is left of any other.
        eventually("only what is used is left", Duration::from_secs(40), async || {
            let left = env.belongings();
            match (left.networks.len(), left.containers.len()) {
                (2, 3) => Ok(()),
                _ => Err(format!("killed during {phase}: {:?} {:?}\n{}", left.networks, left.containers, env.server_log())),
            }
        })
        .await;
    }
    stack.tree.write("docker-compose.yml", small_stack("last"));
    stack.deploy_as_it_is().await.succeeds();
    stack.get("/").await.says("last");
    stack.settles().await;
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_data_and_never_gets_healthy_costs_the_release_and_nothing_else() {
    const SICK: &str = "\n    healthcheck: {test: [CMD, \"false\"], interval: 1s, retries: 2, timeout: 1s}\n";
    let Some(env) = with_docker("stacks: never healthy").await else { return };
    let impatient = |colour: &str| small_stack(colour).replace("{watch:", "{timeout: 10s, watch:");
    let sick = impatient("c0").replace("    image: redis:7", format!("    image: redis:7{SICK}").trim_end());
    let stack = app_of(&env, &sick);
    let first = stack.deploy_as_it_is().await;
    first.fails().shows("cache").shows("next: ");
    let left = env.belongings();
    // What is left is the app's own: its network and its volume.
    assert!(left.containers.is_empty() && left.networks.len() == 1 && left.volumes.len() == 1, "{left:#?}");

    stack.tree.write("docker-compose.yml", small_stack("c1"));
    stack.deploy_as_it_is().await.succeeds();
    let load = stack.load(40).only_get().start();
    let before = containers(&env).await;
    // Another one that keeps data, and is sick.
    let search =
        format!("  search:\n    image: redis:7{SICK}    volumes: [\"search:/data\"]\nvolumes: {{cache: {{}}, search: {{}}}}");
    stack.tree.write("docker-compose.yml", impatient("c2").replace("volumes: {cache: {}}", &search));
    stack.deploy_as_it_is().await.fails().shows("search");
    assert_eq!(containers(&env).await, before, "what ran was not touched");
    stack.get("/").await.says("c1");
    // The one that is there turns sick, on purpose: it goes back to what it was.
    stack.tree.write("docker-compose.yml", sick.replace("c0", "c3"));
    stack.deploy_with(&["--recreate-services", "cache"]).await.fails().shows("cache");
    stack.settles().await;
    stack.get("/").await.says("c1");
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_behind_the_servers_back_comes_back() {
    let Some(env) = with_docker("stacks: removed").await else { return };
    let stack = app_of(&env, &small_stack("c1"));
    stack.deploy_as_it_is().await.succeeds();
    // What keeps data, with its volume.
    let volumes = env.belongings().volumes;
    let volume = volumes.iter().find(|name| name.contains("cache")).unwrap_or_else(|| panic!("{volumes:?}"));
    docker(&["rm", "-f", &container_of(&env, "cache")]).await.unwrap();
    // It may have been started again already.
    let removed = docker(&["volume", "rm", "-f", volume]).await;
    eprintln!("the volume was removed: {removed:?}");
    eventually("the service runs again", Duration::from_secs(40), async || {
        let status = stack.status().await;
        match status.state {
            coracle_api::AppState::Running if status.services.iter().all(|service| service.state.is_some()) => Ok(()),
            other => Err(format!("{other}: {:?}\n{}", status.services, env.server_log())),
        }
    })
    .await;
    assert!(env.belongings().volumes.contains(volume));
    // The image of the front: what runs goes on, and the next deployment makes it again.
    let web = container_of(&env, "web");
    let image = docker(&["inspect", "--format", "{{.Image}}", &web]).await.unwrap();
    docker(&["rmi", "-f", &image]).await.unwrap_err();
    docker(&["rm", "-f", &web, &container_of(&env, "worker")]).await.unwrap();
    // Whoever was faster: the server with new containers of it, or the image with its end.
    docker(&["rmi", "-f", &image]).await.ok();
    stack.deploy_as_it_is().await.succeeds();
    eventually("it answers again", Duration::from_secs(40), async || {
        let answer = coracle_tests::browser::get(env.address(), &stack.host(), "/").await;
        match answer {
            Ok(answer) if answer.body.contains("c1") => Ok(()),
            other => Err(format!("{other:?}\n{}", env.server_log())),
        }
    })
    .await;
    stack.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_somebody_else_has_is_named_and_the_old_stack_serves() {
    let Some(env) = with_docker("stacks: a port that is taken").await else { return };
    let stack = app_of(&env, &small_stack("c1"));
    stack.deploy_as_it_is().await.succeeds();
    let load = stack.load(40).only_get().start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let queue = format!("  queue:\n    image: redis:7\n    ports: [\"127.0.0.1:{port}:6379\"]\n    volumes: [\"queue:/data\"]\n");
    let with_queue = small_stack("c2").replace("volumes: {cache: {}}", &format!("{queue}volumes: {{cache: {{}}, queue: {{}}}}"));
    stack.tree.write("docker-compose.yml", &with_queue);
    stack.deploy_as_it_is().await.fails().shows("queue").shows(&port.to_string());
    stack.get("/").await.says("c1");
    stack.settles().await;
    drop(taken);
    stack.deploy_as_it_is().await.succeeds();
    stack.get("/").await.says("c2");
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

/// A way to Docker that can be made to hang: connections are taken, and nothing comes back.
struct Way {
    socket: PathBuf,
    hangs: Arc<AtomicBool>,
    _directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    fn to_docker() -> Self {
        let directory = tempfile::Builder::new().prefix("coracle-way-").tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let (listener, hangs) = (UnixListener::bind(&socket).unwrap(), Arc::new(AtomicBool::new(false)));
        let is_hanging = hangs.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let hangs = is_hanging.clone();
                tokio::spawn(async move {
                    let far = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let ((mut near_reads, mut near_writes), (mut far_reads, mut far_writes)) =
                        (near.into_split(), far.into_split());
                    let asking = tokio::io::copy(&mut near_reads, &mut far_writes);
                    let answering = pass_on(&mut far_reads, &mut near_writes, &hangs);
                    tokio::join!(async { asking.await.ok() }, answering);
                });
            }
        });
        Self { socket, hangs, _directory: directory, task }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on, except while it hangs.
async fn pass_on(from: &mut tokio::net::unix::OwnedReadHalf, to: &mut tokio::net::unix::OwnedWriteHalf, hangs: &AtomicBool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        while hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_that_hangs_in_the_middle_of_a_deployment_costs_no_request() {
    let Some(outer) = with_docker("stacks: Docker hangs").await else { return };
    drop(outer);
    let way = Way::to_docker();
    let host = format!("unix://{}", way.socket.display());
    let env = Env::prepare(Settings { env: vec![("DOCKER_HOST".to_owned(), host)], ..Settings::of(EngineKind::Docker) });
    env.start_server().await;
    let stack = app_of(&env, &small_stack("c1"));
    stack.deploy_as_it_is().await.succeeds();
    let load = stack.load(40).only_get().start();
    for (phase, colour) in [(Phase::Services, "c2"), (Phase::Start, "c3"), (Phase::Stop, "c4")] {
        stack.tree.write("docker-compose.yml", small_stack(colour));
        let mut deploying = stack.begin_deploy();
        assert!(deploying.reaches(phase).await);
        way.hangs.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            stack.get("/").await.says("c");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        way.hangs.store(false, Ordering::Relaxed);
        let deployed = deploying.end().await;
        assert!(deployed.code.is_some(), "{deployed}");
        stack.settles().await;
    }
    // Destroyed while it hangs: what is left goes when it answers again, without being asked to.
    load.stop().await.lost_nothing();
    way.hangs.store(true, Ordering::Relaxed);
    let destroying = tokio::spawn({
        let command = env.command(&["-y", "destroy", "-a", "course"]);
        async move { coracle_tests::program::Ran::to_its_end(command).await }
    });
    eventually("it is forgotten", Duration::from_secs(40), async || {
        let apps = env.client().apps().await.map_err(|error| error.to_string())?;
        if apps.is_empty() { Ok(()) } else { Err(format!("{apps:?}")) }
    })
    .await;
    env.kill_server().await;
    destroying.await.unwrap();
    way.hangs.store(false, Ordering::Relaxed);
    env.start_server().await;
    let keep = [env.server_pid()];
    eventually("nothing is left", Duration::from_secs(60), async || {
        let left = env.belongings().of_apps(&keep);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}\n{}", env.server_log())) }
    })
    .await;
    drop(env);
}

//! Containers that others start are routed by their labels, as they come and go, and the requests to those that stay are not
//! disturbed.
//!
//! `make test` tells it with few containers, `make soak` with 200 (`DISCOVERY_COUNT`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::browser::get;
use coracle_tests::engine::{can_tell, docker};
use coracle_tests::{Env, Load, eventually};
use futures::StreamExt;
use serde_json::Value;

/// How many containers are started or removed at once.
const AT_ONCE: usize = 6;
/// How long the table may take to follow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with the container's host name; one process of a few megabytes.
const DOCKERFILE: &str = r#"FROM nginx:1-alpine
RUN printf '%s\n' 'daemon off; master_process off; pid /tmp/pid; error_log /dev/stderr crit; worker_processes 1;' \
  'events { worker_connections 64; }' \
  'http { access_log off; server { listen 80; location / { return 200 "$hostname\n"; } } }' > /etc/named.conf
STOPSIGNAL SIGQUIT
CMD ["nginx", "-c", "/etc/named.conf"]
"#;

/// Containers of the story. Removed when it ends, however it ends.
struct Others {
    /// What all their names begin with.
    prefix: String,
    image: String,
}

impl Others {
    async fn prepare(name: &str) -> Self {
        let prefix = format!("{name}-{}", std::process::id());
        let image = format!("coracle-{prefix}");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Dockerfile"), DOCKERFILE).unwrap();
        docker(&["build", "-q", "-t", &image, directory.path().to_str().unwrap()]).await.unwrap();
        Self { prefix, image }
    }

    async fn start(&self, name: &str, labels: &[(String, String)], more: &[&str]) {
        let name = format!("{}-{name}", self.prefix);
        let story = format!("coracle.story={}", self.prefix);
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let mut words = vec!["run", "-d", "--name", &name, "--hostname", &name, "--label", &story, "--log-driver", "none"];
        labels.iter().for_each(|label| words.extend(["--label", label]));
        words.extend(more);
        words.push(&self.image);
        docker(&words).await.unwrap();
    }

    /// Stopped as `docker compose down` does it.
    async fn remove(&self, name: &str) {
        let name = format!("{}-{name}", self.prefix);
        docker(&["stop", "-t", "10", &name]).await.unwrap();
        docker(&["rm", "-f", &name]).await.unwrap();
    }

    /// The address of each container that runs, by its name without the prefix.
    async fn running(&self) -> BTreeMap<String, SocketAddr> {
        let filter = format!("label=coracle.story={}", self.prefix);
        let ids = docker(&["ps", "-q", "--filter", &filter]).await.unwrap();
        let mut words = vec!["inspect"];
        words.extend(ids.split_whitespace());
        if words.len() == 1 {
            return BTreeMap::new();
        }
        let inspected: Value = serde_json::from_str(&docker(&words).await.unwrap()).unwrap();
        let one = |container: &Value| {
            let name = container["Name"].as_str()?.strip_prefix(&format!("/{}-", self.prefix))?.to_owned();
            let address = container["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str()?.parse().ok()?;
            Some((name, SocketAddr::new(address, 80)))
        };
        inspected.as_array().unwrap().iter().filter_map(one).collect()
    }

    /// The routes of the story's containers, as the proxy serves them.
    async fn routed(&self, env: &Env) -> Routed {
        let routes = env.client().routes().await.unwrap().routes;
        let ours = routes.into_iter().filter(|route| route.id.starts_with(&self.prefix));
        ours.map(|route| (route.rule, route.targets.into_iter().map(|target| target.address.parse().unwrap()).collect()))
            .collect()
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let filter = format!("label=coracle.story={}", self.prefix);
        let listed = std::process::Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if !ids.trim().is_empty() {
            drop(std::process::Command::new("docker").args(["rm", "-f"]).args(ids.split_whitespace()).output());
        }
        drop(std::process::Command::new("docker").args(["rmi", "-f", &self.image]).output());
    }
}
/// Rules, each with the addresses that answer.
type Routed = BTreeMap<String, BTreeSet<SocketAddr>>;

fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

/// What a container of a crowd is like, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    /// It has a host of its own.
    Alone,
    /// It shares a host with others of its pool.
    Pooled(u32),
    /// Its labels do not say a rule.
    Unruled,
    /// It says something else of the same router than another.
    Contrary,
    /// Its labels are wrong.
    Mistaken,
    /// It does not want to be routed.
    Disabled,
}

impl Sort {
    fn of(number: u32) -> Self {
        match number % 10 {
            0..=3 => Self::Alone,
            4..=6 => Self::Pooled(number / 40),
            7 => Self::Unruled,
            8 => Self::Contrary,
            _ if number % 20 == 9 => Self::Mistaken,
            _ => Self::Disabled,
        }
    }

    fn labels(self, prefix: &str, number: u32) -> Vec<(String, String)> {
        let router = |name: &str, setting: &str| format!("traefik.http.routers.{prefix}-{name}.{setting}");
        let own = format!("n{number}");
        match self {
            Self::Alone => vec![(router(&own, "rule"), format!("Host(`n{number}.example`)"))],
            Self::Pooled(pool) => {
                let name = format!("pool{pool}");
                vec![
                    (router(&name, "rule"), format!("Host(`pool{pool}.example`)")),
                    (format!("traefik.http.services.{prefix}-{name}.loadbalancer.server.port"), "80".to_owned()),
                ]
            }
            Self::Unruled => labels(&[("traefik.enable", "true")]),
            Self::Contrary => vec![(router("contrary", "rule"), format!("Host(`contrary{number}.example`)"))],
            Self::Mistaken => vec![(router(&own, "ruel"), "Host(`mistaken.example`)".to_owned())],
            Self::Disabled => {
                vec![
                    (router(&own, "rule"), "Host(`disabled.example`)".to_owned()),
                    ("traefik.enable".to_owned(), "false".to_owned()),
                ]
            }
        }
    }
}

/// What the routes have to be where these containers run.
fn expected(prefix: &str, running: &BTreeMap<String, SocketAddr>) -> Routed {
    let mut routed = Routed::new();
    let mut contrary = Routed::new();
    for (name, address) in running {
        let host = match name.strip_prefix('n').and_then(|number| number.parse().ok()) {
            None => format!("{name}.example"),
            Some(number) => match Sort::of(number) {
                Sort::Alone => format!("n{number}.example"),
                Sort::Pooled(pool) => format!("pool{pool}.example"),
                Sort::Unruled => format!("{prefix}-n{number}"),
                Sort::Contrary => {
                    contrary.insert(format!("Host(`contrary{number}.example`)"), [*address].into());
                    continue;
                }
                Sort::Mistaken | Sort::Disabled => continue,
            },
        };
        routed.entry(format!("Host(`{host}`)")).or_default().insert(*address);
    }
    // One alone contradicts nobody.
    if contrary.len() == 1 {
        routed.extend(contrary);
    }
    routed
}

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Chance that is the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap()
    }
}

async fn exactly_right(others: &Others, env: &Env) {
    let running = others.running().await;
    eventually("the table is exactly right", PATIENCE, async || {
        let (wanted, routed) = (expected(&others.prefix, &running), others.routed(env).await);
        // What stands in the way of a comparison of hundreds of routes is the many that are as they should be.
        let wrong: Vec<_> = wanted.iter().filter(|(rule, targets)| routed.get(*rule) != Some(*targets)).collect();
        let needless: Vec<_> = routed.keys().filter(|rule| !wanted.contains_key(*rule)).collect();
        if wanted == routed { Ok(()) } else { Err(format!("missing or wrong: {wrong:?}; too many: {needless:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_come_and_go_under_load_are_routed_exactly() {
    if !can_tell(EngineKind::Docker, "discovery: containers that come and go") {
        return;
    }
    let (env, others) = tokio::join!(Env::start(EngineKind::Docker), Others::prepare("crowd"));
    let count = number("DISCOVERY_COUNT", 30);
    // Two that stay, and one that stays while others of its pool go.
    let steady = Sort::Alone
        .labels(&others.prefix, 0)
        .into_iter()
        .map(|(label, _)| (label.replace("n0.", "steady."), "Host(`steady.example`)".to_owned()));
    let service = (format!("traefik.http.services.{}-steady.loadbalancer.server.port", others.prefix), "80".to_owned());
    let steady: Vec<_> = steady.chain([service]).collect();
    others.start("steady", &steady, &[]).await;
    let anchor = Sort::Pooled(0).labels(&others.prefix, 0);
    others.start("pool0", &anchor, &[]).await;
    exactly_right(&others, &env).await;
    let host = |name: &str| Load::on(env.address(), format!("{name}.example"), 100).only_get().start();
    let (on_steady, on_pool) = (host("steady"), host("pool0"));

    let mut alive = BTreeSet::new();
    let mut chance = Chance(7);
    for round in 0..4 {
        // All come; then each time half of them, by chance, come or go.
        let moved: BTreeSet<u32> = (0..count).filter(|_| round == 0 || chance.below(2) == 0).collect();
        let moves = moved.iter().map(|number| {
            let (others, comes) = (&others, !alive.contains(number));
            let name = format!("n{number}");
            async move {
                match comes {
                    true => others.start(&name, &Sort::of(*number).labels(&others.prefix, *number), &[]).await,
                    false => others.remove(&name).await,
                }
            }
        });
        futures::stream::iter(moves).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
        alive = alive.symmetric_difference(&moved).copied().collect();
        exactly_right(&others, &env).await;
        for load in [&on_steady, &on_pool] {
            assert_eq!(load.so_far().failed_count(), 0, "in round {round}: {}", load.so_far());
        }
    }
    for load in [on_steady, on_pool] {
        let report = load.stop().await;
        eprintln!("{count} containers: {report}");
        report.lost_nothing();
    }
    let problems = env.client().discovery().await.unwrap().problems;
    let contrary =
        problems.iter().find(|problem| problem.about.as_deref() == Some(&format!("router {}-contrary", others.prefix)));
    let kinds: BTreeSet<&str> = problems.iter().map(|problem| problem.kind.as_str()).collect();
    assert!(contrary.is_none_or(|problem| problem.kind == "conflict"), "{problems:#?}");
    assert!(kinds.contains("refused") || !alive.iter().any(|number| Sort::of(*number) == Sort::Mistaken), "{problems:#?}");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovered_routes_outlive_the_server_and_give_way_to_apps() {
    if !can_tell(EngineKind::Docker, "discovery: outliving the server") {
        return;
    }
    let (env, others) = tokio::join!(Env::start(EngineKind::Docker), Others::prepare("guests"));
    let rule =
        |name: &str, host: &str| (format!("traefik.http.routers.{}-{name}.rule", others.prefix), format!("Host(`{host}`)"));
    others.start("blog", &[rule("blog", "blog.example")], &[]).await;
    exactly_right(&others, &env).await;
    get(env.address(), "blog.example", "/").await.unwrap().says(&format!("{}-blog", others.prefix));

    // A middleware that no proxy would take costs nobody else anything.
    let middleware = format!("traefik.http.middlewares.{}-bad.stripprefixregex.regex", others.prefix);
    let through = (format!("traefik.http.routers.{}-bad.middlewares", others.prefix), format!("{}-bad", others.prefix));
    others.start("bad", &[rule("bad", "bad.example"), through, (middleware, "(".to_owned())], &[]).await;
    // An app has the host of a container.
    let shop = env.app("flask");
    shop.deploy("v1").await;
    others.start("rival", &[rule("rival", "shop.localhost")], &[]).await;
    let told = |about: String, kind: &'static str| {
        let env = env.clone();
        async move {
            eventually("it is told", PATIENCE, async || {
                let discovery = env.client().discovery().await.unwrap();
                let is_it = |about_it: Option<&str>| about_it == Some(about.as_str());
                let found = discovery.problems.iter().any(|problem| is_it(problem.about.as_deref()) && problem.kind == kind);
                if found { Ok(()) } else { Err(format!("{:#?}", discovery.problems)) }
            })
            .await;
        }
    };
    told(format!("router {}-bad", others.prefix), "refused").await;
    told(format!("router {}-rival", others.prefix), "conflict").await;
    shop.get("/").await.says("from v1");
    get(env.address(), "blog.example", "/").await.unwrap().says("blog");

    // What was discovered is served while nobody discovers, and not forgotten by whoever starts.
    let load = Load::on(env.address(), "blog.example", 100).only_get().start();
    env.stop_server().await;
    env.start_server().await;
    env.kill_server().await;
    env.start_server().await;
    let running = others.running().await;
    let blog = eventually("the route is there", PATIENCE, async || {
        let routed = others.routed(&env).await;
        routed.get("Host(`blog.example`)").cloned().ok_or_else(|| format!("{routed:?}"))
    })
    .await;
    assert_eq!(blog, BTreeSet::from([running["blog"]]));
    load.stop().await.lost_nothing();

    // Gone when the container is, and only then.
    others.remove("blog").await;
    eventually("its route goes with it", PATIENCE, async || {
        let routed = others.routed(&env).await;
        if routed.contains_key("Host(`blog.example`)") { Err(format!("{routed:?}")) } else { Ok(()) }
    })
    .await;
    get(env.address(), "blog.example", "/").await.unwrap().has_status(404);
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_routed_for_as_long_as_it_is_healthy() {
    if !can_tell(EngineKind::Docker, "discovery: health") {
        return;
    }
    let (env, others) = tokio::join!(Env::start(EngineKind::Docker), Others::prepare("ill"));
    let rule = (format!("traefik.http.routers.{}-ill.rule", others.prefix), "Host(`ill.example`)".to_owned());
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1"];
    others.start("ill", &[rule], &check).await;
    let name = format!("{}-ill", others.prefix);
    for (command, routes) in [("rm -f /tmp/well", 0), ("touch /tmp/well", 1), ("rm /tmp/well", 0), ("touch /tmp/well", 1)] {
        docker(&["exec", &name, "sh", "-c", command]).await.unwrap();
        eventually("the route is there while the container is well", PATIENCE, async || {
            let routed = others.routed(&env).await;
            let told = env.client().discovery().await.unwrap();
            let looked = told.containers.is_some_and(|count| count > 0);
            if looked && routed.len() == routes { Ok(()) } else { Err(format!("{routed:?} {:?}", told.problems)) }
        })
        .await;
    }
    // Paused, it answers nobody.
    docker(&["pause", &name]).await.unwrap();
    eventually("nobody is sent to a container that is paused", PATIENCE, async || {
        let routed = others.routed(&env).await;
        if routed.is_empty() { Ok(()) } else { Err(format!("{routed:?}")) }
    })
    .await;
    docker(&["unpause", &name]).await.unwrap();
    env.leaves_nothing().await;
}

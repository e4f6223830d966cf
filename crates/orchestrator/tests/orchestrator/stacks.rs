//! Apps of several parts, some of which keep data.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use coracle_engine::Health;
use coracle_engine::fake::{BuildScript, Script, Which};
use coracle_model::container::{PublishedPort, RestartPolicy};
use coracle_model::stack::PullPolicy;
use coracle_model::{
    AppSpec, Condition, Dependency, Exposure, HttpSpec, InstanceId, Outcome, Phase, ProcessName, ProcessSource, ProcessSpec,
};
use coracle_orchestrator::{DeployRequest, Deployed, Event, OrchestratorError, Progress, StatefulChanges};
use coracle_proxy_table::Admission;
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, spec};

fn name(text: &str) -> ProcessName {
    text.parse().unwrap()
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn part(image: &str, on: &[(&str, Condition)]) -> ProcessSpec {
    let wait = |condition| Dependency { condition, required: true, restart: false };
    ProcessSpec {
        source: Some(ProcessSource::Image { reference: image.to_owned(), pull: PullPolicy::Missing }),
        depends_on: on.iter().map(|(on, condition)| (name(on), wait(*condition))).collect(),
        exposure: Exposure::Hidden,
        ..ProcessSpec::default()
    }
}

/// A web process that needs an api, a cache, a migration and a database, and a worker in the background.
fn stack() -> AppSpec {
    let mut stack = spec("shop");
    let http = HttpSpec { health: Some("/up".to_owned()), ..HttpSpec::default_for(&app("shop")) };
    let mut web = part("web:1", &[("api", Condition::Healthy)]);
    web.exposure = Exposure::Http(Box::new(http));
    let mut migrate = part("api:1", &[("db", Condition::Healthy)]);
    migrate.task = true;
    stack.processes = [
        (name("web"), web),
        (name("api"), part("api:1", &[("migrate", Condition::Completed), ("cache", Condition::Started)])),
        (name("cache"), part("cache:1", &[])),
        (name("migrate"), migrate),
        (name("worker"), part("api:1", &[("db", Condition::Started)])),
    ]
    .into();
    let mut db = part("postgres:15", &[]);
    db.volumes = vec!["pgdata:/var/lib/postgresql/data".parse().unwrap()];
    stack.services = [(name("db"), db)].into();
    stack
}

fn with_env(mut stack: AppSpec, process: &str, value: &str) -> AppSpec {
    let part = stack.processes.get_mut(&name(process)).unwrap();
    part.container.env.insert("VALUE".to_owned(), value.into());
    stack
}

fn with_newer_db(mut stack: AppSpec) -> AppSpec {
    let db = stack.services.get_mut(&name("db")).unwrap();
    db.source = Some(ProcessSource::Image { reference: "postgres:16".to_owned(), pull: PullPolicy::Missing });
    stack
}

impl World {
    async fn deploy_with(&self, spec: AppSpec, stateful: StatefulChanges) -> Result<(Deployed, Vec<String>), OrchestratorError> {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let told = notes.clone();
        let progress = Progress::new(move |event| {
            if let Event::Note(note) = event {
                told.lock().unwrap().push(note);
            }
        });
        let request = DeployRequest { stateful, ..self.request(spec) };
        let deployed = self.orchestrator.deploy(request, &progress, &CancellationToken::new()).await?;
        let notes = notes.lock().unwrap().clone();
        Ok((deployed, notes))
    }

    fn started(&self) -> Vec<String> {
        self.machine.started().iter().map(ToString::to_string).collect()
    }

    fn joins(&self, instance: &str) -> Vec<u32> {
        let spec = self.machine.spec(&id(instance)).unwrap();
        spec.surroundings.joins.iter().map(|number| number.get()).collect()
    }
}

const FIRST: [&str; 5] = ["shop.v1.api.1", "shop.v1.cache.1", "shop.v1.db.1", "shop.v1.web.1", "shop.v1.worker.1"];

#[tokio::test]
async fn parts_start_in_the_order_in_which_they_wait_for_each_other() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    let started = world.started();
    let at = |id: &str| started.iter().position(|started| started == id).unwrap_or_else(|| panic!("{id} is not in {started:?}"));
    let order = ["shop.v1.db.1", "shop.v1.migrate.1", "shop.v1.api.1", "shop.v1.web.1", "shop.v1.worker.1"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{started:?}");
    assert!(at("shop.v1.cache.1") < at("shop.v1.api.1"));
    assert_eq!(world.instances(), FIRST);
    assert_eq!(world.get("shop").await.as_deref(), Ok("v1 web.1"));
    // Three parts are one image, which is fetched once.
    assert_eq!(world.machine.inventory().artifacts.len(), 4);
    assert_eq!(world.joins("shop.v1.db.1"), [1]);
}

#[tokio::test]
async fn a_service_that_keeps_data_stays_while_releases_come_and_go() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    world.deploy(with_env(stack(), "api", "two")).await.unwrap();
    world.deploy(with_env(stack(), "api", "three")).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v3 web.1"));
    assert_eq!(world.instances(), ["shop.v1.db.1", "shop.v3.api.1", "shop.v3.cache.1", "shop.v3.web.1", "shop.v3.worker.1"]);
    assert_eq!(world.started().iter().filter(|started| started.contains(".db.")).count(), 1);
    assert_eq!(world.joins("shop.v1.db.1"), [3]);
    world.rollback(None).await.unwrap();
    assert_eq!(world.joins("shop.v1.db.1"), [4]);
    assert!(!world.started().contains(&"shop.v4.migrate.1".to_owned()), "going back must not depend on a migration");
    // The release that describes it is kept, however old it is.
    let mut few = with_env(stack(), "api", "five");
    few.deploy.keep = 1;
    world.deploy(few).await.unwrap();
    assert_eq!(world.releases("shop").await, [1, 4, 5]);
    world.orchestrator.destroy(&app("shop")).await.unwrap();
    world.until("nothing is left", async || world.machine.inventory().is_empty()).await;
}

#[tokio::test]
async fn a_deployment_that_changes_nothing_touches_nothing() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    let before = world.started();
    let (deployed, notes) = world.deploy_with(stack(), StatefulChanges::None).await.unwrap();
    assert_eq!(deployed.deployment.outcome, Some(Outcome::Unchanged));
    assert_eq!((deployed.release.number.get(), world.releases("shop").await), (1, vec![1]));
    assert!(notes.iter().any(|note| note.contains("nothing changed")), "{notes:?}");
    assert_eq!((world.started(), world.instances()), (before, FIRST.map(str::to_owned).to_vec()));
    // Configuration that was kept for the next release is a change.
    let change = coracle_store::ConfigChange {
        name: "COLOUR".parse().unwrap(),
        value: Some(coracle_model::Secret::new("red")),
        secret: false,
    };
    world.orchestrator.keep_config(&app("shop"), &[change]).await.unwrap();
    let (deployed, _) = world.deploy_with(stack(), StatefulChanges::None).await.unwrap();
    assert_eq!(deployed.deployment.outcome, Some(Outcome::Succeeded));
    assert_eq!(deployed.release.number.get(), 2, "what changed nothing has used up no number");
    assert!(world.instances().contains(&"shop.v1.db.1".to_owned()), "services see the configuration they name only");
}

#[tokio::test]
async fn what_keeps_data_changes_on_purpose_only() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    let refused = world.deploy(with_newer_db(stack())).await.unwrap_err();
    let OrchestratorError::Deployment { phase, cause, hint, .. } = refused else { panic!("{refused}") };
    assert_eq!(phase, Phase::Validate);
    assert!(cause.contains("db (the image)") && hint.contains("--recreate-services db"), "{cause}; {hint}");
    assert_eq!(world.instances(), FIRST);
    let plan = world.orchestrator.plan(world.request(with_newer_db(stack()))).await.unwrap().steps;
    assert!(plan.iter().any(|line| line.contains("db (keeps data): the image changed; refused")), "{plan:?}");

    let (_, notes) =
        world.deploy_with(with_newer_db(stack()), StatefulChanges::Named(BTreeSet::from([name("db")]))).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("db is replaced")), "{notes:?}");
    assert!(world.instances().contains(&"shop.v3.db.1".to_owned()) && !world.instances().contains(&"shop.v1.db.1".to_owned()));
    let held = world.proxy.tables.lock().unwrap().iter().any(|table| {
        table
            .services
            .values()
            .any(|service| matches!(service.admission, Admission::Hold { deadline_ms, .. } if deadline_ms != 15_000))
    });
    assert!(held, "requests wait while it is replaced");

    world.rollback(None).await.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v4 web.1"));
    assert!(world.instances().contains(&"shop.v3.db.1".to_owned()), "it stays unless it is named");
    let (app, first, silent, cancel) = (app("shop"), "v1".parse().unwrap(), Progress::silent(), CancellationToken::new());
    world.orchestrator.rollback(&app, Some(first), StatefulChanges::All, &silent, &cancel).await.unwrap();
    assert!(world.instances().contains(&"shop.v5.db.1".to_owned()) && !world.instances().contains(&"shop.v3.db.1".to_owned()));
}

#[tokio::test]
async fn a_service_that_the_file_forgets_goes_on_until_somebody_says_otherwise() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    let mut without = stack();
    without.services.clear();
    without.processes.values_mut().for_each(|part| part.depends_on.retain(|on, _| on.as_str() != "db"));
    let OrchestratorError::Deployment { cause, .. } = world.deploy(without.clone()).await.unwrap_err() else { panic!() };
    assert!(cause.contains("not in the file any more"), "{cause}");
    world.deploy_with(without, StatefulChanges::All).await.unwrap();
    assert!(!world.instances().iter().any(|instance| instance.contains(".db.")));
    assert_eq!(world.machine.inventory().volumes.len(), 1, "its volume stays");
    // Back again: the same volume, a new instance.
    world.rollback(None).await.unwrap();
    assert!(world.instances().contains(&"shop.v4.db.1".to_owned()), "{:?}", world.instances());
}

/// A stack whose database has a page for browsers.
fn with_page(mut stack: AppSpec) -> AppSpec {
    let http = HttpSpec { health: Some("/up".to_owned()), ..HttpSpec::default_for(&app("admin")) };
    stack.services.get_mut(&name("db")).unwrap().exposure = Exposure::Http(Box::new(http));
    stack
}

#[tokio::test]
async fn requests_on_a_service_that_goes_run_out_first() {
    let world = World::new().await;
    world.deploy(with_page(stack())).await.unwrap();
    assert_eq!(world.get("shop.db").await.as_deref(), Ok("v1 db.1"));
    let mut without = stack();
    without.services.clear();
    without.processes.values_mut().for_each(|part| part.depends_on.retain(|on, _| on.as_str() != "db"));
    world.deploy_with(without, StatefulChanges::All).await.unwrap();
    let drained = world.proxy.drained.lock().unwrap().clone();
    assert!(drained.iter().any(|target| target.0 == "shop.v1.db.1"), "{drained:?}");
    assert!(!world.instances().iter().any(|instance| instance.contains(".db.")));
}

/// A stack of one web app that labels route.
fn labelled(name_of_app: &str, rule: &str) -> AppSpec {
    let mut stack = spec(name_of_app);
    let mut web = part("web:1", &[]);
    web.exposure = Exposure::Labels { port: Some(8000) };
    let labels = [("traefik.enable", "true"), (&format!("traefik.http.routers.{name_of_app}.rule"), rule)];
    web.container.labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
    stack.processes = [(name("web"), web)].into();
    stack
}

#[tokio::test]
async fn an_exact_host_by_labels_goes_before_the_pattern_of_another_apps_manifest() {
    let world = World::new().await;
    world.deploy(labelled("brk", "Host(`brk.localhost`)")).await.unwrap();
    let mut wide = spec("wide");
    wide.http.hosts = vec!["*.localhost".parse().unwrap(), "exact.localhost".parse().unwrap()];
    world.deploy(wide).await.unwrap();
    let table = world.proxy.tables.lock().unwrap().last().cloned().unwrap();
    let priority = |part: &str| table.routes.iter().find(|route| route.rule.contains(part)).unwrap().priority.unwrap_or(0);
    assert!(priority("`brk.localhost`") > priority("HostRegexp"), "{:#?}", table.routes);
    assert!(priority("`exact.localhost`") > priority("`brk.localhost`"), "{:#?}", table.routes);
}

#[tokio::test]
async fn two_apps_that_want_the_same_requests_are_told_before_anything_is_made() {
    let world = World::new().await;
    world.deploy(labelled("shop", "Host(`shop.example`) && PathPrefix(`/api`)")).await.unwrap();
    let made = world.machine.inventory().artifacts.len();
    let same = labelled("other", "(Host(`SHOP.example`)&&PathPrefix(`/api`))");
    let OrchestratorError::Deployment { phase, cause, .. } = world.deploy(same.clone()).await.unwrap_err() else { panic!() };
    assert_eq!(phase, Phase::Validate);
    assert!(cause.starts_with("the rule ") && cause.ends_with("belongs to the app shop"), "{cause}");
    assert_eq!(world.machine.inventory().artifacts.len(), made);
    let plan = world.orchestrator.plan(world.request(same)).await.unwrap().steps;
    assert!(plan.iter().any(|line| line.contains("REFUSED") && line.contains("belongs to the app shop")), "{plan:?}");
    // A host by the manifest and the same by a label are the same.
    world.deploy(labelled("third", "Host(`blog.localhost`)")).await.unwrap();
    let OrchestratorError::Deployment { cause, .. } = world.deploy(spec("blog")).await.unwrap_err() else { panic!() };
    assert_eq!(cause, "the rule Host(`blog.localhost`) belongs to the app third");
    // Another path is another route, and an app does not stand in its own way.
    world.deploy(labelled("other", "Host(`shop.example`) && PathPrefix(`/shop`)")).await.unwrap();
    let mut again = labelled("shop", "Host(`shop.example`) && PathPrefix(`/api`)");
    again.deploy.keep = 4;
    world.deploy(again).await.unwrap();
}

#[tokio::test]
async fn a_replaced_service_comes_back_if_the_release_fails() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    world.machine.script(Which::process(2, "web"), Script::exits(1, &["no"]));
    assert!(world.deploy_with(with_newer_db(stack()), StatefulChanges::All).await.is_err());
    world.until("the old database runs again", async || world.instances() == FIRST).await;
    world.until_answers("shop", "v1 web.1").await;
    // Requests waited while the new one came, and again while the old one came back.
    assert_eq!(world.holds("shop"), [false, true, false, true, false]);
    // One that cannot even be started as well.
    world.machine.script(Which::process(3, "db"), Script::cannot_start("no such file"));
    assert!(world.deploy_with(with_newer_db(stack()), StatefulChanges::All).await.is_err());
    world.until("the old database runs again", async || world.instances() == FIRST).await;
    world.until_answers("shop", "v1 web.1").await;
}

#[tokio::test]
async fn the_first_deployment_that_fails_leaves_nothing_but_data() {
    let world = World::new().await;
    world.machine.script(Which::process(1, "migrate"), Script::exits(3, &["table exists"]));
    let OrchestratorError::Deployment { cause, evidence, .. } = world.deploy(stack()).await.unwrap_err() else { panic!() };
    assert_eq!((cause.as_str(), evidence), ("the task migrate failed: exit code 3", vec!["table exists".to_owned()]));
    let left = world.machine.inventory();
    assert!(left.instances.is_empty() && left.releases.is_empty() && left.artifacts.is_empty(), "{left:?}");
    assert_eq!(left.volumes.len(), 1);
}

#[tokio::test]
async fn what_an_engine_that_is_away_still_has_of_a_destroyed_app_goes_when_it_is_back() {
    let mut world = World::new().await;
    world.deploy(stack()).await.unwrap();
    world.machine.set_available(false);
    let error = world.orchestrator.destroy(&app("shop")).await.unwrap_err().to_string();
    assert!(error.contains("as soon as the engine answers"), "{error}");
    assert!(world.store.apps().await.unwrap().is_empty(), "it is forgotten all the same");
    // Another app of that name must not find its predecessor's volumes, nor lose its own with them.
    assert!(world.deploy(stack()).await.is_err());
    assert!(world.store.apps().await.unwrap().is_empty());
    // It is remembered by the next server, too.
    world.restart_server().await;
    world.machine.set_available(true);
    world.until("nothing is left", async || world.machine.inventory().is_empty()).await;
    world.until("and nobody looks for it any more", async || world.store.remains().await.unwrap().is_empty()).await;
    world.deploy(stack()).await.unwrap();
    assert_eq!(world.instances(), FIRST);
}

#[tokio::test]
async fn a_service_that_ends_is_started_again_and_joined_again() {
    let world = World::new().await;
    world.deploy(stack()).await.unwrap();
    world.deploy(with_env(stack(), "api", "two")).await.unwrap();
    assert!(world.machine.crash(&id("shop.v1.db.1")));
    world.until("the database runs again", async || world.started().iter().filter(|id| *id == "shop.v1.db.1").count() == 2).await;
    assert_eq!(world.joins("shop.v1.db.1"), [2]);
}

#[tokio::test]
async fn what_says_never_is_not_started_again_and_what_fails_only_so_often() {
    let world = World::new().await;
    let mut stack = stack();
    stack.processes.get_mut(&name("worker")).unwrap().container.restart = RestartPolicy::Never;
    stack.processes.get_mut(&name("cache")).unwrap().container.restart = RestartPolicy::OnFailure(Some(1));
    world.deploy(stack).await.unwrap();
    let count = |wanted: &str| world.started().iter().filter(|id| *id == wanted).count();
    world.machine.end(&id("shop.v1.worker.1"), coracle_engine::Exit { code: Some(0), ..Default::default() });
    world.machine.script(Which::process(1, "cache"), Script::exits(1, &[]));
    world.machine.end(&id("shop.v1.cache.1"), coracle_engine::Exit { code: Some(1), ..Default::default() });
    world.until("the cache was tried again", async || count("shop.v1.cache.1") == 2).await;
    // Something that happens afterwards has been seen to.
    world.machine.crash(&id("shop.v1.api.1"));
    world.until("the api runs again", async || count("shop.v1.api.1") == 2).await;
    assert_eq!((count("shop.v1.worker.1"), count("shop.v1.cache.1")), (1, 2));
}

#[tokio::test]
async fn a_part_that_cannot_be_made_is_named() {
    let world = World::new().await;
    let lines = vec!["manifest unknown".to_owned()];
    world.machine.script_build(1, BuildScript::Fails { lines, step: "pull".to_owned(), code: 1 });
    let OrchestratorError::Deployment { phase, cause, .. } = world.deploy(stack()).await.unwrap_err() else { panic!() };
    assert_eq!(phase, Phase::Build);
    assert!(cause.starts_with("api: ") || cause.starts_with("cache: ") || cause.starts_with("web: "), "{cause}");
    assert!(world.machine.inventory().is_empty());
}

#[tokio::test]
async fn two_that_want_one_port_are_told_before_anything_starts() {
    let world = World::new().await;
    let port = PublishedPort { target: 5432, protocol: Default::default(), host: Some(15432), address: None };
    let mut first = stack();
    first.services.get_mut(&name("db")).unwrap().container.ports = vec![port.clone()];
    let mut clash = first.clone();
    clash.processes.get_mut(&name("cache")).unwrap().container.ports = vec![port.clone()];
    let OrchestratorError::Deployment { cause, .. } = world.deploy(clash).await.unwrap_err() else { panic!() };
    assert_eq!(cause, "cache and db both want port 15432/tcp of this machine");
    world.deploy(first).await.unwrap();
    let mut other = spec("other");
    other.processes.insert(name("web"), ProcessSpec { container: Box::default(), ..ProcessSpec::default() });
    other.processes.get_mut(&name("web")).unwrap().container.ports = vec![port];
    let OrchestratorError::Deployment { cause, .. } = world.deploy(other).await.unwrap_err() else { panic!() };
    assert_eq!(cause, "the port 15432/tcp of this machine belongs to the app shop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_server_dies_one_database_and_one_release_run() {
    for phase in
        [Phase::Validate, Phase::Build, Phase::Services, Phase::Start, Phase::Probe, Phase::Switch, Phase::Drain, Phase::Stop]
    {
        let mut world = World::new().await;
        world.deploy(stack()).await.unwrap();
        world.deploy_and_die_in(with_env(stack(), "web", "two"), phase).await;
        world.restart_server().await;
        let number = if phase < Phase::Switch { 1 } else { 2 };
        let mut expected: Vec<String> =
            ["api", "cache", "web", "worker"].map(|process| format!("shop.v{number}.{process}.1")).to_vec();
        expected.push("shop.v1.db.1".to_owned());
        expected.sort();
        world.until(&format!("one release runs after {phase}"), async || world.instances() == expected).await;
        world.until_answers("shop", &format!("v{number} web.1")).await;
        assert_eq!(world.started().iter().filter(|id| id.contains(".db.")).count(), 1, "{phase}");
    }
}

#[tokio::test]
async fn health_checks_of_their_own_are_run_inside() {
    let world = World::new().await;
    let ready = Arc::new(Mutex::new(0));
    let asked = ready.clone();
    world.machine.install(move |argv, _| {
        if argv != ["pg_isready"] {
            return None;
        }
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        Some(if *asked < 3 { Script::exits(2, &["no response"]) } else { Script::exits(0, &[]) })
    });
    let mut stack = stack();
    let health = coracle_model::container::HealthCheck {
        test: coracle_model::container::HealthTest::Exec(vec!["pg_isready".to_owned()]),
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    };
    stack.services.get_mut(&name("db")).unwrap().container.health = Some(health);
    world.machine.script(Which::process(1, "db"), Script::never_listens().health(Health::Starting));
    world.deploy(stack).await.unwrap();
    assert_eq!(*ready.lock().unwrap(), 3);
}

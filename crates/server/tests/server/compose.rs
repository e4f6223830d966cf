//! Compose files, sent and deployed.

use coracle_api::{
    ClientError, ConfigChange, ConfigPatch, ConfigSet, DeployOptions, DeploymentEvent, Outcome, Problem, ProblemKind, Source,
};
use coracle_engine::fake::{Script, Which};
use coracle_model::EngineKind;

use crate::harness::{Env, QUICK, all, app, attached, outcome, tree};

const SHOP: &str = r#"
services:
  web:
    image: web:${TAG:-1}
    ports: ["8080:8000"]
    environment: {GREETING: "${GREETING:-hello}"}
    depends_on: {db: {condition: service_started}}
  db: {image: "postgres:16", volumes: ["data:/var/lib/postgresql/data"]}
volumes: {data: {}}
x-coracle: {watch: "0s", drain: 1s, grace: 1s, timeout: 20s}
"#;

async fn deploy(env: &Env, files: &[(&str, &str)], options: &DeployOptions) -> Result<Vec<DeploymentEvent>, Problem> {
    match env.client.deploy(&app("shop"), options, Source::from_bytes(tree(files))).await {
        Ok(events) => Ok(all(events).await),
        Err(ClientError::Problem(problem)) => Err(*problem),
        Err(error) => panic!("{error}"),
    }
}

fn notes(events: &[DeploymentEvent]) -> String {
    let text = |event: &DeploymentEvent| match event {
        DeploymentEvent::Note { text } => Some(format!("{text}\n")),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_compose_file_is_deployed_with_the_configuration_as_its_variables() {
    let env = Env::start_on(EngineKind::Docker).await;
    let events = deploy(&env, &[("compose.yaml", SHOP)], &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert!(notes(&events).contains("db keeps data"), "{}", notes(&events));
    let again = deploy(&env, &[("compose.yaml", SHOP)], &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&again), Some(&Outcome::Unchanged));
    let instances = || env.machine.inventory().instances.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(instances(), ["shop.v1.db.1", "shop.v1.web.1"]);

    // An override, an environment file and the configuration each have their say, the last one above all.
    let change = ConfigChange { name: "GREETING".parse().unwrap(), value: Some("configured".into()), secret: false };
    let patch = ConfigPatch { changes: vec![change], no_deploy: true };
    env.client.set_config(&app("shop"), &patch, attached()).await.unwrap();
    let files = [
        ("compose.yaml", SHOP),
        ("compose.override.yaml", "services: {web: {environment: {EXTRA: more}}}"),
        (".env", "GREETING=from-file\nTAG=2\n"),
    ];
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    let web = env.machine.spec(&"shop.v2.web.1".parse().unwrap()).unwrap().surroundings.container;
    let value = |name: &str| web.env[name].expose().to_owned();
    assert_eq!((value("GREETING"), value("EXTRA")), ("configured".to_owned(), "more".to_owned()));
    // The deployment that changed nothing has used up no number.
    assert_eq!(instances(), ["shop.v1.db.1", "shop.v2.web.1"]);

    // What keeps data changes with a word only.
    let newer = SHOP.replace("postgres:16", "postgres:17");
    let events = deploy(&env, &[("compose.yaml", &newer)], &DeployOptions::default()).await.unwrap();
    let Some(Outcome::Failed { cause, .. }) = outcome(&events) else { panic!("{events:#?}") };
    assert!(cause.contains("db (the image)"), "{cause}");
    let word = DeployOptions { recreate_services: Some("db".into()), ..DeployOptions::default() };
    let events = deploy(&env, &[("compose.yaml", &newer)], &word).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(instances(), ["shop.v4.db.1", "shop.v4.web.1"]);
    let forced = DeployOptions { force: true, ..DeployOptions::default() };
    let events = deploy(&env, &[("compose.yaml", &newer)], &forced).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(instances(), ["shop.v4.db.1", "shop.v5.web.1"]);
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place_and_can_be_overlooked() {
    let env = Env::start_on(EngineKind::Docker).await;
    let odd = SHOP.replace("    ports:", "    mac_address: 92:d0:c6:0a:29:33\n    ports:");
    let problem = deploy(&env, &[("compose.yaml", &odd)], &DeployOptions::default()).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Invalid);
    assert!(problem.detail.starts_with("compose.yaml:5:5: services.web.mac_address: "), "{problem:?}");
    let anyway = DeployOptions { ignore_unsupported: true, ..DeployOptions::default() };
    let events = deploy(&env, &[("compose.yaml", &odd)], &anyway).await.unwrap();
    assert!(notes(&events).contains("not honoured: compose.yaml:5:5"), "{}", notes(&events));

    let problem = deploy(&env, &[("compose.yaml", "services: {web: {imagge: x}}")], &DeployOptions::default()).await.unwrap_err();
    assert!(problem.detail.contains("compose.yaml:1:"), "{problem:?}");
    for files in ["../compose.yaml", "/etc/passwd"] {
        let options = DeployOptions { compose_files: Some(files.into()), ..DeployOptions::default() };
        let problem = deploy(&env, &[("compose.yaml", SHOP)], &options).await.unwrap_err();
        assert!(problem.detail.contains("outside of the folder"), "{problem:?}");
    }
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn nothing_of_the_servers_own_files_is_read() {
    let env = Env::start_on(EngineKind::Docker).await;
    for outside in [
        "include: [../../../../../../../../etc/hostname]\nservices: {a: {image: a}}",
        "services: {a: {image: a, extends: {file: /etc/hostname, service: a}}}",
        "services: {a: {image: a, env_file: /etc/hostname}}",
        "services: {a: {image: a, env_file: ../../../../../../../../etc/hostname}}",
        "services: {a: {image: a, label_file: /etc/hostname}}",
        "include: [{path: b.yaml, env_file: /etc/hostname}]\nservices: {a: {image: a}}",
    ] {
        let files = [("compose.yaml", outside), ("b.yaml", "services: {b: {image: b}}")];
        let problem = deploy(&env, &files, &DeployOptions::default()).await.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Invalid);
        assert!(problem.detail.contains("outside of the folder"), "{outside}: {problem:?}");
    }
    let files = [("compose.yaml", "services: {a: {image: a}}"), (".env", "COMPOSE_ENV_FILES=/etc/hostname")];
    let problem = deploy(&env, &files, &DeployOptions::default()).await.unwrap_err();
    assert!(problem.detail.contains("outside of the folder"), "{problem:?}");
    let state = "services: {a: {image: a, volumes: [\"../../mounts:/x\"]}}";
    let problem = deploy(&env, &[("compose.yaml", state)], &DeployOptions::default()).await.unwrap_err();
    assert!(problem.detail.contains("the server's own state"), "{problem:?}");
    assert!(env.incoming_is_empty());
}

fn live_hosts(events: &[DeploymentEvent]) -> Vec<String> {
    let hosts = |event: &DeploymentEvent| match event {
        DeploymentEvent::Live { hosts, .. } => Some(hosts.clone()),
        _ => None,
    };
    events.iter().find_map(hosts).unwrap()
}

/// A manifest that says nothing about what runs leaves that to the compose file, and lies over it with the keys it has.
#[tokio::test]
async fn the_keys_of_a_manifest_lie_over_a_compose_file_beside_it() {
    let env = Env::start_on(EngineKind::Docker).await;
    let x_coracle = "x-coracle: {hosts: [compose.example], watch: \"0s\", drain: 1s, grace: 1s, timeout: 20s, keep: 3}";
    let shop = SHOP.replace(SHOP.lines().last().unwrap(), x_coracle);
    let manifest = "app = \"shop\"\n[deploy]\nkeep = 5\n[env]\nCOLOUR = \"red\"\n";
    let files = [("coracle.toml", manifest), ("Dockerfile", "FROM x\n"), ("compose.yaml", shop.as_str())];
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert!(notes(&events).contains("db keeps data"));
    assert_eq!(live_hosts(&events), ["compose.example"]);
    let web = env.machine.spec(&"shop.v1.web.1".parse().unwrap()).unwrap();
    assert!(web.env.iter().any(|(name, value)| name.as_str() == "COLOUR" && value.expose() == "red"));
    // Its own hosts go before those of the compose file.
    let manifest = format!("{manifest}[http]\nhosts = [\"shop.example\"]\n");
    let files = [("coracle.toml", manifest.as_str()), ("compose.yaml", shop.as_str())];
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(live_hosts(&events), ["shop.example"]);
    // Others keep what the compose file says: two releases after this one, the first is still there, by the manifest's word.
    for number in 3..=6 {
        let files = [("coracle.toml", manifest.as_str()), ("compose.yaml", shop.as_str()), (".env", &format!("TAG={number}"))];
        deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    }
    assert_eq!(env.client.releases(&app("shop")).await.unwrap().len(), 6, "five, and the one that describes the database");
}

#[tokio::test]
async fn a_manifest_that_says_what_runs_goes_before_a_compose_file_unless_that_is_named() {
    let env = Env::start_on(EngineKind::Docker).await;
    let manifest = format!("{QUICK}[http]\nhosts = [\"shop.example\"]\n[build]\ndockerfile = \"Dockerfile\"\n");
    let files = [("coracle.toml", manifest.as_str()), ("Dockerfile", "FROM x\n"), ("compose.yaml", SHOP), ("prod.yaml", SHOP)];
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    let told = notes(&events);
    assert!(!told.contains("keeps data") && told.contains("compose.yaml is not used, since coracle.toml has [build]"), "{told}");
    let named = DeployOptions { compose_files: Some("prod.yaml".into()), ..DeployOptions::default() };
    let events = deploy(&env, &files, &named).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(live_hosts(&events), ["shop.example"]);
    assert!(notes(&events).contains("[build] of coracle.toml does not count"), "{}", notes(&events));
    let plan = Source::from_bytes(tree(&files));
    let steps = env.client.plan(&app("shop"), &named, plan).await.unwrap().steps;
    assert!(steps.iter().any(|step| step.contains("db (keeps data): stays")), "{steps:#?}");
}

#[tokio::test]
async fn a_manifest_names_the_compose_files_for_whoever_cannot_type_them() {
    let env = Env::start_on(EngineKind::Docker).await;
    let manifest = format!(
        "app = \"store\"\n{QUICK}[compose]\nfiles = [\"nowhere.yaml\"]\n[environments.live]\napp = \"shop\"\n\
         [environments.live.compose]\nfiles = [\"deploy/live.yaml\"]\n"
    );
    let files = [("coracle.toml", manifest.as_str()), ("deploy/live.yaml", SHOP), ("compose.yaml", "services: {}")];
    // The app's name says which environment is meant.
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert!(env.machine.spec(&"shop.v1.db.1".parse().unwrap()).is_some());
    let typed = DeployOptions { compose_files: Some("compose.yaml".into()), ..DeployOptions::default() };
    let problem = deploy(&env, &files, &typed).await.unwrap_err();
    assert!(problem.detail.contains("no service to run"), "{problem:?}");
}

fn setting(name: &str, value: &str, no_deploy: bool) -> ConfigPatch {
    let change = ConfigChange { name: name.parse().unwrap(), value: Some(value.into()), secret: false };
    ConfigPatch { changes: vec![change], no_deploy }
}

async fn configure(env: &Env, patch: &ConfigPatch, wait: bool) -> Vec<DeploymentEvent> {
    let options = coracle_api::ChangeOptions { wait, ..attached() };
    match env.client.set_config(&app("shop"), patch, options).await.unwrap() {
        ConfigSet::Deploying(events) => all(events).await,
        ConfigSet::Stored(_) => Vec::new(),
    }
}

/// What an instance's environment says, by the compose file.
fn greeting(env: &Env, instance: &str) -> String {
    env.machine.spec(&instance.parse().unwrap()).unwrap().surroundings.container.env["GREETING"].expose().to_owned()
}

#[tokio::test]
async fn a_variable_that_changes_is_filled_into_the_files_of_the_active_release() {
    let env = Env::start_on(EngineKind::Docker).await;
    let files = [("compose.yaml", SHOP), (".env", "TAG=7\n")];
    deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    let events = configure(&env, &setting("GREETING", "good morning", false), false).await;
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(greeting(&env, "shop.v2.web.1"), "good morning");
    let releases = env.client.releases(&app("shop")).await.unwrap();
    assert!(releases[1].description.contains("GREETING"), "{}", releases[1].description);
    let made = env.machine.inventory().artifacts.len();

    // The same files, read in the same way: also after a rollback, a restart, and a change that was kept for later.
    all(env.client.rollback(&app("shop"), None, attached()).await.unwrap()).await;
    assert_eq!(greeting(&env, "shop.v3.web.1"), "hello");
    configure(&env, &setting("LATER", "now", true), false).await;
    let events = configure(&env, &setting("GREETING", "good night", false), false).await;
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(greeting(&env, "shop.v4.web.1"), "good night");
    let web = env.machine.spec(&"shop.v4.web.1".parse().unwrap()).unwrap();
    assert!(web.env.iter().any(|(name, _)| name.as_str() == "LATER"), "what was kept for the next release is in it");
    assert_eq!(env.machine.inventory().artifacts.len(), made, "nothing is fetched for it");

    // One that the files cannot do without, one that changes what keeps data, and one that leads nowhere, change nothing.
    let needy = SHOP.replace("${TAG:-1}", "${TAG:?}").replace("postgres:16", "postgres:${PG:-16}");
    let events = deploy(&env, &[("compose.yaml", &needy), (".env", "TAG=7\n")], &DeployOptions::default()).await.unwrap();
    // It comes to the same, but will be read from now on.
    assert_eq!(outcome(&events), Some(&Outcome::Unchanged), "{events:#?}");
    let events = configure(&env, &setting("PG", "17", false), false).await;
    let Some(Outcome::Failed { cause, .. }) = outcome(&events) else { panic!("{events:#?}") };
    assert!(cause.contains("db (the image)"), "{cause}");
    let config = env.client.config(&app("shop")).await.unwrap();
    assert!(!config.iter().any(|entry| entry.name.as_str() == "PG"), "{config:?}");
    assert_eq!(greeting(&env, "shop.v4.web.1"), "good night");
    assert!(env.incoming_is_empty());
    env.client.destroy(&app("shop")).await.unwrap();
    assert!(!env.state_dir().join("mounts/shop").exists());
}

#[tokio::test]
async fn a_change_of_configuration_that_came_first_counts_for_the_deployment_behind_it() {
    let env = Env::start_on(EngineKind::Docker).await;
    let quick = [("compose.yaml", SHOP)];
    deploy(&env, &quick, &DeployOptions::default()).await.unwrap();
    env.machine.script(Which::process(2, "web"), Script::never_listens());
    let send = async |files: &[(&str, &str)], options: DeployOptions| {
        env.client.deploy(&app("shop"), &options, Source::from_bytes(tree(files))).await.unwrap()
    };
    // It waits for a first healthy answer that does not come, while others ask for their turns.
    let stuck = send(&quick, DeployOptions { force: true, ..DeployOptions::default() }).await;
    let waits = coracle_api::ChangeOptions { wait: true, ..attached() };
    let change = setting("GREETING", "first", false);
    let ConfigSet::Deploying(first) = env.client.set_config(&app("shop"), &change, waits).await.unwrap() else { panic!() };
    let needy = SHOP.replace("${GREETING:-hello}", "${GREETING:?it must be set}, then").replace("image: web:", "image: web2:");
    let second = send(&[("compose.yaml", &needy)], DeployOptions { wait: true, ..DeployOptions::default() }).await;
    drop(stuck);
    for events in [first, second] {
        let events = all(events).await;
        assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    }
    assert_eq!(greeting(&env, "shop.v4.web.1"), "first, then");
}

#[tokio::test]
async fn an_app_whose_every_service_keeps_data_is_deployed_and_tells_where_it_is_reached() {
    const WEBLOG: &str = r#"
services:
  wordpress:
    image: wordpress
    ports: ["8080:80"]
    volumes: ["wordpress:/var/www/html"]
    depends_on: [db]
  db: {image: "mariadb:11", volumes: ["data:/var/lib/mysql"]}
volumes: {wordpress: , data: }
x-coracle: {watch: "0s", drain: 1s, grace: 1s, timeout: 20s}
"#;
    let env = Env::start_on(EngineKind::Docker).await;
    let options = DeployOptions::default();
    let source = Source::from_bytes(tree(&[("compose.yaml", WEBLOG)]));
    let plan = env.client.plan(&app("shop"), &options, source).await.unwrap();
    assert!(plan.steps.iter().any(|line| line == "wordpress (keeps data): created, image wordpress"), "{:?}", plan.steps);
    let events = deploy(&env, &[("compose.yaml", WEBLOG)], &options).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    let status = env.client.app(&app("shop")).await.unwrap();
    assert_eq!((status.hosts, status.services.len(), status.processes.len()), (vec!["shop.localhost".to_owned()], 2, 0));
    let listed = env.client.apps().await.unwrap();
    assert_eq!((listed[0].hosts.as_slice(), listed[0].running), (["shop.localhost".to_owned()].as_slice(), 2));
}

#[tokio::test]
async fn files_without_a_service_to_run_say_so() {
    let env = Env::start_on(EngineKind::Docker).await;
    for text in ["services: {}", "services: {debug: {image: debug, profiles: [debug]}}"] {
        let source = Source::from_bytes(tree(&[("compose.yaml", text)]));
        let Err(ClientError::Problem(problem)) = env.client.plan(&app("shop"), &DeployOptions::default(), source).await else {
            panic!("{text} was planned")
        };
        assert!(problem.detail.starts_with("the compose files have no service to run"), "{problem:?}");
        assert_eq!(problem.hint.as_deref(), Some("name a profile: coracle deploy --profile NAME"));
    }
}

/// Text that cannot be pressed into half its bytes.
fn noise(bytes: usize) -> String {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    (0..bytes / 16).map(|_| next()).collect()
}

#[tokio::test]
async fn a_source_that_is_too_large_to_be_kept_says_what_config_set_will_not_do() {
    let env = Env::start_on(EngineKind::Docker).await;
    let large = noise(3 << 20);
    let events = deploy(&env, &[("compose.yaml", SHOP), ("data", &large)], &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert!(notes(&events).contains("larger than 1M, so it is not kept"), "{}", notes(&events));
    let change = ConfigChange { name: "GREETING".parse().unwrap(), value: Some("other".into()), secret: false };
    let patch = ConfigPatch { changes: vec![change], no_deploy: false };
    let ConfigSet::Deploying(events) = env.client.set_config(&app("shop"), &patch, attached()).await.unwrap() else {
        panic!("nothing is deployed")
    };
    let told = notes(&all(events).await);
    assert!(told.contains("the compose files of v1 are not kept"), "{told}");
}

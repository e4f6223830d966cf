//! Compose files, sent and deployed.

use coracle_api::{
    ClientError, ConfigChange, ConfigPatch, DeployOptions, DeploymentEvent, Outcome, Problem, ProblemKind, Source,
};
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
    let web = env.machine.spec(&"shop.v3.web.1".parse().unwrap()).unwrap().surroundings.container;
    let value = |name: &str| web.env[name].expose().to_owned();
    assert_eq!((value("GREETING"), value("EXTRA")), ("configured".to_owned(), "more".to_owned()));
    assert_eq!(instances(), ["shop.v1.db.1", "shop.v3.web.1"]);

    // What keeps data changes with a word only.
    let newer = SHOP.replace("postgres:16", "postgres:17");
    let events = deploy(&env, &[("compose.yaml", &newer)], &DeployOptions::default()).await.unwrap();
    let Some(Outcome::Failed { cause, .. }) = outcome(&events) else { panic!("{events:#?}") };
    assert!(cause.contains("db (the image)"), "{cause}");
    let word = DeployOptions { recreate_services: Some("db".into()), ..DeployOptions::default() };
    let events = deploy(&env, &[("compose.yaml", &newer)], &word).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert_eq!(instances(), ["shop.v5.db.1", "shop.v5.web.1"]);
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

#[tokio::test]
async fn a_manifest_goes_before_a_compose_file_unless_that_is_named() {
    let env = Env::start_on(EngineKind::Docker).await;
    let manifest = format!("{QUICK}[http]\nhosts = [\"shop.example\"]\n");
    let files = [("coracle.toml", manifest.as_str()), ("Dockerfile", "FROM x\n"), ("compose.yaml", SHOP), ("prod.yaml", SHOP)];
    let events = deploy(&env, &files, &DeployOptions::default()).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    assert!(!notes(&events).contains("keeps data"));
    let named = DeployOptions { compose_files: Some("prod.yaml".into()), ..DeployOptions::default() };
    let events = deploy(&env, &files, &named).await.unwrap();
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    let live = events.iter().find_map(|event| match event {
        DeploymentEvent::Live { hosts, .. } => Some(hosts.clone()),
        _ => None,
    });
    assert_eq!(live.unwrap(), ["shop.example"]);
    let plan = Source::from_bytes(tree(&files));
    let steps = env.client.plan(&app("shop"), &named, plan).await.unwrap().steps;
    assert!(steps.iter().any(|step| step.contains("db (keeps data): stays")), "{steps:#?}");
}

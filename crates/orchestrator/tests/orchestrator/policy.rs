//! What the policy says: told once, and before anything is started.

use std::sync::{Arc, Mutex};

use coracle_model::policy::{Level, Rule};
use coracle_model::{AppSpec, EngineKind, Finding, ImageFacts, Phase};
use coracle_orchestrator::{Event, OrchestratorError, Progress};
use coracle_policy::Policy;
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, spec};

const VALUE: &str = "zq7-Unmistakable-0415";

/// What was found, whether it was known, and the notes.
#[derive(Default, Clone)]
struct Told {
    findings: Vec<(Finding, bool)>,
    notes: Vec<String>,
}

impl Told {
    fn rules(&self) -> Vec<(Rule, bool)> {
        self.findings.iter().map(|(finding, known)| (finding.rule, *known)).collect()
    }
}

fn on_docker() -> AppSpec {
    AppSpec { engine: Some(EngineKind::Docker), ..spec("shop") }
}

async fn deploy(world: &World, policy: &str) -> (Result<(), OrchestratorError>, Told) {
    let told = Arc::new(Mutex::new(Told::default()));
    let kept = told.clone();
    let progress = Progress::new(move |event| match event {
        Event::Finding { finding, known } => kept.lock().unwrap().findings.push((finding, known)),
        Event::Note(text) => kept.lock().unwrap().notes.push(text),
        _ => {}
    });
    let mut request = world.request(on_docker());
    request.policy = Policy::parse(policy).unwrap();
    let result = world.orchestrator.deploy(request, &progress, &CancellationToken::new()).await;
    let told = told.lock().unwrap().clone();
    (result.map(drop), told)
}

#[tokio::test]
async fn what_is_found_is_told_once_and_again_when_something_else_is_found() {
    let world = World::new().await;
    world.write("Dockerfile", "FROM debian:12\nUSER app\n");
    world.docker.set_image(ImageFacts::default());
    let (result, first) = deploy(&world, "").await;
    result.unwrap();
    assert_eq!(first.rules(), [(Rule::Root, false)]);
    let (result, second) = deploy(&world, "").await;
    result.unwrap();
    assert_eq!(second.rules(), [(Rule::Root, true)]);
    assert!(second.notes.iter().any(|note| note.starts_with("policy: one warning as before (root)")), "{:?}", second.notes);
    world.write("Dockerfile", "FROM debian\nUSER app\n");
    let (result, third) = deploy(&world, "").await;
    result.unwrap();
    assert_eq!(third.rules(), [(Rule::Root, false), (Rule::Latest, false)]);
    let (result, silent) = deploy(&world, "[policy]\nroot = \"off\"\nlatest = { level = \"off\", reason = \"x\" }").await;
    result.unwrap();
    assert!(silent.findings.is_empty() && !silent.notes.iter().any(|note| note.contains("policy")), "{:?}", silent.notes);
    let plan = world.orchestrator.plan(world.request(on_docker())).await.unwrap().findings;
    assert!(plan.iter().any(|finding| finding.rule == Rule::Latest), "{plan:?}");
}

#[tokio::test]
async fn what_is_blocked_starts_nothing_and_leaves_nothing() {
    let world = World::new().await;
    world.write("Dockerfile", "FROM debian:12\nARG TOKEN\nUSER app\n");
    let (result, _) = deploy(&world, "").await;
    result.unwrap();
    let change = coracle_store::ConfigChange { name: "TOKEN".parse().unwrap(), value: Some(VALUE.into()), secret: true };
    let silent = Progress::silent();
    world.orchestrator.set_config(&app("shop"), vec![change], &silent, &CancellationToken::new()).await.unwrap();
    let before = (world.docker.inventory(), world.docker.started(), world.releases("shop").await);
    world.docker.set_image(ImageFacts {
        user: "app".to_owned(),
        history: vec![format!("|1 TOKEN={VALUE} /bin/sh -c fetch")],
        ..ImageFacts::default()
    });
    world.runs("[pipeline.steps.test]\nrun = \"test\"\n");
    let (result, told) = deploy(&world, "").await;
    let error = result.unwrap_err();
    let OrchestratorError::Deployment { phase, cause, evidence, hint } = &error else { panic!("{error:?}") };
    assert_eq!(*phase, Phase::Build);
    assert!(cause.contains("secret-in-image: the value of TOKEN") && cause.contains("(Dockerfile:2)"), "{cause}");
    assert!(evidence.len() == 1 && hint.contains("secret-in-image = { level = \"off\""), "{evidence:?} {hint}");
    assert!(told.findings.iter().all(|(finding, known)| finding.level == Level::Block && !known), "{:?}", told.rules());
    assert!(!format!("{error:?} {:?} {:?}", told.findings, told.notes).contains(VALUE));
    assert_eq!((world.docker.inventory(), world.docker.started(), world.releases("shop").await), before);
    // Whoever means it says so.
    let (result, _) = deploy(&world, "[policy]\nsecret-in-image = \"off\"").await;
    result.unwrap();
}

//! Apps whose every part keeps data (a weblog and its database, as their makers ship them), and what is looked for before
//! anything is built.

use coracle_model::container::ExternalNetwork;
use coracle_model::stack::PullPolicy;
use coracle_model::{AppSpec, Condition, Dependency, Exposure, HttpSpec, ProcessName, ProcessSource, ProcessSpec};
use coracle_model::{Outcome, Phase};
use coracle_orchestrator::{DeployRequest, OrchestratorError, Progress, StatefulChanges, reached_at};
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, spec};

fn name(text: &str) -> ProcessName {
    text.parse().unwrap()
}

fn part(image: &str, volume: &str) -> ProcessSpec {
    ProcessSpec {
        source: Some(ProcessSource::Image { reference: image.to_owned(), pull: PullPolicy::Missing }),
        volumes: vec![volume.parse().unwrap()],
        exposure: Exposure::Hidden,
        ..ProcessSpec::default()
    }
}

/// A weblog that writes to a volume, with its database.
fn weblog() -> AppSpec {
    let mut weblog = spec("blog");
    let mut front = part("weblog:1", "html:/var/www/html");
    let http = HttpSpec { health: Some("/up".to_owned()), ..HttpSpec::default_for(&app("blog")) };
    front.exposure = Exposure::Http(Box::new(http));
    front.depends_on =
        [(name("db"), Dependency { condition: Condition::Started, required: true, restart: false })].into_iter().collect();
    weblog.services = [(name("front"), front), (name("db"), part("mariadb:11", "data:/var/lib/mysql"))].into();
    weblog.services_only = true;
    weblog
}

async fn refusal(world: &World, spec: AppSpec) -> (Phase, String, String) {
    let plan = world.orchestrator.plan(world.request(spec.clone())).await;
    let OrchestratorError::Deployment { phase, cause, hint, .. } = world.deploy(spec).await.unwrap_err() else { panic!() };
    assert!(plan.is_err(), "the plan says the same: {plan:?}");
    assert!(world.machine.inventory().artifacts.is_empty(), "nothing was built");
    (phase, cause, hint)
}

#[tokio::test]
async fn an_app_whose_every_part_keeps_data_is_deployed_changed_and_taken_back() {
    let world = World::new().await;
    let plan = world.orchestrator.plan(world.request(weblog())).await.unwrap().steps;
    assert!(plan.iter().any(|line| line == "front (keeps data): created, image weblog:1"), "{plan:?}");
    assert!(plan.iter().any(|line| line == "hosts: blog.localhost"), "{plan:?}");
    let first = world.deploy(weblog()).await.unwrap();
    assert_eq!(reached_at(&first.release), [("blog.localhost".to_owned(), "/".to_owned())]);
    assert_eq!(world.instances(), ["blog.v1.db.1", "blog.v1.front.1"]);
    world.until_answers("blog.front", "v1 front.1").await;
    let status = world.orchestrator.status(&app("blog")).await.unwrap();
    assert!(status.is_as_wanted() && status.services.len() == 2, "{status:?}");

    let again = world.deploy(weblog()).await.unwrap();
    assert_eq!(again.deployment.outcome, Some(Outcome::Unchanged));
    let mut newer = weblog();
    newer.services.get_mut(&name("front")).unwrap().source =
        Some(ProcessSource::Image { reference: "weblog:2".to_owned(), pull: PullPolicy::Missing });
    let OrchestratorError::Deployment { cause, .. } = world.deploy(newer.clone()).await.unwrap_err() else { panic!() };
    assert!(cause.contains("front (the image)"), "{cause}");
    let request = DeployRequest { stateful: StatefulChanges::All, ..world.request(newer) };
    world.orchestrator.deploy(request, &Progress::silent(), &CancellationToken::new()).await.unwrap();
    world
        .until("the new one answers", async || world.instances().iter().any(|id| id.ends_with(".front.1") && !id.contains("v1")))
        .await;
    let (silent, cancel) = (Progress::silent(), CancellationToken::new());
    world.orchestrator.rollback(&app("blog"), None, StatefulChanges::All, &silent, &cancel).await.unwrap();
    assert!(world.instances().contains(&"blog.v1.db.1".to_owned()), "{:?}", world.instances());
    world.orchestrator.destroy(&app("blog")).await.unwrap();
    world.until("nothing is left", async || world.machine.inventory().is_empty()).await;
}

#[tokio::test]
async fn a_network_of_others_that_is_not_there_is_told_before_anything_is_built() {
    let world = World::new().await;
    let mut weblog = weblog();
    let front = weblog.services.get_mut(&name("front")).unwrap();
    front.container.networks.push(ExternalNetwork { name: "edge".to_owned(), aliases: Vec::new(), address: None });
    let (phase, cause, hint) = refusal(&world, weblog).await;
    assert_eq!(phase, Phase::Validate);
    assert!(cause.starts_with("there is no network edge") && hint == "on the server: make the network edge", "{cause}; {hint}");
}

#[tokio::test]
async fn a_limit_that_the_engine_cannot_set_is_told_before_anything_is_built() {
    let world = World::new().await;
    let mut weblog = weblog();
    weblog.services.get_mut(&name("front")).unwrap().limits.delegate_cgroup = true;
    let OrchestratorError::Deployment { phase, cause, .. } = world.deploy(weblog).await.unwrap_err() else { panic!() };
    assert_eq!(phase, Phase::Validate);
    assert!(cause.starts_with("front: ") && cause.ends_with("cannot honour delegate_cgroup"), "{cause}");
}

#[tokio::test]
async fn labels_that_lead_nowhere_are_refused_and_say_how_variables_are_set() {
    let world = World::new().await;
    let mut weblog = weblog();
    let front = weblog.services.get_mut(&name("front")).unwrap();
    front.exposure = Exposure::Labels { port: Some(80) };
    front.container.labels = [("traefik.http.routers.blog.rule".to_owned(), "Host(``)".to_owned())].into();
    let (phase, cause, hint) = refusal(&world, weblog).await;
    assert_eq!(phase, Phase::Validate);
    assert!(cause.contains("router blog") && hint.contains("coracle config set -a blog"), "{cause}; {hint}");
}

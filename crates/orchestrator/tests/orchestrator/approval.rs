//! Releases that wait for a person: what may happen meanwhile, and how they go on.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coracle_model::{Bringer, Decision, Deployment, DeploymentId, Outcome, Phase, Secret};
use coracle_orchestrator::{Approver, Deployed, Event, OrchestratorError, Progress, Verdict, Word};
use coracle_store::Store;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::world::{World, app, spec};

/// A person who is asked, and says what the test wants.
struct Person {
    store: Store,
    asked: Notify,
    word: Mutex<Option<oneshot::Sender<Word>>>,
    superseded: Mutex<Vec<(DeploymentId, DeploymentId)>>,
}

impl Person {
    fn of(world: &World) -> Arc<Self> {
        let (asked, word, superseded) = (Notify::new(), Mutex::default(), Mutex::default());
        Arc::new(Self { store: world.store.clone(), asked, word, superseded })
    }

    fn says(&self, word: Word) {
        self.word.lock().unwrap().take().unwrap().send(word).unwrap();
    }

    async fn approves(&self, id: DeploymentId) {
        let decision = Decision { approved: true, by: Some("ana".parse().unwrap()), at: Timestamp::now(), reason: None };
        self.store.decide_deployment(id, &decision).await.unwrap();
        self.says(Word::Approved(decision));
    }

    async fn parked(&self) -> Deployment {
        self.asked.notified().await;
        self.store.parked_deployment(&app("shop")).await.unwrap().unwrap()
    }
}

#[async_trait]
impl Approver for Person {
    fn brought_by(&self) -> Bringer {
        Bringer::Person("ben".parse().unwrap())
    }

    async fn step_aside(&self, _waiting: &Deployment) {}

    async fn decide(&self, _waiting: &Deployment) -> Verdict {
        let (said, word) = oneshot::channel();
        *self.word.lock().unwrap() = Some(said);
        self.asked.notify_one();
        let word = word.await.unwrap();
        let has_turn = !matches!(word, Word::Superseded(_) | Word::CalledOff);
        Verdict { word, has_turn }
    }

    async fn supersede(&self, waiting: DeploymentId, by: DeploymentId) -> bool {
        self.superseded.lock().unwrap().push((waiting, by));
        self.says(Word::Superseded(by));
        while self.store.deployment(waiting).await.unwrap().unwrap().outcome.is_none() {
            tokio::task::yield_now().await;
        }
        true
    }
}

type Ended = tokio::task::JoinHandle<(Result<Deployed, OrchestratorError>, Vec<String>)>;

/// A deployment of the tree by somebody who is asked.
fn deploys(world: &World, person: &Arc<Person>) -> Ended {
    let (orchestrator, request, notes) =
        (world.orchestrator.clone(), world.request(spec("shop")), Arc::new(Mutex::new(Vec::new())));
    let kept = notes.clone();
    let progress = Progress::new(move |event| {
        if let Event::Note(text) = event {
            kept.lock().unwrap().push(text);
        }
    });
    let progress = progress.asking(person.clone());
    tokio::spawn(async move {
        let result = orchestrator.deploy(request, &progress, &CancellationToken::new()).await;
        let notes = notes.lock().unwrap().clone();
        (result, notes)
    })
}

const DEMANDED: &str = "[pipeline]\napprove = true\n";

#[tokio::test]
async fn it_goes_on_on_top_of_what_is_active_by_then() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(DEMANDED);
    let person = Person::of(&world);
    let deploying = deploys(&world, &person);
    let parked = person.parked().await;
    assert_eq!((parked.to.get(), parked.phase), (2, Phase::Approval));
    // Nothing of it runs, and the app is others' to change, more often than releases are kept.
    assert_eq!(world.instances(), ["shop.v1.web.1"]);
    for value in 0..12 {
        world.set_config("LAMP", Some(&value.to_string())).await.unwrap();
    }
    assert_eq!(world.get("shop").await.as_deref(), Ok("v14 web.1"));
    person.approves(parked.id).await;
    let (result, notes) = deploying.await.unwrap();
    let deployed = result.unwrap();
    assert_eq!((deployed.release.number.get(), deployed.deployment.from.map(|from| from.get())), (2, Some(14)));
    assert_eq!(world.get("shop").await.as_deref(), Ok("v2 web.1"));
    let says = |text: &str| assert!(notes.iter().any(|note| note.contains(text)), "{text}: {notes:#?}");
    says("nothing of it runs until an owner of shop approves it, within 24h");
    says("approved by ana");
    says("while it waited, v1 made way for v14, which this replaces now");
    says("the configuration was changed while it waited, and is taken as it is now: LAMP");
    let env = world.store.release_env(&app("shop"), deployed.release.number).await.unwrap();
    assert_eq!(env, [("LAMP".parse().unwrap(), Secret::new("11"))]);
    world.until("one release runs", async || world.instances() == ["shop.v2.web.1"]).await;
    // Back is where it came from.
    let back = world.rollback(None).await.unwrap();
    assert_eq!(back.release.origin, coracle_model::Origin::Rollback { to: coracle_model::ReleaseNumber::new(14).unwrap() });
}

#[tokio::test]
async fn what_is_not_allowed_leaves_nothing_and_disturbs_nobody() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(DEMANDED);
    let person = Person::of(&world);
    let rejection = Decision { approved: false, by: None, at: Timestamp::now(), reason: Some("too early".to_owned()) };
    let by = DeploymentId(99);
    for (word, cause) in [
        (Word::Rejected(rejection), Some("rejected by the administrator: too early")),
        (Word::Late, Some("not approved within 24h")),
        (Word::Superseded(by), Some("superseded by d99")),
        (Word::Stale("the branch was moved".to_owned()), Some("approved, but too late: the branch was moved")),
        (Word::CalledOff, None),
    ] {
        let deploying = deploys(&world, &person);
        let parked = person.parked().await;
        person.says(word);
        let (result, _) = deploying.await.unwrap();
        match (result, cause) {
            (Err(OrchestratorError::Deployment { phase: Phase::Approval, cause, .. }), Some(expected)) => {
                assert_eq!(cause, expected)
            }
            (Err(OrchestratorError::Cancelled(Phase::Approval)), None) => {}
            (other, _) => panic!("{other:?}"),
        }
        assert!(world.store.release(&app("shop"), parked.to).await.is_err());
        assert_eq!((world.instances(), world.releases("shop").await), (vec!["shop.v1.web.1".to_owned()], vec![1]));
    }
}

#[tokio::test]
async fn a_newer_one_that_has_passed_supersedes_and_one_that_fails_does_not() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(DEMANDED);
    let person = Person::of(&world);
    let older = deploys(&world, &person);
    let first = person.parked().await;
    world.machine.script(coracle_engine::fake::Which::process(3, "step.test"), coracle_engine::fake::Script::exits(1, &["no"]));
    world.runs("[pipeline]\napprove = true\nsteps.test.run = \"test\"\n");
    let (failed, _) = deploys(&world, &person).await.unwrap();
    assert!(matches!(failed, Err(OrchestratorError::Deployment { phase: Phase::Pipeline, .. })), "{failed:?}");
    assert!(person.superseded.lock().unwrap().is_empty());

    world.runs(DEMANDED);
    let newer = deploys(&world, &person);
    let second = person.parked().await;
    let (result, _) = older.await.unwrap();
    assert!(
        matches!(&result, Err(OrchestratorError::Deployment { cause, .. }) if *cause == format!("superseded by {}", second.id))
    );
    assert_eq!(*person.superseded.lock().unwrap(), [(first.id, second.id)]);
    person.approves(second.id).await;
    newer.await.unwrap().0.unwrap();
    assert_eq!(world.get("shop").await.as_deref(), Ok("v4 web.1"));
}

#[tokio::test]
async fn what_is_live_decides_what_comes_next_has_to_ask() {
    let world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(DEMANDED);
    let silent = world.deploy(spec("shop")).await;
    assert!(
        matches!(&silent, Err(OrchestratorError::Deployment { cause, .. }) if cause.contains("nobody can be asked here")),
        "{silent:?}"
    );
    let person = Person::of(&world);
    let planned = world.orchestrator.plan(world.request(spec("shop"))).await.unwrap().steps;
    assert!(planned.contains(&"waits until an owner approves it, within 24h".to_owned()), "{planned:#?}");
    // The first that demands it waits, and so does the one that demands nothing any more.
    for text in [DEMANDED, ""] {
        world.runs(text);
        let deploying = deploys(&world, &person);
        let parked = person.parked().await;
        person.approves(parked.id).await;
        deploying.await.unwrap().0.unwrap();
    }
    world.deploy(spec("shop")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_undoes_what_waited() {
    let mut world = World::new().await;
    world.deploy(spec("shop")).await.unwrap();
    world.runs(DEMANDED);
    let person = Person::of(&world);
    let deploying = deploys(&world, &person);
    person.parked().await;
    deploying.abort();
    world.restart_server().await;
    assert_eq!(world.last_outcome("shop").await, Outcome::Interrupted { phase: Phase::Approval, completed: false });
    assert_eq!((world.instances(), world.releases("shop").await), (vec!["shop.v1.web.1".to_owned()], vec![1]));
    assert!(world.store.parked_deployment(&app("shop")).await.unwrap().is_none());
}

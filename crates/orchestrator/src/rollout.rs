//! One deployment, from the request to the record. [`Rollout::roll_out`] is the algorithm; its steps stand in [`making`], [`steps`] and [`undo`].

mod approval;
mod comparison;
mod making;
mod parts;
mod pipeline;
mod policy;
mod pushing;
mod services;
mod starting;
mod steps;
mod succession;
mod taking;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use coracle_engine::{Engine, EngineError};
use coracle_model::{AppName, Deployment, EnvName, Outcome, Phase, ProcessName, Release, Secret, StepState, Strategy};
use coracle_pipeline::Trigger;
use coracle_pipeline_runner::{Hiding, Spares};
use coracle_store::{ConfigChange, ConfigEntry, RunSource, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::candidate::Candidate;
use crate::core::{Core, Live};
use crate::error::OrchestratorError;
use crate::incumbent::Incumbent;
use crate::orchestrator::Deployed;
use crate::progress::{Event, Progress};
use crate::runs::RunBook;
use crate::services::{Comparison, StatefulChanges};
pub(crate) use making::build_limits;
pub(crate) use parts::plan_of;
use pipeline::Orders;
pub(crate) use pipeline::{planned, planned_gates};
pub(crate) use pushing::planned_push;

/// What to do about what is not the release's fault.
const DOCTOR: &str = "see what is wrong with `coracle doctor`, then `coracle deploy`";

/// Why a rollout did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called off.
    Cancelled,
    /// Something about the release is wrong; the person who deploys it mends that.
    Release { cause: String, evidence: Vec<String>, hint: String },
    /// Coracle or what it stands on failed.
    Platform(OrchestratorError),
}

impl<E: Into<OrchestratorError>> From<E> for Failure {
    fn from(error: E) -> Self {
        match error.into() {
            OrchestratorError::Engine(EngineError::Cancelled) => Self::Cancelled,
            OrchestratorError::Refused { message, hint } => Self::Release { cause: message, evidence: Vec::new(), hint },
            other => Self::Platform(other),
        }
    }
}

impl Failure {
    fn release(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Release { cause: cause.into(), evidence: Vec::new(), hint: hint.into() }
    }

    /// What is told of it without these.
    fn without(self, hiding: &Hiding) -> Self {
        match self {
            Self::Release { cause, evidence, hint } => Self::Release {
                cause: hiding.clean(cause),
                evidence: evidence.into_iter().map(|line| hiding.clean(line)).collect(),
                hint,
            },
            Self::Platform(error) => {
                let told = error.to_string();
                let cause = hiding.clean(told.clone());
                match cause == told {
                    true => Self::Platform(error),
                    false => Self::Release { cause, evidence: Vec::new(), hint: DOCTOR.to_owned() },
                }
            }
            Self::Cancelled => Self::Cancelled,
        }
    }

    fn outcome(&self, phase: Phase) -> Outcome {
        match self {
            Self::Cancelled => Outcome::Cancelled { phase },
            Self::Release { cause, evidence, .. } => Outcome::Failed { phase, cause: cause.clone(), evidence: evidence.clone() },
            Self::Platform(error) => Outcome::Failed { phase, cause: error.to_string(), evidence: Vec::new() },
        }
    }

    fn into_error(self, phase: Phase) -> OrchestratorError {
        match self {
            Self::Cancelled => OrchestratorError::Cancelled(phase),
            Self::Release { cause, evidence, hint } => OrchestratorError::Deployment { phase, cause, evidence, hint },
            Self::Platform(error) => {
                OrchestratorError::Deployment { phase, cause: error.to_string(), evidence: Vec::new(), hint: DOCTOR.to_owned() }
            }
        }
    }
}

/// A deployment being worked on.
pub(crate) struct Rollout<'a> {
    core: &'a Core,
    deployment: Deployment,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
    begun: Instant,
    phase: Mutex<Phase>,
    /// Whether the new release has been in the routing table.
    exposed: AtomicBool,
    /// What takes the configuration back to what it was, once it has been changed.
    config_undo: Mutex<Vec<ConfigChange>>,
    /// What is left out of all that is told of it.
    hiding: Hiding,
    /// Where its run is written down, if new source is deployed.
    book: Option<RunBook>,
    /// Copies of the source tree for its steps, made in advance.
    spares: Mutex<Option<Spares>>,
    /// What the release takes the place of.
    incumbent: Option<Arc<dyn Incumbent>>,
    /// Tells everybody that this is being worked on.
    live: Option<LiveGuard<'a>>,
    /// It waits for a person, and the app is others' to change.
    is_aside: bool,
}

/// A candidate that may be built: everything checked that can be before anything runs.
struct Draft {
    engine: Engine,
    candidate: Candidate,
    /// The release that is active now.
    old: Option<Release>,
    /// How its stateful services stand to those that run.
    comparison: Comparison,
    /// Which of them it may change.
    stateful: StatefulChanges,
}

/// A written release and everything about bringing it up.
struct Candidacy {
    engine: Engine,
    release: Release,
    strategy: Strategy,
    old: Option<Release>,
    /// How many instances of each process are brought up. A change of scale meanwhile is the reconcile loop's, afterwards.
    wanted: BTreeMap<ProcessName, u16>,
    /// The processes that receive requests, and what these need. The others work in the background.
    needed: BTreeSet<ProcessName>,
    /// What becomes of the app's configuration with the switch.
    changes: Vec<ConfigChange>,
    /// How its stateful services stand to those that ran before.
    comparison: Comparison,
    /// Which of them it may change.
    stateful: StatefulChanges,
    /// What is run with it, if it is made of new source.
    orders: Option<Orders>,
}

/// What a rollout led to.
enum End {
    /// The release is active now.
    Live(Release),
    /// The one that was active would be made again, and still is.
    Unchanged(Release),
}

impl Core {
    /// Makes a release of the candidate and the app's active one, or leaves everything as it was.
    pub(crate) async fn deploy(
        self: &Arc<Self>,
        candidate: Candidate,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        let app = candidate.app().clone();
        let deployment = self.begin(&app, &candidate).await?;
        let live = Some(LiveGuard::new(self, &deployment));
        progress.tell(Event::Began(deployment.clone()));
        progress.tell(Event::Phase(Phase::Validate));
        let hiding = self.hiding_for(&candidate).await;
        let mut rollout = Rollout {
            book: self.book_of(&candidate, &deployment, &hiding).await,
            hiding,
            core: self,
            progress,
            cancel,
            begun: Instant::now(),
            phase: Mutex::new(Phase::Validate),
            exposed: AtomicBool::new(false),
            config_undo: Mutex::default(),
            spares: Mutex::default(),
            incumbent: candidate.incumbent(),
            live,
            is_aside: false,
            deployment,
        };
        // On the heap, as are its longest steps: what awaits what is deep, and a thread's stack is not.
        let result = Box::pin(rollout.roll_out(candidate)).await.map_err(|failure| failure.without(&rollout.hiding));
        let phase = rollout.phase();
        let outcome = match &result {
            Ok(End::Live(_)) => Outcome::Succeeded,
            Ok(End::Unchanged(_)) => Outcome::Unchanged,
            Err(failure) => {
                rollout.undo().await;
                failure.outcome(phase)
            }
        };
        let id = rollout.deployment.id;
        if let Some(book) = &rollout.book {
            let (state, why) = match &result {
                Ok(_) => (StepState::Passed, None),
                Err(Failure::Cancelled) => (StepState::Cancelled, None),
                Err(Failure::Release { cause, .. }) => (StepState::Failed, Some(cause.clone())),
                Err(Failure::Platform(error)) => (StepState::Failed, Some(error.to_string())),
            };
            book.close(state, why).await;
            self.forget_runs(&app).await;
        }
        let recorded = self.store.finish_deployment(id, &outcome).await;
        drop(rollout.live.take());
        self.wake.notify_one();
        progress.tell(Event::Ended(outcome));
        recorded?;
        let deployment = self.store.deployment(id).await?.unwrap_or(rollout.deployment);
        match result {
            Ok(End::Live(release) | End::Unchanged(release)) => Ok(Deployed { deployment, release }),
            Err(failure) => Err(failure.into_error(phase)),
        }
    }

    /// Where the run of a deployment of new source is written down.
    async fn book_of(&self, candidate: &Candidate, deployment: &Deployment, hiding: &Hiding) -> Option<RunBook> {
        let Candidate::Tree { request, reconfigured: None } = candidate else { return None };
        let reference = match &request.trigger {
            Trigger::Tree => None,
            Trigger::Branch(name) | Trigger::Tag(name) => Some(name.clone()),
        };
        let source = RunSource { commit: request.commit.clone(), reference, person: request.by.clone() };
        let steps = request.pipeline.all().map(|step| step.name.to_string());
        Some(RunBook::open(&self.store, &self.mounts, (&deployment.app, deployment.id), &source, hiding, steps).await)
    }

    /// What is left out of all that is told of a deployment: the secrets that the app is configured with now, and those that the
    /// release is run with instead.
    async fn hiding_for(&self, candidate: &Candidate) -> Hiding {
        let config = self.store.config(candidate.app()).await.unwrap_or_default();
        let (env, changes) = candidate.configuration();
        // What an earlier release ran with and nobody has set any more may have been a secret.
        let is_secret = |name: &EnvName| {
            let changed = changes.iter().rev().find(|change| change.name == *name && change.value.is_some());
            let known = || config.iter().find(|entry| entry.name == *name).map(|entry| entry.secret);
            changed.map(|change| change.secret).or_else(known).unwrap_or(true)
        };
        let hiding = Hiding::new(&secrets_in(config.clone()));
        hiding.add(&env.iter().filter(|(name, _)| is_secret(name)).cloned().collect::<Vec<_>>());
        hiding
    }

    /// The secrets that an app is configured with now, as far as they can be read.
    async fn secrets_of(&self, app: &AppName) -> Vec<(EnvName, Secret)> {
        secrets_in(self.store.config(app).await.unwrap_or_default())
    }

    /// Writes the deployment down. One that has not ended and that nobody works on (its task died) is settled first, so
    /// that it does not lock the app until the next start.
    async fn begin(&self, app: &AppName, candidate: &Candidate) -> Result<Deployment, OrchestratorError> {
        self.without_remains(app).await?;
        self.store.ensure_app(app).await?;
        match self.store.begin_deployment(app, candidate.kind()).await {
            Err(StoreError::Busy(holder)) if !self.registry().live.contains_key(app) => {
                self.settle(&holder).await?;
                Ok(self.store.begin_deployment(app, candidate.kind()).await?)
            }
            other => Ok(other?),
        }
    }
}

fn secrets_in(config: Vec<ConfigEntry>) -> Vec<(EnvName, Secret)> {
    config.into_iter().filter(|entry| entry.secret).map(|entry| (entry.name, entry.value)).collect()
}

/// Says, as long as it lives, that a rollout works on the app.
struct LiveGuard<'a> {
    core: &'a Core,
    app: AppName,
}

impl<'a> LiveGuard<'a> {
    fn new(core: &'a Core, deployment: &Deployment) -> Self {
        let live = Live {
            deployment: deployment.id,
            to: deployment.to,
            from: deployment.from,
            suspended: Default::default(),
            changing: Default::default(),
            discarded: false,
            hold: None,
        };
        core.change(|registry| registry.live.insert(deployment.app.clone(), live));
        Self { core, app: deployment.app.clone() }
    }
}

impl Drop for LiveGuard<'_> {
    fn drop(&mut self) {
        self.core.change(|registry| registry.live.remove(&self.app));
    }
}

impl Rollout<'_> {
    /// The deployment as prose. Whatever fails before [`Rollout::switch`] is undone by the caller, and the old release has
    /// not noticed; afterwards only the watch may fail, which takes the switch back first.
    async fn roll_out(&mut self, candidate: Candidate) -> Result<End, Failure> {
        let begun = if candidate.is_watched() { self.count().await } else { None };
        let draft = self.validate(candidate).await?;
        let Some(candidacy) = Box::pin(self.build(draft)).await? else { return self.leave_as_it_is().await };
        self.check_policy(&candidacy).await?;
        Box::pin(self.run_pipeline(&candidacy)).await?;
        self.supersede_waiting().await?;
        let mut candidacy = self.wait_for_approval(candidacy).await?;
        self.push_image(&mut candidacy).await?;
        let candidacy = candidacy;
        // What has to be fetched for them is fetched while nobody waits.
        self.prepare_verification(&candidacy).await?;
        self.step_in_front(&candidacy).await?;
        self.bring_up_services(&candidacy).await?;
        self.run_release_command(&candidacy).await?;
        if candidacy.strategy == Strategy::Recreate {
            self.hold_requests_and_stop_old(&candidacy).await?;
        }
        self.start_serving(&candidacy).await?;
        self.probe_serving(&candidacy).await?;
        Box::pin(self.verify_before_switch(&candidacy)).await?;
        self.take_over_background_processes(&candidacy).await?;
        let before = self.before_switch(&candidacy, begun).await;
        self.switch(&candidacy).await?;
        self.watch(&candidacy, before).await?;
        self.retire_old(&candidacy).await;
        self.retire_incumbent(&candidacy).await;
        self.push_latest(&candidacy).await;
        self.record(&candidacy).await;
        Ok(End::Live(candidacy.release))
    }

    /// Nothing has changed, so nothing is touched.
    async fn leave_as_it_is(&self) -> Result<End, Failure> {
        let Some(active) = self.deployment.from else {
            return Err(Failure::release("there is no release to leave as it is", "coracle deploy"));
        };
        self.note(format!("nothing changed: {active} goes on"));
        Ok(End::Unchanged(self.core.store.release(&self.deployment.app, active).await?))
    }

    /// Writes down that a phase begins, then tells it.
    async fn enter(&self, phase: Phase) -> Result<(), Failure> {
        if phase.can_cancel() && self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        self.core.store.enter_phase(self.deployment.id, phase).await?;
        self.entered(phase);
        Ok(())
    }

    fn entered(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.progress.tell(Event::Phase(phase));
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, text: impl Into<String>) {
        self.progress.tell(Event::Note(self.hiding.clean(text.into())));
    }

    fn was_exposed(&self) -> bool {
        self.exposed.load(Ordering::Relaxed)
    }

    /// Does the work unless it is called off first.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Failure::Cancelled),
            result = work => result,
        }
    }
}

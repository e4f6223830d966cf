//! The steps of an app's pipeline: run with what was built before any instance of it starts, and asked of the new release
//! before and after requests go to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::{Engine, OutputLine};
use coracle_model::{AppName, AppSpec, ApprovalRule, Artifact, Deployment, EngineKind, EnvName, Phase, ReleaseNumber, Strategy};
use coracle_pipeline::{Job, Key, Pipeline, Trigger, Watch};
use coracle_pipeline_runner::{Bench, Ground, Memory, News, OfApp, Passed, Spares, StepFailure, Tell, Told, tree, unsuitable};
use coracle_policy::Policy;
use coracle_store::{PassedStep, Store};
use tokio_util::sync::CancellationToken;

use super::making::build_limits;
use super::{Candidacy, Failure, Rollout, comparison};
use crate::error::OrchestratorError;
use crate::instances::{Making, ONE_OFF};
use crate::orchestrator::DeployRequest;
use crate::progress::Event;
use crate::promotion::Promoted;

/// What is to be run with a release.
pub(super) struct Orders {
    pipeline: Pipeline,
    /// What the app says of the rules that it may break.
    pub(super) policy: Policy,
    trigger: Trigger,
    /// The source tree.
    pub(super) source: PathBuf,
    commit: Option<String>,
    /// Whether every step runs, whatever is known of it.
    fresh: bool,
    /// Whether another app's release is taken over: nothing is built, and there is no source.
    pub(super) taken_over: bool,
}

impl Orders {
    pub(super) fn of(request: &DeployRequest) -> Self {
        let DeployRequest { pipeline, policy, trigger, source, commit, fresh, .. } = request;
        let (pipeline, policy, trigger, source) = (pipeline.clone(), policy.clone(), trigger.clone(), source.clone());
        Self { pipeline, policy, trigger, source, commit: commit.clone(), fresh: *fresh, taken_over: false }
    }

    /// What the manifest demands of a person.
    pub(super) fn approval(&self) -> Option<ApprovalRule> {
        self.pipeline.approve
    }

    /// How its answers are compared with those of the release before.
    pub(super) fn watch(&self) -> Option<Watch> {
        self.pipeline.watch
    }

    /// What is asked of a release that another app's was made into: no step of it gates a build.
    pub(super) fn of_promotion(promoted: &Promoted) -> Self {
        let promotion = &promoted.promotion;
        let policy = promotion.manifest.as_deref().and_then(|text| Policy::parse(text).ok()).unwrap_or_default();
        let (pipeline, source) = (promotion.pipeline.clone(), promoted.source.clone());
        Self { pipeline, policy, trigger: Trigger::Tree, source, commit: None, fresh: false, taken_over: true }
    }

    /// The commit of the source.
    pub(super) fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// How long the new release may be asked questions.
    pub(super) fn longest_verification(&self) -> Duration {
        self.pipeline.verify.iter().map(|step| step.timeout.duration() * (u32::from(step.retries) + 1)).sum()
    }
}

/// What an engine cannot do of a pipeline, before anything is built.
pub(super) fn check_pipeline(pipeline: &Pipeline, engine: EngineKind) -> Result<(), OrchestratorError> {
    match unsuitable(pipeline.all(), engine) {
        Some((message, hint)) => Err(OrchestratorError::refused(message, hint)),
        None => Ok(()),
    }
}

/// What a repository with tests is told that says of no step.
fn suggestion(source: &Path) -> Option<String> {
    let tests = tree::tests(source)?;
    Some(format!(
        "nothing runs the tests here ({tests}) before a release goes live; [pipeline.steps.test] in coracle.toml would, with run = \"…\""
    ))
}

/// What a plan says of the pipeline, one sentence each.
pub(crate) fn planned(request: &DeployRequest, demanded: Option<ApprovalRule>, has_old: bool) -> Vec<String> {
    let plan = request.pipeline.plan(&request.trigger);
    let told = |job: &Job| {
        let needs: Vec<String> = job.needs.iter().map(|need| plan.jobs[*need].to_string()).collect();
        if needs.is_empty() { job.to_string() } else { format!("{job} (after {})", needs.join(" and ")) }
    };
    let mut lines: Vec<String> = Vec::new();
    if !plan.jobs.is_empty() {
        let jobs: Vec<String> = plan.jobs.iter().map(told).collect();
        lines.push(format!("pipeline, {} at once: {}", request.pipeline.parallel(), jobs.join(", ")));
    }
    if request.pipeline.steps.is_empty() {
        lines.extend(suggestion(&request.source));
    }
    lines.extend(plan.left_out.iter().map(|(step, why)| format!("step {step} left out: {why}")));
    lines.extend(planned_gates(&request.pipeline, &request.spec, demanded, (has_old, request.incumbent.is_some())));
    lines
}

/// What a plan says of what stands between a release that is made and one that stays; with whether there is a release before it, or
/// an incumbent, which can be gone back to as well.
pub(crate) fn planned_gates(
    pipeline: &Pipeline,
    spec: &AppSpec,
    demanded: Option<ApprovalRule>,
    (has_old, has_incumbent): (bool, bool),
) -> Vec<String> {
    let mut lines = Vec::new();
    let recreates = spec.strategy().0 == Strategy::Recreate;
    let goes_back = has_old && !recreates;
    if !pipeline.verify.is_empty() {
        let names: Vec<&str> = pipeline.verify.iter().map(|step| step.name.as_str()).collect();
        let names = names.join(", ");
        lines.push(match goes_back || has_incumbent {
            true => format!("verified before and after the switch by {names}"),
            false => {
                format!(
                    "verified before the switch by {names}, and not after it: {}",
                    comparison::nothing_to_go_back_to(!has_old)
                )
            }
        });
    }
    if let Some(rule) = demanded {
        let who = if rule.by_another { "an owner who has not brought it" } else { "an owner" };
        lines.push(format!("waits until {who} approves it, within {}", rule.timeout));
    }
    if let Some(watch) = pipeline.watch {
        lines.push(match goes_back {
            true => {
                format!("compared with the release before for {} after the switch, and taken back if it is worse", watch.window)
            }
            false => comparison::not_watched(!has_old),
        });
    }
    lines
}

impl Rollout<'_> {
    /// Runs the steps with what was built. The first failures of each branch of the graph are all found, not the first alone.
    pub(super) async fn run_pipeline(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(orders) = &candidacy.orders else { return Ok(()) };
        if orders.pipeline.steps.is_empty() {
            // Once: whoever wants it so need not hear it again.
            if candidacy.old.is_none() && candidacy.release.spec.build.image.is_none() {
                suggestion(&orders.source).into_iter().for_each(|suggestion| self.note(suggestion));
            }
            return Ok(());
        }
        self.enter(Phase::Pipeline).await?;
        let plan = orders.pipeline.plan(&orders.trigger);
        for (step, why) in &plan.left_out {
            self.note(format!("{step}: left out: {why}"));
        }
        let ground = self.ground(candidacy, orders).await?;
        let source = orders.source.clone();
        let read = tokio::task::spawn_blocking(move || tree::files(&source)).await;
        let hint = "see that the server's disk has room (`coracle doctor`), then `coracle deploy`";
        let files = read.map_err(std::io::Error::other).flatten();
        let files = files.map_err(|error| Failure::release(format!("the source tree cannot be read: {error}"), hint))?;
        let bench = Bench::new(&ground, self.cancel.child_token());
        let ended = bench.work_through(&plan, &files, orders.pipeline.parallel(), true).await;
        self.end_copying().await;
        self.tidy_up().await;
        Ok(ended?)
    }

    /// Makes what steps will need, while the app is being built: what they share, and copies of the tree. Then the first of them waits
    /// for nothing but itself.
    pub(super) async fn prepare_steps(&self, engine: &Engine, orders: Option<&Orders>) {
        let Some(orders) = orders else { return };
        let plan = orders.pipeline.plan(&orders.trigger);
        if plan.jobs.is_empty() {
            return;
        }
        let Deployment { app, to, .. } = &self.deployment;
        let spares = Spares::begin(&plan, orders.source.clone(), self.core.mounts.workspaces(app, *to));
        *self.spares.lock().unwrap_or_else(PoisonError::into_inner) = spares;
        if let Err(error) = engine.runtime.prepare_release(app, *to).await {
            tracing::debug!(%app, %error, "nothing is prepared for the steps");
        }
    }

    /// Takes back what was prepared for steps, since none will be run.
    pub(super) async fn unprepare_steps(&self, engine: &Engine) -> Result<(), Failure> {
        self.end_copying().await;
        self.tidy_up().await;
        Ok(engine.runtime.remove_release(&self.deployment.app, self.deployment.to).await?)
    }

    /// Makes no more copies.
    pub(super) async fn end_copying(&self) {
        let spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(spares) = spares {
            spares.end().await;
        }
    }

    /// What the steps of a release have in common.
    async fn ground(&self, candidacy: &Candidacy, orders: &Orders) -> Result<Ground, Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let (store, mounts) = (&self.core.store, &self.core.mounts);
        let config = store.release_env(&release.app, release.number).await?;
        let making = Making { release, config: &[], mounts };
        // What the process that receives requests runs.
        let nothing = coracle_model::CommandLine { assignments: Vec::new(), words: Vec::new() };
        let artifact = making.one_off(ONE_OFF, nothing, 1).artifact;
        // It has another id for every release; it is what its recipe makes of the tree. What was not built from the tree alone is
        // what it is: a tag may have moved, a compose file be filled in otherwise.
        let recipe = match release.spec.is_stack() || release.spec.build.image.is_some() {
            true => artifact.to_string(),
            false => format!("{} {}", release.artifact.engine, serde_json::json!(release.spec.build)),
        };
        let logins = self.core.logins(&release.app).await?;
        let memory = OfStore { store: store.clone(), app: release.app.clone(), release: release.number };
        Ok(Ground {
            engine: engine.clone(),
            app: release.app.clone(),
            release: release.number,
            source: orders.source.clone(),
            workspaces: mounts.workspaces(&release.app, release.number),
            spares: self.spares.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            of_app: Some(OfApp { artifact, recipe }),
            env: release.spec.env.clone(),
            config,
            told: Told::of(&orders.trigger, orders.commit.as_deref(), release.number),
            limits: build_limits(self.core, &release.spec),
            logins,
            memory: Arc::new(memory),
            shelf: mounts.shelf(&release.app),
            fresh: orders.fresh,
            tell: self.tell(),
            again: "coracle deploy",
        })
    }

    /// Removes what steps worked in.
    async fn tidy_up(&self) {
        let (mounts, app, number) = (self.core.mounts.clone(), self.deployment.app.clone(), self.deployment.to);
        let removing = tokio::task::spawn_blocking(move || mounts.remove_workspaces(&app, number));
        if let Err(error) = removing.await {
            tracing::warn!(%error, "removing what steps worked in broke off");
        }
    }

    /// Hands on what happens to whoever follows the deployment, and to the book of its run.
    fn tell(&self) -> Tell {
        let (progress, page) = (self.progress.clone(), self.book.as_ref().map(crate::runs::RunBook::page));
        let hiding = self.hiding.clone();
        Arc::new(move |news| match news {
            News::Note(text) => progress.tell(Event::Note(hiding.clean(text))),
            News::Output { step, line: OutputLine { stream, text } } => {
                let line = OutputLine { stream, text: hiding.clean(text) };
                if let Some(page) = &page {
                    page.line(&step, &line);
                }
                // Whoever follows sees which round it is by what stands before.
                let name = step.split_once(" (").map_or(step.as_str(), |(name, _)| name);
                progress.tell(Event::Output(OutputLine { stream, text: format!("{name}: {}", line.text) }));
            }
            News::Step(step) => page.iter().for_each(|page| page.step(step.clone())),
            News::Handed { step, parcel } => page.iter().for_each(|page| page.handed(step.clone(), parcel.clone())),
        })
    }

    /// Fetches the images that verification needs.
    pub(super) async fn prepare_verification(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(orders) = candidacy.orders.as_ref().filter(|orders| !orders.pipeline.verify.is_empty()) else { return Ok(()) };
        let ground = self.ground(candidacy, orders).await?;
        let bench = Bench::asking(&ground, self.cancel.child_token(), BTreeMap::new(), "before");
        Ok(bench.fetch_images(&orders.pipeline.verifications()).await?)
    }

    /// Asks the new release, which has no requests yet.
    pub(super) async fn verify_before_switch(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        self.verify(candidacy, "before", self.cancel.child_token()).await
    }

    /// Asks the new release again, now that it has requests. It cannot be called off any more.
    pub(super) async fn verify_after_switch(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let verified = self.verify(candidacy, "after", CancellationToken::new()).await;
        verified.map_err(|failure| match failure {
            Failure::Release { cause, evidence, .. } => Failure::Release {
                cause: format!("after the switch, which was taken back, {cause}"),
                evidence,
                hint: "mend what the output shows, then `coracle deploy`; the old release serves".to_owned(),
            },
            other => other,
        })
    }

    async fn verify(&self, candidacy: &Candidacy, when: &'static str, stop: CancellationToken) -> Result<(), Failure> {
        let Some(orders) = candidacy.orders.as_ref().filter(|orders| !orders.pipeline.verify.is_empty()) else { return Ok(()) };
        let mut told = self.whereabouts(candidacy).await?;
        told.extend("CORACLE_VERIFY".parse().ok().map(|name: EnvName| (name, when.to_owned())));
        let ground = self.ground(candidacy, orders).await?;
        let verified = Bench::asking(&ground, stop, told, when).verify(&orders.pipeline.verifications()).await;
        self.tidy_up().await;
        Ok(verified?)
    }

    /// Where the new release is reached by those beside it, and as which host it is known to everybody else.
    async fn whereabouts(&self, candidacy: &Candidacy) -> Result<BTreeMap<EnvName, String>, Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let mut told = BTreeMap::new();
        let first = self.instances(candidacy, |process| release.serves(process)).into_iter().next();
        let Some(first) = first else { return Ok(told) };
        let address = engine.runtime.inspect(&first).await?.and_then(|instance| instance.address());
        let port = release.spec.part(&first.process).and_then(|part| part.port(&release.spec.http));
        let port = port.or(release.artifact_of(&first.process).port).unwrap_or(coracle_build::dockerfile::DEFAULT_PORT);
        let place = match engine.kind {
            // Inside the release's network, its name leads to every instance of it.
            EngineKind::Docker => Some(format!("{}:{port}", first.process)),
            EngineKind::Process => address.map(|address| address.to_string()),
        };
        let host = crate::table::reached_at(release).into_iter().next().map(|(host, _)| host);
        let pairs = [("CORACLE_URL", place.map(|place| format!("http://{place}"))), ("CORACLE_HOST", host)];
        told.extend(pairs.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value?))));
        Ok(told)
    }
}

impl From<StepFailure> for Failure {
    fn from(failure: StepFailure) -> Self {
        match failure {
            StepFailure::Cancelled => Self::Cancelled,
            StepFailure::Failed { cause, evidence, hint, .. } => Self::Release { cause, evidence, hint },
            StepFailure::Engine(error) => Self::Platform(error.into()),
        }
    }
}

/// The steps that the store knows of.
struct OfStore {
    store: Store,
    app: AppName,
    release: ReleaseNumber,
}

#[async_trait]
impl Memory for OfStore {
    async fn passed(&self, key: &Key) -> Option<String> {
        match self.store.passed_step(&self.app, key.as_str()).await {
            Ok(before) => before.map(|release| format!("for {release}")),
            Err(error) => {
                tracing::warn!(app = %self.app, %error, "whether a step has passed before cannot be found out");
                None
            }
        }
    }

    async fn record(&self, passed: Passed) {
        let Passed { key, step, images } = passed;
        let passed = PassedStep { key: key.as_str().to_owned(), step, release: self.release, images };
        if let Err(error) = self.store.record_step(&self.app, &passed).await {
            tracing::warn!(app = %self.app, step = passed.step, %error, "that it passed could not be written down");
        }
    }

    async fn kept_image(&self, reference: &str) -> Option<Artifact> {
        let kept = self.store.kept_step_image(&self.app, reference).await;
        kept.inspect_err(|error| tracing::warn!(app = %self.app, %error, "what was fetched for steps cannot be found out"))
            .ok()
            .flatten()
    }

    async fn keep_image(&self, reference: &str, artifact: &Artifact) {
        if let Err(error) = self.store.keep_step_image(&self.app, reference, artifact, self.release).await {
            tracing::warn!(app = %self.app, %error, "what was fetched for a step could not be written down");
        }
    }
}

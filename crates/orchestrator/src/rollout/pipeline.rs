//! The steps of an app's pipeline: run with what was built before any instance of it starts, and asked of the new release
//! before and after requests go to it.

mod attempt;
mod bench;
mod beside;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_model::{EngineKind, EnvName, Phase};
use coracle_pipeline::{Job, Pipeline, Plan, Schedule, StepImage, TreeFiles, Trigger};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use self::bench::Bench;
use super::{Candidacy, Failure, Rollout};
use crate::error::OrchestratorError;
use crate::orchestrator::DeployRequest;

/// What is to be run with a release.
pub(super) struct Orders {
    pipeline: Pipeline,
    trigger: Trigger,
    /// The source tree.
    source: PathBuf,
    commit: Option<String>,
}

impl Orders {
    pub(super) fn of(request: &DeployRequest) -> Self {
        let DeployRequest { pipeline, trigger, source, commit, .. } = request;
        Self { pipeline: pipeline.clone(), trigger: trigger.clone(), source: source.clone(), commit: commit.clone() }
    }

    /// How long the new release may be asked questions.
    pub(super) fn longest_verification(&self) -> Duration {
        self.pipeline.verify.iter().map(|step| step.timeout.duration() * (u32::from(step.retries) + 1)).sum()
    }

    /// What steps are told of where the source came from.
    fn told(&self) -> BTreeMap<EnvName, String> {
        let origin = match &self.trigger {
            Trigger::Tree => None,
            Trigger::Branch(name) => Some(("CORACLE_BRANCH", name)),
            Trigger::Tag(name) => Some(("CORACLE_TAG", name)),
        };
        let commit = self.commit.as_ref().map(|commit| ("CORACLE_COMMIT", commit));
        let both = origin.into_iter().chain(commit);
        both.filter_map(|(name, value)| Some((name.parse().ok()?, value.clone()))).collect()
    }
}

/// What an engine cannot do of a pipeline, before anything is built.
pub(super) fn check_pipeline(pipeline: &Pipeline, engine: EngineKind) -> Result<(), OrchestratorError> {
    if engine != EngineKind::Process {
        return Ok(());
    }
    for step in pipeline.all() {
        let name = &step.name;
        if let StepImage::Named(image) = &step.image {
            return Err(OrchestratorError::refused(
                format!("the step {name} runs in the image {image}, and the process engine runs no images"),
                "use engine = \"docker\", or take `image` out: then the step runs with what the app was built into",
            ));
        }
        if let Some(service) = step.services.first() {
            return Err(OrchestratorError::refused(
                format!("the step {name} has the service {} beside it, and the process engine runs no images", service.image),
                "use engine = \"docker\", or give the step a database of yours by `secrets`",
            ));
        }
    }
    Ok(())
}

/// What a repository with tests is told that says of no step.
fn suggestion(source: &Path) -> Option<String> {
    let tests = tree::tests(source)?;
    Some(format!(
        "nothing runs the tests here ({tests}) before a release goes live; [pipeline.steps.test] in coracle.toml would, with run = \"…\""
    ))
}

/// What a plan says of the pipeline, one sentence each.
pub(crate) fn planned(request: &DeployRequest) -> Vec<String> {
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
    if !request.pipeline.verify.is_empty() {
        let names: Vec<&str> = request.pipeline.verify.iter().map(|step| step.name.as_str()).collect();
        lines.push(format!("verified before and after the switch by {}", names.join(", ")));
    }
    lines
}

impl Rollout<'_> {
    /// Runs the steps with what was built. The first failures of each branch of the graph are all found, not the first alone.
    pub(super) async fn run_pipeline(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Some(orders) = &candidacy.orders else { return Ok(()) };
        if orders.pipeline.steps.is_empty() {
            // Once: whoever wants it so need not hear it again.
            if candidacy.old.is_none() {
                suggestion(&orders.source).into_iter().for_each(|suggestion| self.note(suggestion));
            }
            return Ok(());
        }
        self.enter(Phase::Pipeline).await?;
        let plan = orders.pipeline.plan(&orders.trigger);
        for (step, why) in &plan.left_out {
            self.note(format!("{step}: left out: {why}"));
        }
        let files = tree::files(&orders.source).await?;
        let bench = Bench::new(self, candidacy, orders, orders.told(), self.cancel.child_token()).await?;
        let ended = self.work_through(&bench, &plan, &files, orders.pipeline.parallel()).await;
        bench.tidy_up().await;
        ended
    }

    async fn work_through(&self, bench: &Bench<'_>, plan: &Plan, files: &TreeFiles, parallel: usize) -> Result<(), Failure> {
        let mut schedule = Schedule::new(plan.jobs.iter().map(|job| job.needs.clone()).collect(), parallel);
        let mut running = FuturesUnordered::new();
        let mut failed: Vec<(usize, Failure)> = Vec::new();
        let mut broken_off = None;
        loop {
            while broken_off.is_none()
                && let Some(at) = schedule.start_next()
            {
                running.push(async move { (at, bench.run_unless_known(&plan.jobs[at], files).await) });
            }
            let Some((at, ended)) = running.next().await else { break };
            let job = &plan.jobs[at];
            match ended {
                Ok(()) => {
                    schedule.ended(at, true);
                }
                Err(failure @ Failure::Release { .. }) => {
                    for lost in schedule.ended(at, false) {
                        self.note(format!("{}: not run, since {job} failed", plan.jobs[lost]));
                    }
                    failed.push((at, failure));
                }
                // The others are ended too, and waited for, so that none goes on behind our back.
                Err(failure) => {
                    bench.stop();
                    broken_off.get_or_insert(failure);
                }
            }
        }
        match broken_off {
            Some(failure) => Err(failure),
            None => all_failures(plan, failed),
        }
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

    async fn verify(&self, candidacy: &Candidacy, when: &str, stop: CancellationToken) -> Result<(), Failure> {
        let Some(orders) = candidacy.orders.as_ref().filter(|orders| !orders.pipeline.verify.is_empty()) else { return Ok(()) };
        let mut told = orders.told();
        told.extend(self.whereabouts(candidacy).await?);
        told.extend("CORACLE_VERIFY".parse().ok().map(|name: EnvName| (name, when.to_owned())));
        let bench = Bench::new(self, candidacy, orders, told, stop).await?;
        let mut verified = Ok(());
        for job in orders.pipeline.verifications() {
            verified = bench.run_with_retries(&job).await;
            if verified.is_err() {
                break;
            }
        }
        bench.tidy_up().await;
        verified
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

/// The failure of the first job in the plan's order, whichever ended first, with the names of the others.
fn all_failures(plan: &Plan, mut failed: Vec<(usize, Failure)>) -> Result<(), Failure> {
    failed.sort_by_key(|(at, _)| *at);
    let others: Vec<String> = failed.iter().skip(1).map(|(at, _)| plan.jobs[*at].to_string()).collect();
    match failed.into_iter().next() {
        None => Ok(()),
        Some((_, Failure::Release { cause, evidence, hint })) if !others.is_empty() => {
            Err(Failure::Release { cause: format!("{cause}; {} failed as well", others.join(", ")), evidence, hint })
        }
        Some((_, failure)) => Err(failure),
    }
}

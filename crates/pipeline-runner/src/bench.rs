//! Where steps are run: images, attempts, and how each step stands.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use coracle_engine::{BuildError, BuildRequest, OutputLine, OutputSink, Tail};
use coracle_model::plan::{Recipe, Serving};
use coracle_model::stack::PullPolicy;
use coracle_model::{Artifact, ArtifactId, BuildPlan, EngineKind, EnvName, ProcessName, Secret, StepRun, StepState};
use coracle_pipeline::{Job, StepImage, TreeFiles};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::failure::StepFailure;
use crate::ground::{Ground, News, Passed};
use crate::hiding::Hiding;
use crate::known::Known;
use crate::shelf::Parcel;

/// Where the steps of one run are run.
pub struct Bench<'a> {
    pub(crate) ground: &'a Ground,
    /// Ends all that run.
    pub(crate) stop: CancellationToken,
    /// Whether it asks a release that runs, and is told what is said only then.
    asks: Option<Asking>,
    /// Images that have been fetched, by reference. One at a time: steps often share them.
    images: tokio::sync::Mutex<BTreeMap<String, Artifact>>,
    /// Numbers what runs beside steps.
    beside: AtomicU16,
}

/// What steps are told that ask a release which runs.
struct Asking {
    told: BTreeMap<EnvName, String>,
    /// `before` or `after`.
    round: &'static str,
}

/// What a job is made of.
pub(crate) struct Materials {
    /// What it runs in.
    pub(crate) artifact: ArtifactId,
    /// The images of its services, in their order.
    pub(crate) services: Vec<Artifact>,
}

/// How a job stands, told whenever it changes.
pub(crate) struct Standing<'a> {
    bench: &'a Bench<'a>,
    run: Mutex<StepRun>,
    /// Since when nothing keeps it from running.
    pub(crate) ready: Instant,
}

impl Standing<'_> {
    pub(crate) fn change(&self, change: impl FnOnce(&mut StepRun)) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut run);
        (self.bench.ground.tell)(News::Step(run.clone()));
    }

    /// For the first attempt alone.
    pub(crate) fn is_first(&self) -> bool {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).attempts <= 1
    }
}

impl<'a> Bench<'a> {
    /// For the steps that run before a release does. Firing `stop` ends all that run.
    pub fn new(ground: &'a Ground, stop: CancellationToken) -> Self {
        Self { ground, stop, asks: None, images: tokio::sync::Mutex::default(), beside: AtomicU16::new(1) }
    }

    /// For the steps that ask a release which runs: `told` says where it is, `round` is `before` or `after`.
    pub fn asking(ground: &'a Ground, stop: CancellationToken, told: BTreeMap<EnvName, String>, round: &'static str) -> Self {
        Self { asks: Some(Asking { told, round }), ..Self::new(ground, stop) }
    }

    pub(crate) fn next_beside(&self) -> u16 {
        self.beside.fetch_add(1, Ordering::Relaxed)
    }

    /// Sees to it that the images of jobs are here, before anybody waits for these.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub async fn fetch_images(&self, jobs: &[Job]) -> Result<(), StepFailure> {
        for job in jobs {
            self.materials(job).await?;
        }
        Ok(())
    }

    /// Runs jobs one after the other, whatever is known of them, until one fails.
    ///
    /// # Errors
    /// That failure.
    pub async fn verify(&self, jobs: &[Job]) -> Result<(), StepFailure> {
        for job in jobs {
            let standing = self.begin(job);
            let ended = async {
                let materials = self.materials(job).await?;
                Box::pin(self.attempts(job, &materials, &[], None, &standing)).await
            };
            let ended = ended.await.map(drop);
            self.settle(&standing, &ended);
            ended?;
        }
        Ok(())
    }

    /// Runs a job, unless it has passed with the same before. Answers what it hands over.
    pub(crate) async fn run_unless_known(
        &self,
        job: &Job,
        files: &TreeFiles,
        brought: Vec<Parcel>,
    ) -> Result<Option<Parcel>, StepFailure> {
        let standing = self.begin(job);
        let ended = async {
            let materials = self.materials(job).await?;
            if job.depends_on_no_file(files) {
                let patterns: Vec<String> = job.step.when.paths.iter().map(ToString::to_string).collect();
                let told = "so no change of a file will make it run again";
                self.ground.note(format!("{job}: no file of the tree is one of when.paths ({}), {told}", patterns.join(", ")));
            }
            let Known { key, before } = self.known(job, &materials, files, &brought).await?;
            if let Some((when, parcel)) = before {
                let why = format!("nothing it depends on has changed since it passed {when}");
                self.ground.note(format!("{job}: cached: {why}"));
                standing.change(|run| {
                    (run.state, run.why, run.finished_at) = (StepState::Cached, Some(why), Some(Timestamp::now()));
                    run.artifacts = parcel.as_ref().map(Parcel::handover);
                });
                return Ok(parcel);
            }
            let parcel = Box::pin(self.attempts(job, &materials, &brought, Some(&key), &standing)).await?;
            let named = matches!(job.step.image, StepImage::Named(_)).then(|| materials.artifact.clone());
            let images = named.into_iter().chain(materials.services.into_iter().map(|artifact| artifact.id)).collect();
            self.ground.memory.record(Passed { key, step: job.to_string(), images }).await;
            Ok(parcel)
        };
        let ended = ended.await;
        self.settle(&standing, &ended);
        if let Ok(Some(parcel)) = &ended {
            (self.ground.tell)(News::Handed { step: self.label(job), parcel: parcel.path.clone() });
        }
        ended
    }

    fn begin(&self, job: &Job) -> Standing<'_> {
        let mut run = StepRun::new(self.label(job), StepState::Running);
        run.started_at = Some(Timestamp::now());
        (self.ground.tell)(News::Step(run.clone()));
        Standing { bench: self, run: Mutex::new(run), ready: Instant::now() }
    }

    fn settle<T>(&self, standing: &Standing<'_>, ended: &Result<T, StepFailure>) {
        let Err(failure) = ended else { return };
        standing.change(|run| {
            run.finished_at = Some(Timestamp::now());
            match failure {
                StepFailure::Cancelled => run.state = StepState::Cancelled,
                StepFailure::Failed { cause, code, .. } => {
                    (run.state, run.why, run.exit_code) = (StepState::Failed, Some(cause.clone()), *code);
                }
                StepFailure::Engine(error) => (run.state, run.why) = (StepState::Failed, Some(error.to_string())),
            }
        });
    }

    async fn attempts(
        &self,
        job: &Job,
        materials: &Materials,
        brought: &[Parcel],
        key: Option<&coracle_pipeline::Key>,
        standing: &Standing<'_>,
    ) -> Result<Option<Parcel>, StepFailure> {
        let begun = Instant::now();
        let mut again = 0;
        loop {
            standing.change(|run| run.attempts += 1);
            match Box::pin(self.attempt(job, materials, brought, key, standing)).await {
                Err(StepFailure::Failed { cause, .. }) if again < job.step.retries => {
                    again += 1;
                    self.ground.note(format!("{job}: {cause}; trying again, {again} of {}", job.step.retries));
                }
                Ok(parcel) => {
                    self.ground.note(format!("{job}: passed after {:.1} s", begun.elapsed().as_secs_f64()));
                    standing.change(|run| {
                        (run.state, run.exit_code, run.finished_at) = (StepState::Passed, Some(0), Some(Timestamp::now()));
                        run.artifacts = parcel.as_ref().map(Parcel::handover);
                    });
                    return Ok(parcel);
                }
                failed => return failed,
            }
        }
    }

    /// The images of a job, fetched if they are not here.
    async fn materials(&self, job: &Job) -> Result<Materials, StepFailure> {
        let artifact = match (&job.step.image, &self.ground.of_app) {
            (StepImage::Named(reference), _) => self.image(reference, job).await?.id,
            (StepImage::App, Some(of_app)) => of_app.artifact.clone(),
            (StepImage::App, None) => {
                return Err(StepFailure::new(format!("the step {job} runs in the app, which was not built"), self.ground.again));
            }
        };
        let mut services = Vec::new();
        for service in &job.step.services {
            services.push(self.image(&service.image, job).await?);
        }
        Ok(Materials { artifact, services })
    }

    async fn image(&self, reference: &str, job: &Job) -> Result<Artifact, StepFailure> {
        let mut images = self.images.lock().await;
        if let Some(known) = images.get(reference) {
            return Ok(known.clone());
        }
        let artifact = self.kept_or_fetched(reference, job).await?;
        images.insert(reference.to_owned(), artifact.clone());
        Ok(artifact)
    }

    /// What the machine has under this name, or what was fetched for it before; nothing is asked of a registry then.
    async fn kept_or_fetched(&self, reference: &str, job: &Job) -> Result<Artifact, StepFailure> {
        let builder = &self.ground.engine.builder;
        let here = self.image_request(reference, PullPolicy::Never);
        match builder.build(&here, &OutputSink::discard(), &self.stop).await {
            Err(BuildError::CannotBuild(_) | BuildError::Registry { .. }) => {}
            other => return other.map_err(|error| StepFailure::of_image(error, &job.to_string(), Vec::new(), self.ground.again)),
        }
        let kept = self.ground.memory.kept_image(reference).await;
        let is_here = match &kept {
            Some(kept) => builder.has(&kept.id).await.map_err(StepFailure::Engine)?,
            None => false,
        };
        let artifact = match kept.filter(|_| is_here) {
            Some(kept) => kept,
            None => self.fetched(reference, job).await?,
        };
        // Whatever becomes of this run, the next one finds it.
        self.ground.memory.keep_image(reference, &artifact).await;
        Ok(artifact)
    }

    fn image_request(&self, reference: &str, pull: PullPolicy) -> BuildRequest {
        // By its reference, so that no two images are ever called alike.
        let name = format!("step-image.{}", &blake3::hash(reference.as_bytes()).to_hex()[..16]);
        let part: Option<ProcessName> = name.parse().ok();
        let recipe = Recipe::Image { reference: reference.to_owned(), pull };
        let reason = "an image".to_owned();
        BuildRequest {
            app: self.ground.app.clone(),
            release: self.ground.release,
            part,
            source: self.ground.source.clone(),
            contexts: BTreeMap::new(),
            plan: BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason, serving: Serving::default() },
            limits: self.ground.limits,
            logins: self.ground.logins.clone(),
        }
    }

    async fn fetched(&self, reference: &str, job: &Job) -> Result<Artifact, StepFailure> {
        let request = self.image_request(reference, PullPolicy::Missing);
        let (sink, tail) = self.output_of(job);
        let fetched = self.ground.engine.builder.build(&request, &sink, &self.stop).await;
        let failed = |error| StepFailure::of_image(error, &job.to_string(), tail.lines(), self.ground.again);
        fetched.map_err(failed)
    }

    /// Whether steps without an image of their own have their files on the machine.
    pub(crate) fn works_on_the_machine(&self) -> bool {
        self.ground.engine.kind == EngineKind::Process
    }

    /// The configuration that a job names.
    pub(crate) fn secrets_of(&self, job: &Job) -> Vec<(EnvName, Secret)> {
        self.ground.config.iter().filter(|(name, _)| job.step.secrets.contains(name)).cloned().collect()
    }

    /// What is left out of all that a job writes.
    pub(crate) fn hiding_of(&self, job: &Job) -> Hiding {
        Hiding::new(&self.secrets_of(job))
    }

    /// What a job is told of where the source came from, and of the release it asks.
    pub(crate) fn told(&self, job: &Job) -> BTreeMap<EnvName, String> {
        let mut told = self.ground.told.always.clone();
        if job.step.always || self.asks.is_some() {
            told.extend(self.ground.told.each_time.clone());
        }
        told.extend(self.asks.iter().flat_map(|asking| asking.told.clone()));
        told
    }

    /// What a job is called in a run.
    pub(crate) fn label(&self, job: &Job) -> String {
        match &self.asks {
            None => job.to_string(),
            Some(asking) => format!("{job} ({})", asking.round),
        }
    }

    /// A sink that says whose lines they are, without the values of the job's secrets, and remembers the last ones.
    pub(crate) fn output_of(&self, job: &Job) -> (OutputSink, Tail) {
        let tail = Tail::default();
        let (keep, tell, step) = (tail.clone(), self.ground.tell.clone(), self.label(job));
        let hiding = self.hiding_of(job);
        let sink = OutputSink::new(move |OutputLine { stream, text }| {
            let text = hiding.clean(text);
            keep.push(&text);
            tell(News::Output { step: step.clone(), line: OutputLine { stream, text } });
        });
        (sink, tail)
    }
}

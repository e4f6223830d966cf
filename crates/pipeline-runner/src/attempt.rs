//! One attempt at a step: what it needs beside it is brought up, it runs to its end, and nothing of either is left.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_build::parcel::{self, ParcelLimits, Standing as Way};
use coracle_engine::{Bind, EngineError, Handed, InstanceSpec, PortRequest, StartMark, Surroundings};
use coracle_model::{ContainerSettings, EnvName, InstanceId, ProcessName, Secret, VolumeMount, VolumeName};
use coracle_pipeline::{Job, Key, StepImage, WORKSPACE};

use crate::STEP;
use crate::artifacts::TAKEN_LIMIT;
use crate::bench::{Bench, Materials, Standing};
use crate::failure::StepFailure;
use crate::shelf::Parcel;

/// The exit code for a command that was not found.
const NOT_FOUND: i32 = 127;

/// Where one attempt has its files.
pub(crate) struct Place {
    /// Its directory, removed at the end.
    pub(crate) root: PathBuf,
    /// The copy of the source tree, for a step with an image of its own.
    pub(crate) workspace: Option<PathBuf>,
    /// What the engine is to put into what was built, and take out of it.
    pub(crate) handed: Option<Handed>,
}

/// What is not where a step works.
enum Misplaced {
    Tree(String),
    Parcel(String),
}

impl Bench<'_> {
    pub(crate) async fn attempt(
        &self,
        job: &Job,
        materials: &Materials,
        brought: &[Parcel],
        key: Option<&Key>,
        standing: &Standing<'_>,
    ) -> Result<Option<Parcel>, StepFailure> {
        let place = self.place(job, brought).await?;
        let started = StartMark::default();
        let spec = self.spec(job, materials, &place, started.clone());
        let beside = self.beside(job, materials, &spec);
        let before = Instant::now();
        let outcome = match self.bring_up(job, &beside).await {
            Ok(()) => {
                let services = before.elapsed();
                let ended = self.run(job, &spec).await;
                if standing.is_first() {
                    let waited = started.at().map(|at| at.saturating_duration_since(standing.ready).saturating_sub(services));
                    standing.change(|run| {
                        run.waited_ms = waited.map(millis);
                        run.services_ms = (!beside.is_empty()).then(|| millis(services));
                    });
                }
                ended
            }
            Err(failure) => Err(failure),
        };
        self.take_down(&beside, spec.surroundings.apart.as_deref()).await;
        let outcome = match (outcome, key) {
            (Ok(()), Some(key)) if !job.step.artifacts.is_empty() => self.take_artifacts(job, &place, key).await.map(Some),
            (outcome, _) => outcome.map(|()| None),
        };
        remove(place.root).await;
        outcome
    }

    async fn run(&self, job: &Job, spec: &InstanceSpec) -> Result<(), StepFailure> {
        let (sink, tail) = self.output_of(job);
        let (limit, again) = (job.step.timeout, self.ground.again);
        let failed = |cause: String, hint: String, code| StepFailure::Failed { cause, evidence: tail.lines(), hint, code };
        match self.ground.engine.runtime.run(spec, &sink, limit.duration(), &self.stop).await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => {
                let mend = match (exit.code, &job.step.image) {
                    _ if self.met_a_read_only_tree(job, &tail.lines()) => {
                        "what was built is read-only here: let the step write to /tmp, or name what it makes in `artifacts`"
                    }
                    // A shell, and whatever stands for one, says so of what it cannot find (POSIX, "Exit Status for Commands").
                    (Some(NOT_FOUND), StepImage::App) => {
                        "see that what `run` names is among what the app installs, or give the step an `image` that has it"
                    }
                    (Some(NOT_FOUND), StepImage::Named(_)) => "see that what `run` names is in the step's image",
                    _ => "mend what its output shows",
                };
                let hint = format!("{mend}, then `{again}`; the app is as it was before");
                Err(failed(format!("the step {job} failed: {exit}"), hint, exit.code))
            }
            Err(EngineError::TimedOut { .. }) => {
                let hint = format!("raise the timeout of the step {job} in coracle.toml if it needs longer, then `{again}`");
                Err(failed(format!("the step {job} did not end within {limit}"), hint, None))
            }
            Err(EngineError::CannotStart { cause, .. }) => {
                let place = match self.works_in_what_was_built_here(job) {
                    true => "is among what the app installs, or on this machine",
                    false => "is in the step's image",
                };
                let hint = format!("see that what `run` names {place}, then `{again}`");
                Err(failed(format!("the step {job} cannot be started: {cause}"), hint, None))
            }
            Err(EngineError::Failed { action, cause }) if action.starts_with("take files out of") => {
                let cause = format!("the step {job} passed, and its artifacts cannot be taken: {cause}");
                Err(failed(cause, format!("name fewer files in `artifacts`, then `{again}`"), None))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a step sees what the app was built into as it lies on this machine, where nobody may write to it.
    fn works_in_what_was_built_here(&self, job: &Job) -> bool {
        self.works_on_the_machine() && job.step.image == StepImage::App
    }

    fn met_a_read_only_tree(&self, job: &Job, told: &[String]) -> bool {
        self.works_in_what_was_built_here(job) && told.iter().any(|line| line.contains("Read-only file system"))
    }

    /// A fresh copy of the source tree for a step with an image of its own: no attempt sees what another left. What other steps
    /// handed over lies in it.
    async fn place(&self, job: &Job, brought: &[Parcel]) -> Result<Place, StepFailure> {
        let name = format!("{}.{}.{}", job.step.name, job.number, self.next_beside());
        let root = self.ground.workspaces.join(name);
        let brought: Vec<PathBuf> = brought.iter().map(|parcel| parcel.path.clone()).collect();
        if job.step.image == StepImage::App {
            if brought.is_empty() && job.step.artifacts.is_empty() {
                return Ok(Place { root, workspace: None, handed: None });
            }
            let handed = Handed {
                scratch: root.clone(),
                brought,
                taken: if self.works_on_the_machine() { Vec::new() } else { job.step.artifact_roots() },
                limit: TAKEN_LIMIT,
            };
            let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).await;
            made.map_err(|error| self.cannot_copy(&error.to_string()))?;
            return Ok(Place { root, workspace: None, handed: Some(handed) });
        }
        let (source, workspace) = (self.ground.source.clone(), root.join("workspace"));
        let spare = match &self.ground.spares {
            Some(spares) => spares.take().await,
            None => None,
        };
        let (to, parent) = (workspace.clone(), root.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let copied = match spare {
                Some(spare) => std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)
                    .and_then(|()| std::fs::rename(spare, &to)),
                None => coracle_build::copy_for_all(&source, &to),
            };
            copied.map_err(|error| Misplaced::Tree(error.to_string()))?;
            brought.iter().try_for_each(|archive| {
                let laid = parcel::lay(archive, &to, Way::GivesWay, ParcelLimits::default());
                laid.map(drop).map_err(|error| Misplaced::Parcel(error.to_string()))
            })
        });
        let failure = match copied.await {
            Ok(Ok(())) => return Ok(Place { root, workspace: Some(workspace), handed: None }),
            Ok(Err(Misplaced::Tree(cause))) => self.cannot_copy(&cause),
            Ok(Err(Misplaced::Parcel(cause))) => self.cannot_lay(job, &cause),
            Err(error) => self.cannot_copy(&error.to_string()),
        };
        remove(root).await;
        Err(failure)
    }

    fn cannot_lay(&self, job: &Job, cause: &str) -> StepFailure {
        let hint = format!("run the steps that it needs anew, and see that the disk has room; then `{}`", self.ground.again);
        StepFailure::new(format!("what other steps handed over cannot be laid before the step {job}: {cause}"), hint)
    }

    fn cannot_copy(&self, cause: &str) -> StepFailure {
        let hint = format!("see that the disk has room (`coracle doctor`), then `{}`", self.ground.again);
        StepFailure::new(format!("the source tree cannot be copied for a step: {cause}"), hint)
    }

    fn spec(&self, job: &Job, materials: &Materials, place: &Place, started: StartMark) -> InstanceSpec {
        let ground = self.ground;
        let process = format!("{STEP}{}", job.step.name).parse().unwrap_or_else(|_| beside_step());
        let working_dir = place.workspace.is_some().then(|| WORKSPACE.to_owned());
        let container = ContainerSettings { working_dir, ..ContainerSettings::default() };
        let bind =
            |source: &PathBuf| Bind { source: source.clone(), path: WORKSPACE.to_owned(), read_only: false, propagation: None };
        InstanceSpec {
            id: InstanceId { app: ground.app.clone(), release: ground.release, process, index: job.number },
            artifact: materials.artifact.clone(),
            command: Some(job.step.run.clone()),
            env: self.environment(job),
            port: PortRequest::None,
            limits: ground.instance_limits(),
            volumes: job.step.cache.iter().filter_map(|path| cache(job, path)).collect(),
            surroundings: Surroundings {
                container: Box::new(container),
                binds: place.workspace.iter().map(bind).collect(),
                apart: (!job.step.services.is_empty()).then(|| format!("{STEP}{}.{}", job.step.name, job.number)),
                open_volumes: true,
                handed: place.handed.clone(),
                started,
                ..Surroundings::default()
            },
        }
    }

    /// The manifest's plain values, where its services are, the step's own, the configuration it names, and what it is.
    fn environment(&self, job: &Job) -> Vec<(EnvName, Secret)> {
        let ground = self.ground;
        let identity =
            [("CI", "true".to_owned()), ("CORACLE_APP", ground.app.to_string()), ("CORACLE_STEP", job.step.name.to_string())];
        let (told, told_by_services) = (self.told(job), job.step.services.iter().flat_map(|service| &service.told));
        let plain = ground.env.iter().chain(told_by_services).chain(&job.step.env).chain(&job.variant).chain(&told);
        let mut env: BTreeMap<EnvName, Secret> = plain.map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
        env.extend(self.secrets_of(job));
        env.extend(identity.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, Secret::new(value)))));
        env.into_iter().collect()
    }
}

/// What a step keeps at this path for its next run. It goes with the app.
fn cache(job: &Job, path: &str) -> Option<VolumeMount> {
    let step: &str = job.step.name.as_str();
    let mut sum = blake3::Hasher::new();
    // Jobs of one matrix run at the same time, and what one of them keeps would be wrong for another.
    sum.update(step.as_bytes()).update(b"\0").update(path.as_bytes());
    for (name, value) in &job.variant {
        sum.update(format!("\0{name}={value}").as_bytes());
    }
    let name: VolumeName = format!("step-cache-{}", &sum.finalize().to_hex()[..16]).parse().ok()?;
    Some(VolumeMount { name, path: path.to_owned(), read_only: false, external: None })
}

/// The name of what runs beside steps.
pub(crate) fn beside_step() -> ProcessName {
    crate::BESIDE_STEP.parse().unwrap_or_else(|_| unreachable!("it is a process name"))
}

/// Removes what a step worked in. What is left of it goes with the run.
async fn remove(place: PathBuf) {
    let shown = place.display().to_string();
    let removed = tokio::task::spawn_blocking(move || if exists(&place) { std::fs::remove_dir_all(place) } else { Ok(()) }).await;
    if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
        tracing::warn!(path = shown, %error, "what a step worked in is not gone yet");
    }
}

fn exists(place: &Path) -> bool {
    place.symlink_metadata().is_ok()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

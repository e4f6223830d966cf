//! Where steps are run: what they have in common, from images to what is known of earlier runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};

use coracle_engine::{BuildRequest, OutputLine, OutputSink, Tail};
use coracle_model::stack::PullPolicy;
use coracle_model::{Artifact, ArtifactId, CommandLine, EnvName, ProcessName, ProcessSource, Secret};
use coracle_pipeline::{Inputs, Job, StepImage, TreeFiles};
use coracle_store::PassedStep;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::making::{build_failure, build_limits};
use super::super::parts::plan_of;
use super::super::{Candidacy, Failure, Rollout};
use super::Orders;
use crate::instances::{Making, ONE_OFF};
use crate::progress::Event;

/// Shorter secrets are not looked for in output: they would be found everywhere.
const SHORTEST_SECRET: usize = 6;

/// Where the steps of one release are run.
pub(super) struct Bench<'a> {
    pub(super) rollout: &'a Rollout<'a>,
    pub(super) candidacy: &'a Candidacy,
    pub(super) orders: &'a Orders,
    /// The app's configuration, of which each step sees what it names.
    pub(super) config: Vec<(EnvName, Secret)>,
    /// What every step is told beside its own variables.
    pub(super) told: BTreeMap<EnvName, String>,
    /// Ends all that run.
    pub(super) stop: CancellationToken,
    /// Images that have been fetched, by reference. One at a time: steps often share them.
    images: tokio::sync::Mutex<BTreeMap<String, Artifact>>,
    /// Numbers what runs beside steps.
    beside: AtomicU16,
}

/// What a job is made of.
pub(super) struct Materials {
    /// What it runs in.
    pub(super) artifact: ArtifactId,
    /// The images of its services, in their order.
    pub(super) services: Vec<Artifact>,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(
        rollout: &'a Rollout<'a>,
        candidacy: &'a Candidacy,
        orders: &'a Orders,
        told: BTreeMap<EnvName, String>,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        let release = &candidacy.release;
        let config = rollout.core.store.release_env(&release.app, release.number).await?;
        let (images, beside) = (tokio::sync::Mutex::default(), AtomicU16::new(1));
        Ok(Self { rollout, candidacy, orders, config, told, stop, images, beside })
    }

    /// Ends all that run.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Removes what steps worked in.
    pub(super) async fn tidy_up(&self) {
        let release = &self.candidacy.release;
        let (mounts, app, number) = (self.rollout.core.mounts.clone(), release.app.clone(), release.number);
        let removing = tokio::task::spawn_blocking(move || mounts.remove_workspaces(&app, number));
        if let Err(error) = removing.await {
            tracing::warn!(%error, "removing what steps worked in broke off");
        }
    }

    pub(super) fn next_beside(&self) -> u16 {
        self.beside.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a job, unless it has passed with the same before.
    pub(super) async fn run_unless_known(&self, job: &Job, files: &TreeFiles) -> Result<(), Failure> {
        let (store, release) = (&self.rollout.core.store, &self.candidacy.release);
        let materials = self.materials(job).await?;
        let services: Vec<String> = materials.services.iter().map(|artifact| artifact.id.to_string()).collect();
        // What the app was built into has another id for every release; it is what its recipe makes of the tree. What was not
        // built from the tree alone is what it is: a tag may have moved, a compose file be filled in otherwise.
        let of_app = || format!("{} {}", release.artifact.engine, serde_json::json!(release.spec.build));
        let image = match &job.step.image {
            StepImage::App if release.spec.is_stack() || release.spec.build.image.is_some() => materials.artifact.to_string(),
            StepImage::App => of_app(),
            StepImage::Named(_) => materials.artifact.to_string(),
        };
        let key = job.key(&Inputs {
            image: &image,
            services: &services,
            tree: files,
            env: &release.spec.env,
            secrets: &self.secrets_of(job),
        });
        if let Some(before) = store.passed_step(&release.app, key.as_str()).await? {
            self.rollout.note(format!("{job}: cached: nothing it depends on has changed since it passed for {before}"));
            return Ok(());
        }
        self.attempts(job, &materials).await?;
        let named = matches!(job.step.image, StepImage::Named(_)).then(|| materials.artifact.clone());
        let images = named.into_iter().chain(materials.services.into_iter().map(|artifact| artifact.id)).collect();
        let passed = PassedStep { key: key.as_str().to_owned(), step: job.to_string(), release: release.number, images };
        // Forgotten, it is only run once more.
        if let Err(error) = store.record_step(&release.app, &passed).await {
            tracing::warn!(app = %release.app, step = %job, %error, "that it passed could not be written down");
        }
        Ok(())
    }

    /// Runs a job, whatever is known of it.
    pub(super) async fn run_with_retries(&self, job: &Job) -> Result<(), Failure> {
        let materials = self.materials(job).await?;
        self.attempts(job, &materials).await
    }

    async fn attempts(&self, job: &Job, materials: &Materials) -> Result<(), Failure> {
        let begun = Instant::now();
        for again in 1..=job.step.retries {
            match self.attempt(job, materials).await {
                Err(Failure::Release { cause, .. }) => {
                    self.rollout.note(format!("{job}: {cause}; trying again, {again} of {}", job.step.retries));
                }
                other => return other.inspect(|()| self.tell_passed(job, begun)),
            }
        }
        self.attempt(job, materials).await.inspect(|()| self.tell_passed(job, begun))
    }

    fn tell_passed(&self, job: &Job, begun: Instant) {
        self.rollout.note(format!("{job}: passed after {:.1} s", begun.elapsed().as_secs_f64()));
    }

    /// The images of a job, fetched if they are not here.
    async fn materials(&self, job: &Job) -> Result<Materials, Failure> {
        let artifact = match &job.step.image {
            StepImage::App => self.artifact_of_app(&job.step.run),
            StepImage::Named(reference) => self.image(reference, job).await?.id,
        };
        let mut services = Vec::new();
        for service in &job.step.services {
            services.push(self.image(&service.image, job).await?);
        }
        Ok(Materials { artifact, services })
    }

    /// What the process that receives requests runs.
    fn artifact_of_app(&self, run: &CommandLine) -> ArtifactId {
        let making = Making { release: &self.candidacy.release, config: &[], mounts: &self.rollout.core.mounts };
        making.one_off(ONE_OFF, run.clone(), 1).artifact
    }

    async fn image(&self, reference: &str, job: &Job) -> Result<Artifact, Failure> {
        let mut images = self.images.lock().await;
        if let Some(known) = images.get(reference) {
            return Ok(known.clone());
        }
        let release = &self.candidacy.release;
        let part: Option<ProcessName> = format!("step-image.{}", images.len()).parse().ok();
        let source = ProcessSource::Image { reference: reference.to_owned(), pull: PullPolicy::Missing };
        let request = BuildRequest {
            app: release.app.clone(),
            release: release.number,
            part,
            source: self.orders.source.clone(),
            contexts: BTreeMap::new(),
            plan: plan_of(&source),
            limits: build_limits(self.rollout.core, &release.spec),
        };
        let (sink, tail) = self.output_of(job);
        let fetched = self.candidacy.engine.builder.build(&request, &sink, &self.stop).await;
        let artifact = fetched.map_err(|error| match build_failure(error, tail.lines()) {
            Failure::Release { cause, evidence, hint } => {
                Failure::Release { cause: format!("the step {job} cannot be run: {cause}"), evidence, hint }
            }
            other => other,
        })?;
        images.insert(reference.to_owned(), artifact.clone());
        Ok(artifact)
    }

    /// The configuration that a job names.
    pub(super) fn secrets_of(&self, job: &Job) -> Vec<(EnvName, Secret)> {
        self.config.iter().filter(|(name, _)| job.step.secrets.contains(name)).cloned().collect()
    }

    /// A sink that says whose lines they are, without the values of the job's secrets, and remembers the last ones.
    pub(super) fn output_of(&self, job: &Job) -> (OutputSink, Tail) {
        let tail = Tail::default();
        let (keep, progress, label) = (tail.clone(), self.rollout.progress.clone(), job.to_string());
        let hidden = hidden(&self.secrets_of(job));
        let sink = OutputSink::new(move |OutputLine { stream, mut text }| {
            for secret in hidden.iter().map(Secret::expose) {
                text = text.replace(secret, "***");
            }
            keep.push(&text);
            progress.tell(Event::Output(OutputLine { stream, text: format!("{label}: {text}") }));
        });
        (sink, tail)
    }
}

/// What is left out of output: the secrets' values, and the lines of those that have several, as a program prints them. The
/// longest first, since one may be the beginning of another.
fn hidden(secrets: &[(EnvName, Secret)]) -> Vec<Secret> {
    let values = secrets.iter().map(|(_, value)| value.expose());
    let pieces = values.flat_map(|value| std::iter::once(value).chain(value.lines()));
    let mut hidden: Vec<Secret> = pieces.map(str::trim).map(Secret::new).collect();
    hidden.retain(|secret| secret.expose().len() >= SHORTEST_SECRET);
    let order = |secret: &Secret| (std::cmp::Reverse(secret.expose().len()), secret.expose().to_owned());
    hidden.sort_by_key(order);
    hidden.dedup_by_key(|secret| secret.expose().to_owned());
    hidden
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_are_hidden_by_lines_and_the_longest_first() {
        let secret = |name: &str, value: &str| (name.parse().unwrap(), Secret::new(value));
        let secrets = [
            secret("A", "abcdef"),
            secret("B", "abcdef123"),
            secret("KEY", "begin key\n  c2VjcmV0\nend\n"),
            secret("PIN", "1234"),
        ];
        let hidden = hidden(&secrets);
        let hidden: Vec<&str> = hidden.iter().map(Secret::expose).collect();
        assert_eq!(hidden, ["begin key\n  c2VjcmV0\nend", "abcdef123", "begin key", "c2VjcmV0", "abcdef"]);
    }
}

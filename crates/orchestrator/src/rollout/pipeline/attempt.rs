//! One attempt at a step: what it needs beside it is brought up, it runs to its end, and nothing of either is left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_engine::{Bind, EngineError, InstanceSpec, PortRequest, Surroundings};
use coracle_model::{ContainerSettings, EnvName, InstanceId, Limits, ProcessName, Secret, VolumeMount, VolumeName};
use coracle_pipeline::{Job, StepImage};

use super::super::Failure;
use super::super::making::build_limits;
use super::bench::{Bench, Materials};
use super::tree;
use crate::instances::{ONE_OFF, STEP, reserved};

/// Where a step with an image of its own finds the source tree.
const WORKSPACE: &str = "/workspace";

impl Bench<'_> {
    pub(super) async fn attempt(&self, job: &Job, materials: &Materials) -> Result<(), Failure> {
        let workspace = self.workspace(job).await?;
        let spec = self.spec(job, materials, workspace.clone());
        let beside = self.beside(job, materials, &spec);
        let outcome = match self.bring_up(job, &beside).await {
            Ok(()) => self.run(job, &spec).await,
            Err(failure) => Err(failure),
        };
        self.take_down(&beside, spec.surroundings.apart.as_deref()).await;
        if let Some(workspace) = workspace {
            tree::remove(workspace).await;
        }
        outcome
    }

    async fn run(&self, job: &Job, spec: &InstanceSpec) -> Result<(), Failure> {
        let (sink, tail) = self.output_of(job);
        let limit = job.step.timeout;
        let failed = |cause: String, hint: &str| Failure::Release { cause, evidence: tail.lines(), hint: hint.to_owned() };
        let mend = "mend what its output shows, then `coracle deploy`; the app is as it was before";
        match self.candidacy.engine.runtime.run(spec, &sink, limit.duration(), &self.stop).await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => Err(failed(format!("the step {job} failed: {exit}"), mend)),
            Err(EngineError::TimedOut { .. }) => {
                let hint =
                    format!("raise the timeout of the step {job} in coracle.toml if it needs longer, then `coracle deploy`");
                Err(failed(format!("the step {job} did not end within {limit}"), &hint))
            }
            Err(EngineError::CannotStart { cause, .. }) => {
                let hint = "see that what `run` names is in the step's image, then `coracle deploy`";
                Err(failed(format!("the step {job} cannot be started: {cause}"), hint))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A fresh copy of the source tree for a step with an image of its own: no attempt sees what another left.
    async fn workspace(&self, job: &Job) -> Result<Option<PathBuf>, Failure> {
        if job.step.image == StepImage::App {
            return Ok(None);
        }
        let release = &self.candidacy.release;
        let of_release = self.rollout.core.mounts.workspaces(&release.app, release.number);
        let place = of_release.join(format!("{}.{}.{}", job.step.name, job.number, self.next_beside()));
        tree::copy_for_all(&self.orders.source, place.clone()).await?;
        Ok(Some(place))
    }

    fn spec(&self, job: &Job, materials: &Materials, workspace: Option<PathBuf>) -> InstanceSpec {
        let release = &self.candidacy.release;
        let process = format!("{STEP}{}", job.step.name).parse().unwrap_or_else(|_| reserved(ONE_OFF));
        let container =
            ContainerSettings { working_dir: workspace.is_some().then(|| WORKSPACE.to_owned()), ..ContainerSettings::default() };
        let bind = |source| Bind { source, path: WORKSPACE.to_owned(), read_only: false, propagation: None };
        InstanceSpec {
            id: InstanceId { app: release.app.clone(), release: release.number, process, index: job.number },
            artifact: materials.artifact.clone(),
            command: Some(job.step.run.clone()),
            env: self.environment(job),
            port: PortRequest::None,
            limits: self.limits(),
            volumes: job.step.cache.iter().filter_map(|path| cache(job, path)).collect(),
            surroundings: Surroundings {
                container: Box::new(container),
                binds: workspace.map(bind).into_iter().collect(),
                apart: (!job.step.services.is_empty()).then(|| format!("{STEP}{}.{}", job.step.name, job.number)),
                ..Surroundings::default()
            },
        }
    }

    /// What a build of the app may use.
    pub(super) fn limits(&self) -> Limits {
        let limits = build_limits(self.rollout.core, &self.candidacy.release.spec);
        Limits { memory: Some(limits.memory), cpus: Some(limits.cpus), ..Limits::default() }
    }

    /// The manifest's plain values, where its services are, the step's own, the configuration it names, and what it is.
    fn environment(&self, job: &Job) -> Vec<(EnvName, Secret)> {
        let release = &self.candidacy.release;
        let identity = [
            ("CI", "true".to_owned()),
            ("CORACLE_APP", release.app.to_string()),
            ("CORACLE_RELEASE", release.number.to_string()),
            ("CORACLE_STEP", job.step.name.to_string()),
        ];
        let told_by_services = job.step.services.iter().flat_map(|service| &service.told);
        let plain = release.spec.env.iter().chain(told_by_services).chain(&job.step.env).chain(&job.variant).chain(&self.told);
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
pub(super) fn beside_step() -> ProcessName {
    reserved(crate::instances::BESIDE_STEP)
}

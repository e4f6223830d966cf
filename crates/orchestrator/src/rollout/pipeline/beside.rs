//! What runs beside a step: started before it in a network of their own, healthy before it begins, gone after it.

use std::time::Duration;

use coracle_engine::{InstanceSpec, PortRequest, Surroundings};
use coracle_model::{ContainerSettings, InstanceId, Secret};
use coracle_pipeline::{Job, Service};
use futures::future::{join_all, try_join_all};

use super::super::Failure;
use super::attempt::beside_step;
use super::bench::{Bench, Materials};
use crate::probe::{self, Check, Unhealthy};

/// How long a service may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one run of its check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// A service beside a step.
pub(super) struct Beside<'a> {
    service: &'a Service,
    spec: InstanceSpec,
    check: Check,
}

impl Bench<'_> {
    /// What is to run beside a step.
    pub(super) fn beside<'j>(&self, job: &'j Job, materials: &Materials, step: &InstanceSpec) -> Vec<Beside<'j>> {
        let both = job.step.services.iter().zip(&materials.services);
        both.map(|(service, artifact)| {
            let check = match (&service.health, artifact.port) {
                (Some(argv), _) => Check::Program { argv: argv.clone(), limit: CHECK_LIMIT, patience: Duration::ZERO },
                (None, _) if artifact.has_healthcheck => Check::Image,
                (None, Some(_)) => Check::Tcp,
                (None, None) => Check::Running,
            };
            let container = ContainerSettings { aliases: vec![service.name.clone()], ..ContainerSettings::default() };
            let release = &self.candidacy.release;
            let (app, process, index) = (release.app.clone(), beside_step(), self.next_beside());
            let spec = InstanceSpec {
                id: InstanceId { app, release: release.number, process, index },
                artifact: artifact.id.clone(),
                command: None,
                env: service.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect(),
                port: artifact.port.map_or(PortRequest::None, PortRequest::Neighbours),
                limits: self.limits(),
                volumes: Vec::new(),
                surroundings: Surroundings {
                    container: Box::new(container),
                    apart: step.surroundings.apart.clone(),
                    ..Surroundings::default()
                },
            };
            Beside { service, spec, check }
        })
        .collect()
    }

    /// Starts them all and waits until each is healthy.
    pub(super) async fn bring_up(&self, job: &Job, beside: &[Beside<'_>]) -> Result<(), Failure> {
        if beside.is_empty() {
            return Ok(());
        }
        let engine = &self.candidacy.engine;
        // Every start is awaited, so that none is still on its way when they are taken down.
        let starts = beside.iter().map(|one| async move { (one, engine.runtime.start(&one.spec).await) });
        for (one, started) in join_all(starts).await {
            if let Err(error) = started {
                return match self.rollout.cannot_start(engine, error).await {
                    Failure::Release { cause, evidence, hint } => {
                        Err(Failure::Release { cause: self.told_of(job, one, &cause), evidence, hint })
                    }
                    other => Err(other),
                };
            }
        }
        let healthy = try_join_all(beside.iter().map(|one| async move {
            let waited = probe::until_healthy(engine, &one.spec.id, &one.check, PATIENCE).await;
            waited.map(drop).map_err(|reason| (one, reason))
        }));
        let waited = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Failure::Cancelled),
            waited = healthy => waited,
        };
        match waited {
            Ok(_) => Ok(()),
            Err((_, Unhealthy::Engine(error))) => Err(error.into()),
            Err((one, reason)) => Err(Failure::Release {
                cause: self.told_of(job, one, &format!("it is not healthy: {reason}")),
                evidence: self.rollout.core.evidence(engine, &one.spec.id).await,
                hint: "see its variables (`env`) and its check (`health`) in coracle.toml, then `coracle deploy`".to_owned(),
            }),
        }
    }

    fn told_of(&self, job: &Job, one: &Beside<'_>, cause: &str) -> String {
        format!("the service {} beside the step {job}: {cause}", one.service.name)
    }

    /// Removes them and the network they shared with the step. What cannot be removed now goes with the release.
    pub(super) async fn take_down(&self, beside: &[Beside<'_>], network: Option<&str>) {
        let (runtime, release) = (&self.candidacy.engine.runtime, &self.candidacy.release);
        let stops = join_all(beside.iter().map(|one| runtime.stop(&one.spec.id, Duration::ZERO))).await;
        let network = match network {
            Some(name) => runtime.remove_apart(&release.app, release.number, name).await,
            None => Ok(()),
        };
        for error in stops.into_iter().chain([network]).filter_map(Result::err) {
            tracing::warn!(app = %release.app, release = %release.number, %error, "what ran beside a step is not gone yet");
        }
    }
}

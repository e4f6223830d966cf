//! What runs beside a step: started before it in a network of their own, healthy before it begins, gone after it.

use std::time::Duration;

use coracle_engine::{EngineError, InstanceSpec, PortRequest, Surroundings};
use coracle_model::{ContainerSettings, InstanceId, Secret};
use coracle_pipeline::{Job, Service};
use coracle_probe::{Check, Unhealthy, last_lines, until_healthy};
use futures::future::{join_all, try_join_all};

use crate::attempt::beside_step;
use crate::bench::{Bench, Materials};
use crate::failure::StepFailure;

/// How long a service may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one run of its check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// A service beside a step.
pub(crate) struct Beside<'a> {
    service: &'a Service,
    spec: InstanceSpec,
    check: Check,
}

impl Bench<'_> {
    /// What is to run beside a step.
    pub(crate) fn beside<'j>(&self, job: &'j Job, materials: &Materials, step: &InstanceSpec) -> Vec<Beside<'j>> {
        let both = job.step.services.iter().zip(&materials.services);
        both.map(|(service, artifact)| {
            let check = match (&service.health, artifact.port) {
                (Some(argv), _) => Check::Program { argv: argv.clone(), limit: CHECK_LIMIT, patience: Duration::ZERO },
                (None, _) if artifact.has_healthcheck => Check::Image,
                (None, Some(_)) => Check::Tcp,
                (None, None) => Check::Running,
            };
            let container = ContainerSettings { aliases: vec![service.name.clone()], ..ContainerSettings::default() };
            let ground = self.ground;
            let (app, process, index) = (ground.app.clone(), beside_step(), self.next_beside());
            let spec = InstanceSpec {
                id: InstanceId { app, release: ground.release, process, index },
                artifact: artifact.id.clone(),
                command: None,
                env: service.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect(),
                port: artifact.port.map_or(PortRequest::None, PortRequest::Neighbours),
                limits: ground.instance_limits(),
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
    pub(crate) async fn bring_up(&self, job: &Job, beside: &[Beside<'_>]) -> Result<(), StepFailure> {
        if beside.is_empty() {
            return Ok(());
        }
        let engine = &self.ground.engine;
        // Every start is awaited, so that none is still on its way when they are taken down.
        let starts = beside.iter().map(|one| async move { (one, engine.runtime.start(&one.spec).await) });
        for (one, started) in join_all(starts).await {
            if let Err(error) = started {
                let EngineError::CannotStart { cause, .. } = error else { return Err(error.into()) };
                let cause = self.told_of(job, one, &format!("it cannot be started: {cause}"));
                return Err(StepFailure::new(cause, format!("mend what this says, then `{}`", self.ground.again)));
            }
        }
        let healthy = try_join_all(beside.iter().map(|one| async move {
            let waited = until_healthy(engine, &one.spec.id, &one.check, PATIENCE).await;
            waited.map(drop).map_err(|reason| (one, reason))
        }));
        let waited = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(StepFailure::Cancelled),
            waited = healthy => waited,
        };
        match waited {
            Ok(_) => Ok(()),
            Err((_, Unhealthy::Engine(error))) => Err(error.into()),
            Err((one, reason)) => {
                let hiding = self.hiding_of(job);
                let lines = last_lines(engine, &one.spec.id).await;
                Err(StepFailure::Failed {
                    cause: hiding.clean(self.told_of(job, one, &format!("it is not healthy: {reason}"))),
                    evidence: lines.into_iter().map(|line| hiding.clean(line)).collect(),
                    hint: format!(
                        "see its variables (`env`) and its check (`health`) in coracle.toml, then `{}`",
                        self.ground.again
                    ),
                    code: None,
                })
            }
        }
    }

    fn told_of(&self, job: &Job, one: &Beside<'_>, cause: &str) -> String {
        format!("the service {} beside the step {job}: {cause}", one.service.name)
    }

    /// Removes them and the network they shared with the step. What cannot be removed now goes with the release.
    pub(crate) async fn take_down(&self, beside: &[Beside<'_>], network: Option<&str>) {
        let (runtime, ground) = (&self.ground.engine.runtime, self.ground);
        let stops = join_all(beside.iter().map(|one| runtime.stop(&one.spec.id, Duration::ZERO))).await;
        let network = match network {
            Some(name) => runtime.remove_apart(&ground.app, ground.release, name).await,
            None => Ok(()),
        };
        for error in stops.into_iter().chain([network]).filter_map(Result::err) {
            tracing::warn!(app = %ground.app, release = %ground.release, %error, "what ran beside a step is not gone yet");
        }
    }
}

//! One-off processes: `run` starts a fresh instance of the active release, `exec` a program inside a running one.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle_engine::{Exit, OutputSink, Stream};
use coracle_model::{AppName, CommandLine, InstanceId, ProcessName, Release};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::error::OrchestratorError;
use crate::instances::{Making, ONE_OFF};
use crate::orchestrator::ServiceStatus;

/// A forgotten one-off process ends after a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Numbers one-off processes of this server's life.
static NEXT: AtomicU16 = AtomicU16::new(1);

impl Core {
    pub(crate) async fn active_release(&self, app: &AppName) -> Result<Release, OrchestratorError> {
        let record = self.store.app(app).await?;
        match record.active {
            Some(number) => Ok(self.store.release(app, number).await?),
            None => Err(OrchestratorError::refused(format!("{app} has no release yet"), "coracle deploy")),
        }
    }

    pub(crate) async fn run_one_off(
        &self,
        app: &AppName,
        argv: Vec<String>,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        let command = CommandLine::literal(argv)
            .map_err(|error| OrchestratorError::refused(error.to_string(), "coracle run -- COMMAND ARGUMENTS"))?;
        let release = self.active_release(app).await?;
        let engine = self.engine(release.artifact.engine)?;
        let config = self.store.release_env(app, release.number).await?;
        let index = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        let making = Making { release: &release, config: &config, mounts: &self.mounts };
        let spec = making.one_off(ONE_OFF, command, index);
        let waited_for = OneOff::new(self, spec.id.clone());
        // One of this number may be left from an earlier life of the server, and must not be taken for this one.
        engine.runtime.stop(&spec.id, Duration::ZERO).await?;
        let result = engine.runtime.run(&spec, output, LONGEST, cancel).await;
        drop(waited_for);
        Ok(result?)
    }

    pub(crate) async fn exec_in(
        &self,
        app: &AppName,
        instance: Option<InstanceId>,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, OrchestratorError> {
        if argv.is_empty() {
            return Err(OrchestratorError::refused("there is no command to run", "coracle exec -- COMMAND ARGUMENTS"));
        }
        let release = self.active_release(app).await?;
        let engine = self.engine(release.artifact.engine)?;
        let names_nobody = instance.is_none();
        let id = match instance {
            Some(id) if id.app == *app => id,
            Some(id) => {
                return Err(OrchestratorError::refused(
                    format!("{id} is not an instance of {app}"),
                    format!("coracle ps -a {app}"),
                ));
            }
            None => {
                let mut running = engine.runtime.list().await?;
                let services: Vec<_> = self.service_statuses(app).await?.into_iter().map(|service| service.instance).collect();
                running.retain(|instance| {
                    let of_release = instance.id.app == *app && instance.id.release == release.number;
                    instance.is_running() && (of_release || services.contains(&instance.id))
                });
                // What keeps data is chosen only where there is nothing else.
                running.sort_by_key(|instance| services.contains(&instance.id));
                let chosen = running.iter().find(|instance| release.serves(&instance.id.process)).or_else(|| running.first());
                let none = || OrchestratorError::refused(format!("no instance of {app} runs"), format!("coracle ps -a {app}"));
                chosen.map(|instance| instance.id.clone()).ok_or_else(none)?
            }
        };
        let exit = engine.runtime.exec(&id, argv, output, cancel).await?;
        // As `docker compose exec` would have it: a shell's codes for what cannot be run and what is not there.
        if names_nobody
            && matches!(exit.code, Some(126 | 127))
            && let Some(part) = argv[0].parse().ok().filter(|part: &ProcessName| release.spec.part(part).is_some())
        {
            let rest: Vec<&str> = argv.iter().skip(1).map(String::as_str).skip_while(|word| *word == "--").collect();
            let of = |instance: &ServiceStatus| instance.instance.process == part;
            let number =
                self.service_statuses(app).await?.iter().find(|it| of(it)).map_or(release.number, |it| it.instance.release);
            let id = InstanceId { app: app.clone(), release: number, process: part, index: 1 };
            output.line(Stream::Stderr, format!("{} is a part of this app: coracle exec -i {id} -- {}", argv[0], rest.join(" ")));
        }
        Ok(exit)
    }
}

/// Says, as long as it lives, that somebody waits for the one-off process.
struct OneOff<'a> {
    core: &'a Core,
    id: InstanceId,
}

impl<'a> OneOff<'a> {
    fn new(core: &'a Core, id: InstanceId) -> Self {
        core.registry().one_offs.insert(id.clone());
        Self { core, id }
    }
}

impl Drop for OneOff<'_> {
    fn drop(&mut self) {
        self.core.registry().one_offs.remove(&self.id);
        self.core.wake.notify_one();
    }
}

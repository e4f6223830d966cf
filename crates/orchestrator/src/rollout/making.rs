//! The first steps of a rollout: from the request to a release that is written down and has prepared its ground.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_build::PlanError;
use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, EngineError, OutputSink};
use coracle_model::{AppSpec, Artifact, BuildPlan, DeploymentKind, EngineKind, EnvName, Origin, Phase, Release, Span};
use coracle_store::{NewRelease, StoreError};

use super::steps::host_taken;
use super::{Candidacy, Draft, Failure, Rollout};
use crate::candidate::Candidate;
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::instances::{ONE_OFF, RELEASE_COMMAND, one_off_spec};
use crate::orchestrator::DeployRequest;
use crate::progress::Event;

/// How long a build may take from start to end.
const BUILD_DEADLINE: Span = Span::seconds(30 * 60);
/// How many lines of output an error shows.
const TAIL: usize = 20;

impl Rollout<'_> {
    /// Everything that can be known before anything runs: the engine is there, required names are set, hosts are free.
    pub(super) async fn validate(&self, candidate: Candidate) -> Result<Draft, Failure> {
        let kind = match &candidate {
            Candidate::Tree(request) => request.spec.engine.unwrap_or(self.core.settings.default_engine),
            Candidate::Again { base, .. } => base.artifact.engine,
        };
        let engine = self.core.engine(kind)?.clone();
        let record = self.core.store.app(candidate.app()).await?;
        let old = match record.active {
            Some(number) => Some(self.core.store.release(&record.name, number).await?),
            None => None,
        };
        match &candidate {
            Candidate::Tree(request) => self.core.check_request(request).await?,
            Candidate::Again { base, .. } => {
                if !engine.builder.has(&base.artifact.id).await? {
                    let again = "build that version of the source again with `coracle deploy`";
                    return Err(Failure::release(
                        format!("what {} was built into is gone ({})", base.number, base.artifact.id),
                        again,
                    ));
                }
            }
        }
        Ok(Draft { engine, candidate, old })
    }

    /// Builds the artifact, if there is something to build, and writes the release down.
    pub(super) async fn build(&self, draft: Draft) -> Result<Candidacy, Failure> {
        let Draft { engine, candidate, old } = draft;
        let (number, app) = (self.deployment.to, self.deployment.app.clone());
        let (new, changes) = match candidate {
            Candidate::Tree(request) => {
                self.enter(Phase::Build).await?;
                let env = self.core.store.config(&app).await?.into_iter().map(|entry| (entry.name, entry.value)).collect();
                let origin = Origin::Deploy { commit: request.commit.clone() };
                let (artifact, spec) = self.build_tree(&engine, request).await?;
                (NewRelease { app, number, artifact, artifacts: Default::default(), spec, origin, env }, Vec::new())
            }
            Candidate::Again { base, origin, env, changes } => (
                NewRelease { app, number, artifact: base.artifact, artifacts: base.artifacts, spec: base.spec, origin, env },
                changes,
            ),
        };
        let release = self.core.store.create_release(new).await?;
        self.check_processes(&release)?;
        if let Some((other, host)) = self.core.host_conflict(&release).await? {
            return Err(host_taken(&host, &other));
        }
        let (strategy, why) = release.spec.strategy();
        if old.is_some() {
            self.note(format!("strategy {strategy}: {why}"));
        }
        let wanted = Core::wanted(&release, &self.core.store.app(&release.app).await?.scale);
        Ok(Candidacy { engine, release, strategy, old, wanted, changes })
    }

    async fn build_tree(&self, engine: &Engine, request: Box<DeployRequest>) -> Result<(Artifact, AppSpec), Failure> {
        let DeployRequest { mut spec, source, .. } = *request;
        let plan = self.core.build_plan(&source, &spec, engine.kind).await?;
        self.note(format!("building with {}: {}", plan.recipe, plan.reason));
        spec.deploy.release_command = spec.deploy.release_command.or_else(|| plan.release_command.clone());
        let limits = BuildLimits {
            memory: spec.build.memory.unwrap_or(self.core.settings.build_memory),
            cpus: spec.build.cpus.unwrap_or(self.core.settings.build_cpus),
            deadline: BUILD_DEADLINE,
        };
        let build = BuildRequest {
            app: spec.app.clone(),
            release: self.deployment.to,
            part: None,
            source,
            contexts: Default::default(),
            plan,
            limits,
        };
        let (sink, tail) = self.output();
        match engine.builder.build(&build, &sink, self.cancel).await {
            Ok(artifact) => Ok((artifact, spec)),
            Err(error) => Err(build_failure(error, tail.lines())),
        }
    }

    /// A sink that shows every line and remembers the last ones.
    fn output(&self) -> (OutputSink, Tail) {
        let tail = Tail::default();
        let (keep, progress) = (tail.clone(), self.progress.clone());
        let sink = OutputSink::new(move |line| {
            keep.push(&line.text);
            progress.tell(Event::Output(line));
        });
        (sink, tail)
    }

    fn check_processes(&self, release: &Release) -> Result<(), Failure> {
        let processes = release.processes();
        if processes.is_empty() {
            let hint =
                "name one in coracle.toml ([processes.web] command = \"…\") or in a Procfile (web: …), then `coracle deploy`";
            return Err(Failure::release("the app has no process to run", hint));
        }
        if let Some(name) = processes.keys().find(|name| [RELEASE_COMMAND, ONE_OFF].contains(&name.as_str())) {
            return Err(Failure::release(
                format!("{name:?} cannot be the name of a process: Coracle uses it itself"),
                "rename it, then `coracle deploy`",
            ));
        }
        for (name, spec) in
            processes.iter().filter(|(name, spec)| spec.replicas == 0 && !release.spec.processes.contains_key(*name))
        {
            self.note(format!("{name} runs no instance until you say so: coracle ps scale {name}={}", spec.replicas + 1));
        }
        Ok(())
    }

    /// Runs the release command with the new release's code and configuration. A rollback or a restart does not: going
    /// back must not depend on a migration.
    pub(super) async fn run_release_command(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let Some(command) = release.release_command() else { return Ok(()) };
        if matches!(self.deployment.kind, DeploymentKind::Rollback | DeploymentKind::Restart) {
            return Ok(());
        }
        self.enter(Phase::Release).await?;
        let config = self.core.store.release_env(&release.app, release.number).await?;
        let spec = one_off_spec(release, &config, RELEASE_COMMAND, command.clone(), 1);
        let limit = release.spec.deploy.timeout;
        let (sink, tail) = self.output();
        let hint = "mend the command, then `coracle deploy`; the app is as it was before";
        match engine.runtime.run(&spec, &sink, limit.duration(), self.cancel).await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => Err(Failure::Release {
                cause: format!("the release command `{command}` failed: {exit}"),
                evidence: tail.lines(),
                hint: hint.to_owned(),
            }),
            Err(EngineError::TimedOut { .. }) => Err(Failure::Release {
                cause: format!("the release command `{command}` did not end within {limit}"),
                evidence: tail.lines(),
                hint: "raise deploy.timeout in coracle.toml if it needs longer, then `coracle deploy`".to_owned(),
            }),
            Err(EngineError::CannotStart { cause, .. }) => Err(Failure::Release {
                cause: format!("the release command `{command}` cannot be started: {cause}"),
                evidence: tail.lines(),
                hint: hint.to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

impl Core {
    /// What can be said against a tree before it is built.
    pub(crate) async fn check_request(&self, request: &DeployRequest) -> Result<(), OrchestratorError> {
        let config = match self.store.config(&request.spec.app).await {
            Ok(config) => config,
            Err(StoreError::NoSuchApp(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let missing: Vec<&str> = request
            .spec
            .secrets
            .iter()
            .filter(|name| !config.iter().any(|entry| entry.name == **name))
            .map(EnvName::as_str)
            .collect();
        if !missing.is_empty() {
            let hint = format!("coracle secrets set {}", missing.join(" "));
            return Err(OrchestratorError::refused(format!("required and not set: {}", missing.join(", ")), hint));
        }
        Ok(())
    }

    /// Looks at the tree and decides how it is built.
    pub(crate) async fn build_plan(
        &self,
        source: &std::path::Path,
        spec: &AppSpec,
        engine: EngineKind,
    ) -> Result<BuildPlan, OrchestratorError> {
        let (root, spec) = (source.to_owned(), spec.clone());
        let planned = tokio::task::spawn_blocking(move || coracle_build::plan(&root, &spec, engine)).await;
        match planned {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(PlanError::Unsuitable { message, hint })) => Err(OrchestratorError::refused(message, hint)),
            Ok(Err(error)) => Err(OrchestratorError::refused(error.to_string(), "mend it, then `coracle deploy`")),
            Err(_) => Err(OrchestratorError::refused("looking at the source tree failed unexpectedly", "see the server's log")),
        }
    }
}

fn build_failure(error: BuildError, evidence: Vec<String>) -> Failure {
    let hint = match &error {
        BuildError::Cancelled => return Failure::Cancelled,
        BuildError::Engine(EngineError::Cancelled) => return Failure::Cancelled,
        BuildError::Engine(EngineError::DiskFull { .. }) => {
            "free some space on the server's disk (`coracle doctor`), then `coracle deploy`"
        }
        BuildError::Engine(_) => "see what is wrong with `coracle doctor`, then `coracle deploy`",
        BuildError::OutOfMemory { .. } => {
            "make the build need less, or raise build.memory in coracle.toml; then `coracle deploy`"
        }
        BuildError::TimedOut { .. } => {
            "make the build faster (what rarely changes belongs into earlier steps), then `coracle deploy`"
        }
        BuildError::StepFailed { .. } | BuildError::CannotBuild(_) => "mend it, then `coracle deploy`",
    };
    Failure::Release { cause: error.to_string(), evidence, hint: hint.to_owned() }
}

/// The last lines of an output.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

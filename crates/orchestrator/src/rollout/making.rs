//! The first steps of a rollout: from the request to a release that is written down and has prepared its ground.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use coracle_build::{Lacking, PlanError};
use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, EngineError, Missing, OutputLine, OutputSink, Tail};
use coracle_model::plan::Recipe;
use coracle_model::{
    AppName, AppSpec, Artifact, BuildPlan, DeploymentKind, EngineKind, EnvName, Origin, Phase, PrivateText, ProcessName,
    ProcessSpec, Release, ReleaseNumber, Secret, Span, stack,
};
use coracle_store::{NewRelease, StoreError};

use super::parts::Workshop;
use super::pipeline::{Orders, check_pipeline};
use super::pushing::check_registry;
use super::services::refuse_changes;
use super::steps::route_taken;
use super::{Candidacy, Draft, Failure, Rollout};
use crate::candidate::{Candidate, Reconfigured};
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::instances::{Making, RELEASE_COMMAND, is_transient};
use crate::kept_source::{KeptFrom, KeptSource};
use crate::labelled;
use crate::mounts;
use crate::orchestrator::DeployRequest;
use crate::progress::Event;
use crate::promotion::Promoted;
use crate::services::{Coming, Comparison, Standing};

/// How long a build may take from start to end.
const BUILD_DEADLINE: Span = Span::seconds(30 * 60);

impl Rollout<'_> {
    /// Everything that can be known before anything runs: the engine is there, required names are set, hosts are free.
    pub(super) async fn validate(&self, candidate: Candidate) -> Result<Draft, Failure> {
        let stateful = candidate.stateful().clone();
        let kind = match &candidate {
            Candidate::Tree { request, .. } => request.spec.engine.unwrap_or(self.core.settings.default_engine),
            Candidate::Promotion(promoted) => promoted.promotion.release.artifact.engine,
            Candidate::Again { base, .. } => base.artifact.engine,
        };
        let engine = self.core.engine(kind)?.clone();
        let record = self.core.store.app(candidate.app()).await?;
        let old = match record.active {
            Some(number) => Some(self.core.store.release(&record.name, number).await?),
            None => None,
        };
        let comparison = match &candidate {
            Candidate::Tree { request, reconfigured } => {
                let config = self.config_for(&request.spec.app, reconfigured.as_ref()).await?;
                self.core.check_request(request, &engine, &config).await?;
                if let Some(conflict) = self.core.planned_conflict(request).await? {
                    return Err(route_taken(&conflict));
                }
                let comparison = self.core.compare_request(request, &config).await?;
                refuse_changes(&comparison, &stateful, reconfigured.is_some())?;
                comparison
            }
            Candidate::Promotion(promoted) => {
                let Promoted { promotion, env, .. } = promoted.as_ref();
                self.core.check_promotion(promotion, env)?;
                check_registry(&promotion.spec, kind)?;
                let coming = Coming { spec: &promotion.spec, config: env, artifacts: None, tree: None };
                let comparison = self.core.compare_services(&coming).await?;
                refuse_changes(&comparison, &stateful, false)?;
                comparison
            }
            Candidate::Again { base, env, .. } => {
                for artifact in base.all_artifacts().filter(|artifact| artifact.registry.is_none()) {
                    if !engine.builder.has(&artifact.id).await? {
                        let again = "build that version of the source again with `coracle deploy`";
                        return Err(Failure::release(
                            format!("what {} was built into is gone ({})", base.number, artifact.id),
                            again,
                        ));
                    }
                }
                let coming = Coming { spec: &base.spec, config: env, artifacts: Some(&base.artifacts), tree: None };
                self.core.compare_services(&coming).await?
            }
        };
        Ok(Draft { engine, candidate, old, comparison, stateful })
    }

    /// Builds the artifacts, if there is something to build, and writes the release down. `None`: it would be the one that
    /// is active.
    pub(super) async fn build(&self, draft: Draft) -> Result<Option<Candidacy>, Failure> {
        if draft.candidate.reconfigures_nothing(self.core).await? {
            return Ok(None);
        }
        let Draft { engine, candidate, old, mut comparison, stateful } = draft;
        let (number, app) = (self.deployment.to, self.deployment.app.clone());
        let mounted;
        let manifest;
        let mut orders = None;
        let (new, changes) = match candidate {
            Candidate::Tree { mut request, reconfigured } => {
                self.enter(Phase::Build).await?;
                if let Some(book) = &self.book {
                    book.page().begins(&crate::runs::of_phase(Phase::Build));
                }
                let image = self.unless_cancelled(async { Ok(self.core.pin(&engine, &mut request).await?) }).await?;
                if let (Some(image), Some(asked)) = (&image, &request.image) {
                    self.note(format!("{asked} is {image}"));
                }
                manifest = request.manifest.take();
                request.notes.iter().for_each(|note| self.note(note.as_str()));
                let env = self.config_for(&app, reconfigured.as_ref()).await?;
                let origin = match (&reconfigured, &image) {
                    (Some(reconfigured), _) => reconfigured.origin(),
                    (None, Some(image)) => Origin::Image { image: image.clone() },
                    (None, None) => Origin::Deploy { commit: request.commit.clone() },
                };
                orders = reconfigured.is_none().then(|| Orders::of(&request));
                let (source, sent, force) = (request.source.clone(), request.sent.take(), request.force);
                let same_tree_as = reconfigured.as_ref().map(|reconfigured| reconfigured.of);
                let building = Box::pin(self.build_tree(&engine, request, &comparison, same_tree_as));
                let (built, ()) = tokio::join!(building, self.prepare_steps(&engine, orders.as_ref()));
                let (mut artifact, artifacts, spec) = built?;
                let same_image = image.is_some() && old.as_ref().is_some_and(|old| old.artifact.id == artifact.id);
                artifact.registry = image.or(artifact.registry);
                if let Some(book) = &self.book {
                    book.page().passes(&crate::runs::of_phase(Phase::Build));
                }
                let coming = Coming { spec: &spec, config: &env, artifacts: Some(&artifacts), tree: Some(&source) };
                comparison = self.core.compare_services(&coming).await?;
                refuse_changes(&comparison, &stateful, reconfigured.is_some())?;
                if !force && reconfigured.is_none() && self.is_unchanged(old.as_ref(), &coming, &comparison, same_image).await? {
                    self.keep_newer_source(old.as_ref(), sent).await;
                    self.unprepare_steps(&engine).await?;
                    return Ok(None);
                }
                mounted = Mounted { files: MountedFrom::Tree(source), sent };
                let changes = reconfigured.map(|reconfigured| reconfigured.changes).unwrap_or_default();
                (NewRelease { app, number, artifact, artifacts, spec, origin, env }, changes)
            }
            Candidate::Promotion(promoted) => {
                self.enter(Phase::Build).await?;
                orders = Some(Orders::of_promotion(&promoted));
                manifest = promoted.promotion.manifest.clone();
                mounted = Mounted { files: MountedFrom::Nothing, sent: None };
                (self.take_over(&engine, *promoted, &comparison).await?, Vec::new())
            }
            Candidate::Again { mut base, origin, env, changes, .. } => {
                manifest = self.core.store.manifest(&app, base.number).await?;
                self.fetch_what_is_gone(&engine, &mut base).await?;
                if base.spec.is_stack() && matches!(origin, Origin::Config { .. }) {
                    self.note(format!(
                        "the compose files of {} are not kept, since they came with too much beside them (or with an older server), so \
                         they are not read again: variables that they name change with the next `coracle deploy`",
                        base.number
                    ));
                }
                if matches!(origin, Origin::Restart { .. }) && !base.spec.services.is_empty() {
                    let names: Vec<&str> = base.spec.services.keys().map(ProcessName::as_str).collect();
                    self.note(format!("what keeps data is not restarted and goes on as it is: {}", names.join(", ")));
                }
                mounted = Mounted { files: MountedFrom::Release(base.number), sent: None };
                let (artifact, artifacts, spec) = (base.artifact, base.artifacts, base.spec);
                (NewRelease { app, number, artifact, artifacts, spec, origin, env }, changes)
            }
        };
        let release = self.core.store.create_release(new).await?;
        if let Some(manifest) = manifest {
            self.core.store.keep_manifest(&release.app, release.number, &manifest).await?;
        }
        self.keep_mounted_files(&release, mounted).await?;
        self.check_processes(&release)?;
        let told = labelled::told(&release, self.core.settings.tls);
        told.rules.iter().for_each(|rule| self.note(format!("routed by its labels: {rule}")));
        told.problems.into_iter().for_each(|problem| self.note(problem));
        if let Some(conflict) = self.core.route_conflict(&release).await? {
            return Err(route_taken(&conflict));
        }
        let (strategy, why) = release.spec.strategy();
        if old.is_some() {
            self.note(format!("strategy {strategy}: {why}"));
        }
        let wanted = Core::wanted(&release, &self.core.store.app(&release.app).await?.scale);
        let needed = release.resolved().needed_to_serve();
        Ok(Some(Candidacy { engine, release, strategy, old, wanted, needed, changes, comparison, stateful, orders }))
    }

    /// Whether a deployment would change nothing at all. Apps that are built as a whole always get a release: their builds
    /// may fetch something new. One that is an image of a registry is that image.
    async fn is_unchanged(
        &self,
        old: Option<&Release>,
        coming: &Coming<'_>,
        comparison: &Comparison,
        same_image: bool,
    ) -> Result<bool, Failure> {
        let comparable = coming.spec.is_stack() || same_image;
        let Some(old) = old.filter(|old| comparable && old.spec == *coming.spec) else { return Ok(false) };
        let services_stay =
            comparison.gone.is_empty() && comparison.standings.values().all(|standing| matches!(standing, Standing::Same(_)));
        let ids = |artifacts: &BTreeMap<ProcessName, Artifact>| -> Vec<_> {
            artifacts.iter().map(|(name, artifact)| (name.clone(), artifact.id.clone())).collect()
        };
        let same_artifacts = coming.artifacts.is_some_and(|artifacts| ids(artifacts) == ids(&old.artifacts));
        if !services_stay || !same_artifacts {
            return Ok(false);
        }
        let binds = old.spec.parts().flat_map(|(_, part)| &part.container.binds);
        let same_files = match coming.tree {
            Some(tree) => self.core.mounts.are_same(&old.app, old.number, binds, tree).await,
            None => true,
        };
        let sorted = |config: &[(EnvName, Secret)]| config.iter().cloned().collect::<BTreeMap<_, _>>();
        let before = self.core.store.release_env(&old.app, old.number).await?;
        Ok(same_files && sorted(&before) == sorted(coming.config))
    }

    /// What comes to the same now may not do so with other configuration: the active release is read from the newer tree then.
    async fn keep_newer_source(&self, active: Option<&Release>, sent: Option<KeptSource>) {
        let (Some(active), Some(sent)) = (active, sent) else { return };
        let (mounts, app, number) = (self.core.mounts.clone(), active.app.clone(), active.number);
        let keeping = tokio::task::spawn_blocking(move || mounts.keep_source(&app, number, &KeptFrom::Sent(sent))).await;
        if let Err(error) = keeping.map_err(std::io::Error::other).flatten() {
            tracing::warn!(app = %active.app, release = %number, %error, "the newer tree cannot be kept");
        }
    }

    /// The configuration that the release to be runs with.
    async fn config_for(&self, app: &AppName, reconfigured: Option<&Reconfigured>) -> Result<Vec<(EnvName, Secret)>, Failure> {
        match reconfigured {
            Some(reconfigured) => Ok(reconfigured.env.clone()),
            None => Ok(self.core.config_of(app).await?),
        }
    }

    async fn keep_mounted_files(&self, release: &Release, from: Mounted) -> Result<(), Failure> {
        let (mounts, spec, number) = (self.core.mounts.clone(), release.spec.clone(), release.number);
        let kept = tokio::task::spawn_blocking(move || {
            let files = match &from.files {
                MountedFrom::Nothing => return Ok(()),
                MountedFrom::Tree(tree) => mounts::Source::Tree(tree),
                MountedFrom::Release(earlier) => mounts::Source::Release(*earlier),
            };
            mounts.keep(&spec, number, &files)?;
            // Without it a change of configuration takes effect with the next deployment only.
            if let Err(error) = mounts.keep_source(&spec.app, number, &KeptFrom::of(&files, from.sent)) {
                tracing::warn!(app = %spec.app, release = %number, %error, "what it is made of cannot be kept");
            }
            Ok::<_, std::io::Error>(())
        });
        match kept.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::release(
                format!("a file that a container mounts cannot be kept: {error}"),
                "see that it is in the source tree and that no ignore file leaves it out, then `coracle deploy`",
            )),
            Err(error) => Err(Failure::release(format!("keeping mounted files broke off: {error}"), "see the server's log")),
        }
    }

    async fn build_tree(
        &self,
        engine: &Engine,
        request: Box<DeployRequest>,
        comparison: &Comparison,
        same_tree_as: Option<ReleaseNumber>,
    ) -> Result<(Artifact, BTreeMap<ProcessName, Artifact>, AppSpec), Failure> {
        let DeployRequest { mut spec, source, stateful, .. } = *request;
        let mut earlier = self.core.store.releases(&spec.app).await?;
        // The active one first, then the newest.
        earlier.sort_by_key(|release| (Some(release.number) != self.deployment.from, std::cmp::Reverse(release.number)));
        let (earlier, stateful) = (earlier.as_slice(), &stateful);
        let logins = self.core.logins(&spec.app).await?;
        let workshop = Workshop {
            engine,
            spec: &spec,
            source: &source,
            earlier,
            comparison,
            stateful,
            same_tree_as,
            logins: logins.clone(),
        };
        let artifacts = self.make_parts(&workshop).await?;
        if spec.is_stack() {
            let mut serving = spec.processes.iter().filter(|(name, process)| process.serves(name)).map(|(name, _)| name);
            let main = serving.next().or_else(|| spec.parts().map(|(name, _)| name).next());
            let main = main.and_then(|name| artifacts.get(name)).cloned();
            return match main {
                Some(main) => Ok((main, artifacts, spec)),
                None => Err(Failure::release("the app has no process to run", "name one, then `coracle deploy`")),
            };
        }
        let mut plan = self.core.build_plan(&source, &spec, engine.kind).await?;
        if !spec.build.secrets.is_empty() {
            give_secrets(&mut plan, &spec.build.secrets, &self.core.config_of(&spec.app).await?)?;
        }
        self.note(format!("building with {}: {}", plan.recipe, plan.reason));
        spec.deploy.release_command = spec.deploy.release_command.or_else(|| plan.release_command.clone());
        let limits = build_limits(self.core, &spec);
        let build = BuildRequest {
            app: spec.app.clone(),
            release: self.deployment.to,
            part: None,
            source,
            contexts: Default::default(),
            plan,
            limits,
            logins,
        };
        let (sink, tail) = self.output();
        match engine.builder.build(&build, &sink, self.cancel).await {
            Ok(artifact) => Ok((artifact, artifacts, spec)),
            Err(error) => Err(with_what_is_missing(build_failure(error, tail.lines()), &build.plan.recipe, engine.kind)),
        }
    }

    /// A sink that shows every line, without secrets, and remembers the last ones.
    pub(super) fn output(&self) -> (OutputSink, Tail) {
        let tail = Tail::default();
        let (keep, progress) = (tail.clone(), self.progress.clone());
        let page = self.book.as_ref().map(crate::runs::RunBook::page);
        let (step, hiding) = (crate::runs::of_phase(self.phase()), self.hiding.clone());
        let sink = OutputSink::new(move |OutputLine { stream, text }| {
            let line = OutputLine { stream, text: hiding.clean(text) };
            keep.push(&line.text);
            if let Some(page) = &page {
                page.line(&step, &line);
            }
            progress.tell(Event::Output(line));
        });
        (sink, tail)
    }

    fn check_processes(&self, release: &Release) -> Result<(), Failure> {
        let processes = release.processes();
        if processes.is_empty() && !release.spec.services_only {
            let hint =
                "name one in coracle.toml ([processes.web] command = \"…\") or in a Procfile (web: …), then `coracle deploy`";
            return Err(Failure::release("the app has no process to run", hint));
        }
        if let Some(name) = processes.keys().find(|name| is_transient(name)) {
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
        let making = Making { release, config: &config, mounts: &self.core.mounts };
        let spec = making.one_off(RELEASE_COMMAND, command.clone(), 1);
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
    pub(crate) async fn check_request(
        &self,
        request: &DeployRequest,
        engine: &Engine,
        config: &[(EnvName, Secret)],
    ) -> Result<(), OrchestratorError> {
        let spec = &request.spec;
        spec.check_stack()
            .map_err(|error| OrchestratorError::refused(error.to_string(), "mend the file, then `coracle deploy`"))?;
        for (name, part) in spec.parts() {
            let cannot = engine.runtime.cannot_honour(part);
            if !cannot.is_empty() {
                let message = format!("{name}: the {} engine cannot honour {}", engine.kind, cannot.join(", "));
                let other = if engine.kind == EngineKind::Docker { EngineKind::Process } else { EngineKind::Docker };
                let hint = format!("use engine = \"{other}\", or take this out");
                return Err(OrchestratorError::refused(message, hint));
            }
        }
        self.check_surroundings(spec, engine).await?;
        let told = labelled::told(&self.release_to_be(spec), self.settings.tls);
        if told.lead_nowhere {
            let message = format!("nobody would reach this app by its labels: {}", told.problems.join("; "));
            let hint =
                format!("correct them; variables that they name are set with `coracle config set -a {} NAME=VALUE`", spec.app);
            return Err(OrchestratorError::refused(message, hint));
        }
        if let Some((port, other)) = self.port_conflict(spec).await? {
            let message = format!("the port {port} of this machine belongs to the app {other}");
            return Err(OrchestratorError::refused(message, "publish another one, or none: requests come by the proxy"));
        }
        check_pipeline(&request.pipeline, engine.kind)?;
        check_registry(spec, engine.kind)?;
        let of_steps: BTreeSet<&EnvName> = request.pipeline.all().flat_map(|step| &step.secrets).collect();
        let missing: Vec<&str> = request
            .spec
            .secrets
            .iter()
            .chain(of_steps.into_iter().filter(|name| !request.spec.secrets.contains(name)))
            .filter(|name| !config.iter().any(|(known, _)| known == *name))
            .map(EnvName::as_str)
            .collect();
        if !missing.is_empty() {
            let hint = format!("coracle secrets set {} -a {}", missing.join(" "), spec.app);
            return Err(OrchestratorError::refused(format!("required and not set: {}", missing.join(", ")), hint));
        }
        Ok(())
    }

    /// What parts name of somebody else's is there; it is looked for before anything is built, since builds take their time.
    async fn check_surroundings(&self, spec: &AppSpec, engine: &Engine) -> Result<(), OrchestratorError> {
        let of_others = |part: &ProcessSpec| {
            !part.container.networks.is_empty() || part.volumes.iter().any(|volume| volume.external.is_some())
        };
        let mut missing: Vec<Missing> = Vec::new();
        for (_, part) in spec.parts().filter(|(_, part)| of_others(part)) {
            let found = engine.runtime.missing(part).await?;
            missing.extend(found.into_iter().filter(|one| !missing.contains(one)).collect::<Vec<_>>());
        }
        if missing.is_empty() {
            return Ok(());
        }
        let what: Vec<&str> = missing.iter().map(|one| one.what.as_str()).collect();
        let next: Vec<&str> = missing.iter().map(|one| one.next.as_str()).collect();
        let message = format!("there is no {}: what the file calls external is not Coracle's to make", what.join(", no "));
        Err(OrchestratorError::refused(message, format!("on the server: {}", next.join(" && "))))
    }

    /// How the stateful services of a tree stand to those that run, before anything is built.
    pub(crate) async fn compare_request(
        &self,
        request: &DeployRequest,
        config: &[(EnvName, Secret)],
    ) -> Result<Comparison, OrchestratorError> {
        let coming = Coming { spec: &request.spec, config, artifacts: None, tree: Some(&request.source) };
        self.compare_services(&coming).await
    }

    /// The app's configuration; nothing, if there is no such app.
    pub(crate) async fn config_of(&self, app: &AppName) -> Result<Vec<(EnvName, Secret)>, OrchestratorError> {
        match self.store.config(app).await {
            Ok(config) => Ok(config.into_iter().map(|entry| (entry.name, entry.value)).collect()),
            Err(StoreError::NoSuchApp(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The app that has a port of the machine which this one wants, with that port.
    async fn port_conflict(&self, spec: &AppSpec) -> Result<Option<(String, AppName)>, OrchestratorError> {
        if spec.parts().all(|(_, part)| part.container.ports.is_empty()) {
            return Ok(None);
        }
        let active = self.store.active_releases().await?;
        let shared = |other: Release| Some((stack::shared_port(spec, &other.spec)?, other.app));
        Ok(active.into_iter().filter(|other| other.app != spec.app).find_map(shared))
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

/// What is kept for a release beside its artifacts.
struct Mounted {
    files: MountedFrom,
    /// The tree as it was sent.
    sent: Option<KeptSource>,
}

/// Where the files come from that a release mounts.
enum MountedFrom {
    Tree(PathBuf),
    Release(ReleaseNumber),
    /// Nothing is mounted.
    Nothing,
}

/// Puts the values of the configuration into a plan that its build may see. That they are set has been checked.
fn give_secrets(plan: &mut BuildPlan, names: &[EnvName], config: &[(EnvName, Secret)]) -> Result<(), Failure> {
    let Recipe::Dockerfile { extras, .. } = &mut plan.recipe else {
        let cause = format!("build.secrets are mounted by steps of a Dockerfile, and this is built with {}", plan.recipe);
        return Err(Failure::release(cause, "take build.secrets out of coracle.toml, or add a Dockerfile"));
    };
    let given = config.iter().filter(|(name, _)| names.contains(name));
    extras.secrets.extend(given.map(|(name, value)| (name.to_string(), PrivateText::new(value.expose()))));
    Ok(())
}

/// What a build of this app may cost.
pub(crate) fn build_limits(core: &Core, spec: &AppSpec) -> BuildLimits {
    BuildLimits {
        memory: spec.build.memory.unwrap_or(core.settings.build_memory),
        cpus: spec.build.cpus.unwrap_or(core.settings.build_cpus),
        deadline: BUILD_DEADLINE,
    }
}

/// Says what to add where a step of a recipe of ours failed for want of a program that images and machines need not have.
fn with_what_is_missing(failure: Failure, recipe: &Recipe, engine: EngineKind) -> Failure {
    let Failure::Release { cause, evidence, hint } = failure else { return failure };
    let is_ours = !matches!(recipe, Recipe::Dockerfile { .. } | Recipe::Image { .. });
    let Some(lacking) = coracle_build::lacking(&evidence).filter(|_| is_ours) else {
        return Failure::Release { cause, evidence, hint };
    };
    let Lacking { package, what, system } = lacking;
    let needs =
        package.map_or_else(|| format!("{what} is missing"), |package| format!("{package} needs {what}, which is missing"));
    let hint = match engine {
        EngineKind::Docker => format!(
            "make the Dockerfile your own (`coracle init --dockerfile --write`) and put `RUN apt-get update && apt-get install -y \
             --no-install-recommends {system}` behind its first WORKDIR"
        ),
        EngineKind::Process => format!("install it on the server's machine (`apt-get install {system}`), then `coracle deploy`"),
    };
    Failure::Release { cause: format!("{cause}: {needs}"), evidence, hint }
}

pub(super) fn build_failure(error: BuildError, evidence: Vec<String>) -> Failure {
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
        BuildError::Registry { trouble, .. } => trouble.hint(),
        BuildError::StepFailed { .. } | BuildError::CannotBuild(_) => "mend it, then `coracle deploy`",
    };
    Failure::Release { cause: error.to_string(), evidence, hint: hint.to_owned() }
}

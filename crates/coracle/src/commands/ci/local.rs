//! A pipeline on this machine: an engine of the folder's own, the tree as a deployment would send it, and what is known of earlier
//! runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use coracle_build::PlanError;
use coracle_dev::{DevError, Folder, Holding, copy_tree, limits, take_down};
use coracle_engine::{BuildError, BuildRequest, Engine, EngineError, OutputLine, OutputSink, Tail};
use coracle_model::plan::Recipe;
use coracle_model::{
    AppSpec, Artifact, ArtifactId, EngineKind, EnvName, Logins, PrivateText, ReleaseNumber, Secret, StepRun, StepState,
};
use coracle_pipeline::{Key, Plan, Trigger};
use coracle_pipeline_runner::{Bench, Ground, Hiding, Memory, News, OfApp, Passed, Shelf, Spares, StepFailure, Tell, Told, tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::commands::dev::engine;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::moment;

/// The command that tries again.
const AGAIN: &str = "coracle ci run";
/// What the build is called among the steps.
const BUILD: &str = "(build)";
/// How many successes are remembered; those used last.
const MOST_KNOWN: usize = 256;

/// What is to be run.
pub(super) struct Order {
    pub(super) spec: AppSpec,
    pub(super) plan: Plan,
    pub(super) parallel: usize,
    /// Whether a step runs in the app.
    pub(super) builds: bool,
    /// The values of the secrets that are named.
    pub(super) config: Vec<(EnvName, Secret)>,
    pub(super) fresh: bool,
    pub(super) keep_going: bool,
    pub(super) commit: Option<String>,
}

/// A folder, taken for a run.
pub(super) struct Local {
    folder: Folder,
    engine: Engine,
    _held: Holding,
}

impl Local {
    pub(super) async fn open(root: &Path, kind: EngineKind, context: &Context) -> Result<Self, Failure> {
        let folder = folder(root, context)?;
        let held = folder.hold().map_err(|error| match error {
            DevError::Held { folder, .. } => Failure::failed(format!("{AGAIN} runs in {} already", folder.display()))
                .hint("wait for its end, or call it off with Ctrl-C there"),
            other => told(other),
        })?;
        let engine = engine(kind, &folder).await?;
        Ok(Self { folder, engine, _held: held })
    }

    /// Whether something was run here on this engine.
    pub(super) fn has_used(root: &Path, kind: EngineKind, context: &Context) -> Result<bool, Failure> {
        Ok(folder(root, context)?.state().join(kind.as_str()).exists())
    }

    /// Removes what the engine keeps of the folder.
    pub(super) async fn forget(self) -> Result<(), Failure> {
        take_down(&self.folder, &self.engine, true).await.map(drop).map_err(told)
    }

    /// Removes what is known of the folder.
    pub(super) fn remove_state(root: &Path, context: &Context) -> Result<(), Failure> {
        let state = folder(root, context)?.state().to_owned();
        match std::fs::remove_dir_all(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::failed(format!("cannot remove {}: {error}", state.display())))
            }
            _ => Ok(()),
        }
    }

    /// Runs it, and leaves nothing that runs, however it ends. What was built, and what steps keep in caches, stays for the next time.
    pub(super) async fn work(self, order: Order, tell: Tell, stop: &CancellationToken) -> Result<(), StepFailure> {
        let app = order.spec.app.clone();
        self.folder.remember(&app).map_err(|error| failure(&error.to_string()))?;
        // What a run left that was killed.
        self.clean().await?;
        let memory = Arc::new(OfFile::read(self.folder.state().join("passed.json")));
        let ended = self.run(order, tell, stop, memory.clone()).await;
        let cleaned = self.clean().await;
        let (keep, fine) = match &ended {
            Ok(artifact) => (artifact.iter().cloned().chain(memory.images()).collect::<Vec<_>>(), true),
            Err(_) => (Vec::new(), false),
        };
        // After a failure, what was built before may be what the next run needs.
        if fine && let Err(error) = self.engine.builder.prune(&app, &keep).await {
            tracing::warn!(%error, "what was built before stays");
        }
        ended.map(drop).and(cleaned)
    }

    async fn clean(&self) -> Result<(), StepFailure> {
        take_down(&self.folder, &self.engine, false).await.map_err(|error| failure(&error.to_string()))?;
        let (workspaces, scratch) = (self.workspaces(), self.scratch());
        let removed = tokio::task::spawn_blocking(move || {
            [workspaces, scratch].into_iter().try_for_each(|place| match std::fs::remove_dir_all(place) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
        });
        removed.await.map_err(std::io::Error::other).flatten().map_err(|error| failure(&error.to_string()))
    }

    fn workspaces(&self) -> PathBuf {
        self.folder.state().join("steps")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.state().join("tree")
    }

    async fn run(
        &self,
        order: Order,
        tell: Tell,
        stop: &CancellationToken,
        memory: Arc<OfFile>,
    ) -> Result<Option<ArtifactId>, StepFailure> {
        let (from, scratch) = (self.folder.path().to_owned(), self.scratch());
        let copied = tokio::task::spawn_blocking(move || copy_tree(&from, &scratch)).await;
        let copy = copied.map_err(|error| failure(&error.to_string()))?.map_err(|error| failure(&error.to_string()))?;
        let spares = Spares::begin(&order.plan, copy.path().to_owned(), self.workspaces());
        let ended = self.run_in(copy.path(), order, tell, stop, memory, spares.clone()).await;
        if let Some(spares) = spares {
            spares.end().await;
        }
        ended
    }

    async fn run_in(
        &self,
        source: &Path,
        order: Order,
        tell: Tell,
        stop: &CancellationToken,
        memory: Arc<OfFile>,
        spares: Option<Spares>,
    ) -> Result<Option<ArtifactId>, StepFailure> {
        let root = source.to_owned();
        let files = tokio::task::spawn_blocking(move || tree::files(&root)).await.map_err(std::io::Error::other).flatten();
        let files = files.map_err(|error| failure(&format!("the tree cannot be read: {error}")))?;
        if stop.is_cancelled() {
            return Err(StepFailure::Cancelled);
        }
        let built = match order.builds {
            true => Some(self.build(&order, source, &tell, stop).await?),
            false => None,
        };
        let artifact = built.as_ref().map(|artifact| artifact.id.clone());
        let recipe = format!("{} {}", self.engine.kind, serde_json::json!(order.spec.build));
        let ground = Ground {
            engine: self.engine.clone(),
            app: order.spec.app.clone(),
            release: first(),
            source: source.to_owned(),
            spares,
            workspaces: self.workspaces(),
            of_app: artifact.clone().map(|artifact| OfApp { artifact, recipe }),
            env: order.spec.env.clone(),
            config: order.config,
            told: Told::of(&Trigger::Tree, order.commit.as_deref(), first()),
            limits: limits(&order.spec),
            logins: Logins::default(),
            memory,
            shelf: Shelf::new(self.folder.state().join("handed")),
            fresh: order.fresh,
            tell,
            again: AGAIN,
        };
        let bench = Bench::new(&ground, stop.child_token());
        bench.work_through(&order.plan, &files, order.parallel, order.keep_going).await?;
        Ok(artifact)
    }

    async fn build(&self, order: &Order, source: &Path, tell: &Tell, stop: &CancellationToken) -> Result<Artifact, StepFailure> {
        let started_at = Some(Timestamp::now());
        let begun = StepRun { started_at, attempts: 1, ..StepRun::new(BUILD, StepState::Running) };
        tell(News::Step(begun.clone()));
        let built = self.build_tree(order, source, tell, stop).await;
        let (state, why) = match &built {
            Ok(_) => (StepState::Passed, None),
            Err(StepFailure::Cancelled) => (StepState::Cancelled, None),
            Err(error) => (StepState::Failed, Some(error.to_string())),
        };
        tell(News::Step(StepRun { state, why, finished_at: Some(Timestamp::now()), ..begun }));
        built
    }

    async fn build_tree(
        &self,
        order: &Order,
        source: &Path,
        tell: &Tell,
        stop: &CancellationToken,
    ) -> Result<Artifact, StepFailure> {
        let (root, spec, kind) = (source.to_owned(), order.spec.clone(), self.engine.kind);
        let planned = tokio::task::spawn_blocking(move || coracle_build::plan(&root, &spec, kind)).await;
        let mut plan = match planned {
            Ok(Ok(plan)) => plan,
            Ok(Err(PlanError::Unsuitable { message, hint })) => return Err(failed(message, Vec::new(), hint)),
            Ok(Err(error)) => return Err(failure(&error.to_string())),
            Err(error) => return Err(failure(&error.to_string())),
        };
        let named: Vec<(EnvName, Secret)> =
            order.config.iter().filter(|(name, _)| order.spec.build.secrets.contains(name)).cloned().collect();
        if let Recipe::Dockerfile { extras, .. } = &mut plan.recipe {
            extras.secrets.extend(named.iter().map(|(name, value)| (name.to_string(), PrivateText::new(value.expose()))));
        }
        tell(News::Note(format!("building with {}: {}", plan.recipe, plan.reason)));
        let request = BuildRequest {
            app: order.spec.app.clone(),
            release: first(),
            part: None,
            source: source.to_owned(),
            contexts: BTreeMap::new(),
            plan,
            limits: limits(&order.spec),
            logins: Logins::default(),
        };
        let (tail, hiding, telling) = (Tail::default(), Hiding::new(&named), tell.clone());
        let keep = tail.clone();
        let sink = OutputSink::new(move |OutputLine { stream, text }| {
            let text = hiding.clean(text);
            keep.push(&text);
            telling(News::Output { step: BUILD.to_owned(), line: OutputLine { stream, text } });
        });
        self.engine.builder.build(&request, &sink, stop).await.map_err(|error| match error {
            BuildError::Cancelled | BuildError::Engine(EngineError::Cancelled) => StepFailure::Cancelled,
            BuildError::Engine(error @ EngineError::Unavailable { .. }) => StepFailure::Engine(error),
            error => failed(error.to_string(), tail.lines(), format!("mend it, then `{AGAIN}`")),
        })
    }
}

fn folder(root: &Path, context: &Context) -> Result<Folder, Failure> {
    Folder::new(root, &context.state().join("ci")).map_err(told)
}

fn told(error: DevError) -> Failure {
    let hint = error.hint().unwrap_or_default();
    Failure::failed(error.to_string()).evidence(error.evidence()).hint(hint)
}

fn first() -> ReleaseNumber {
    ReleaseNumber::new(1).unwrap_or_else(|| unreachable!("one is not zero"))
}

fn failed(cause: String, evidence: Vec<String>, hint: String) -> StepFailure {
    StepFailure::Failed { cause, evidence, hint, code: None }
}

fn failure(cause: &str) -> StepFailure {
    failed(cause.to_owned(), Vec::new(), format!("mend it, then `{AGAIN}`"))
}

/// The steps that have passed here, in a file.
struct OfFile {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    step: String,
    passed_at: Timestamp,
    used_at: Timestamp,
    images: Vec<ArtifactId>,
}

impl OfFile {
    /// What cannot be read is not known.
    fn read(path: PathBuf) -> Self {
        let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, known: Mutex::new(known) }
    }

    fn images(&self) -> Vec<ArtifactId> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().flat_map(|entry| entry.images.clone()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Entry>)) {
        let text = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut known);
            while known.len() > MOST_KNOWN
                && let Some(oldest) = known.iter().min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone())
            {
                known.remove(&oldest);
            }
            serde_json::to_vec(&*known)
        };
        let write = || {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&text?)?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map(drop).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.path.display(), %error, "that a step passed cannot be written down");
        }
    }
}

#[async_trait]
impl Memory for OfFile {
    async fn passed(&self, key: &Key) -> Option<String> {
        let now = Timestamp::now();
        let mut passed_at = None;
        self.change(|known| {
            passed_at = known.get_mut(key.as_str()).map(|entry| {
                entry.used_at = now;
                entry.passed_at
            });
        });
        passed_at.map(|then| moment::ago(then, now))
    }

    async fn record(&self, passed: Passed) {
        let now = Timestamp::now();
        let Passed { key, step, images } = passed;
        self.change(|known| {
            known.insert(key.as_str().to_owned(), Entry { step, passed_at: now, used_at: now, images });
        });
    }
}

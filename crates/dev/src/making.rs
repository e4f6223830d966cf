//! What parts run: images that are fetched, folders and source trees that are built.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Seek;
use std::path::{Path, PathBuf};

use coracle_build::PlanError;
use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, EngineError, NamedContext, Tail};
use coracle_model::plan::{Recipe, Serving};
use coracle_model::{AppSpec, Artifact, BuildPlan, ByteSize, Cpus, EngineKind, Logins, ProcessName, ReleaseNumber, Span};
use tokio_util::sync::CancellationToken;

use crate::error::DevError;
use crate::news::{Tell, Voice};
use crate::stack::{FolderBuild, NamedSource, Source, Stack};

/// How long a build may take from start to end.
const DEADLINE: Span = Span::seconds(30 * 60);

/// The release that everything belongs to whose copies do not run beside each other.
pub(crate) fn first() -> ReleaseNumber {
    ReleaseNumber::new(1).unwrap_or_else(|| unreachable!("one is not zero"))
}

/// Makes artifacts on an engine.
pub(crate) struct Workshop<'a> {
    pub engine: &'a Engine,
    pub stack: &'a Stack,
    pub tell: &'a Tell,
    pub release: ReleaseNumber,
    /// Where copies of the source tree are made; on the same disk as the engine's own directories, if it can be.
    pub scratch: &'a Path,
    pub cancel: &'a CancellationToken,
}

impl Workshop<'_> {
    /// Makes these parts. What they are made from among other parts is in `made`, or made as well.
    pub(crate) async fn make(
        &self,
        parts: &BTreeSet<ProcessName>,
        made: &BTreeMap<ProcessName, Artifact>,
    ) -> Result<BTreeMap<ProcessName, Artifact>, DevError> {
        let mut fresh: BTreeMap<ProcessName, Artifact> = BTreeMap::new();
        let mut left: Vec<&ProcessName> = parts.iter().collect();
        while !left.is_empty() {
            let waiting: BTreeSet<&ProcessName> = left.iter().copied().collect();
            let is_free = |name: &&ProcessName| needs(self.stack.source(name)).all(|on| !waiting.contains(on));
            let at = left.iter().position(is_free).unwrap_or(0);
            let name = left.swap_remove(at);
            let same = fresh.keys().find(|other| self.stack.source(other) == self.stack.source(name)).cloned();
            let artifact = match same.and_then(|other| fresh.get(&other)) {
                Some(artifact) => artifact.clone(),
                None => self.make_one(name, &fresh, made).await?,
            };
            fresh.insert(name.clone(), artifact);
        }
        Ok(fresh)
    }

    async fn make_one(
        &self,
        name: &ProcessName,
        fresh: &BTreeMap<ProcessName, Artifact>,
        made: &BTreeMap<ProcessName, Artifact>,
    ) -> Result<Artifact, DevError> {
        let (title, tail) = (self.stack.title(name), Tail::default());
        let failed = |error: BuildError| match error {
            BuildError::Cancelled | BuildError::Engine(EngineError::Cancelled) => DevError::Stopped,
            error => DevError::Build { part: title.clone(), error, tail: tail.lines() },
        };
        // A copy of the tree lives as long as its build.
        let (request, _copy) = match self.stack.source(name) {
            Source::Tree => {
                let (request, copy) = self.tree_request().await?;
                (request, Some(copy))
            }
            Source::Image { reference, pull } => {
                let recipe = Recipe::Image { reference: reference.clone(), pull: *pull };
                (self.request(name, self.scratch.to_owned(), recipe, format!("image {reference}")), None)
            }
            Source::Folder(folder) => (self.folder_request(name, folder, fresh, made), None),
        };
        let place = self.stack.spec.processes.keys().position(|other| other == name).unwrap_or(0);
        let sink = self.tell.build(Voice { name: title.clone(), place }, tail.clone());
        self.tell.note(format!("making {title}: {}", request.plan.recipe));
        self.engine.builder.build(&request, &sink, self.cancel).await.map_err(failed)
    }

    fn request(&self, name: &ProcessName, source: PathBuf, recipe: Recipe, reason: String) -> BuildRequest {
        BuildRequest {
            app: self.stack.spec.app.clone(),
            release: self.release,
            part: Some(name.clone()),
            source,
            contexts: BTreeMap::new(),
            plan: BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason, serving: Serving::default() },
            limits: limits(&self.stack.spec),
            logins: Logins::default(),
        }
    }

    fn folder_request(
        &self,
        name: &ProcessName,
        folder: &FolderBuild,
        fresh: &BTreeMap<ProcessName, Artifact>,
        made: &BTreeMap<ProcessName, Artifact>,
    ) -> BuildRequest {
        let FolderBuild { context, dockerfile, target, args, extras, contexts } = folder.clone();
        let recipe = Recipe::Dockerfile { path: dockerfile, target, args, extras: Box::new(extras) };
        let reason = format!("build of {}", context.display());
        let mut request = self.request(name, context, recipe, reason);
        request.contexts = contexts
            .into_iter()
            .filter_map(|(name, source)| {
                let source = match source {
                    NamedSource::Folder(path) => NamedContext::Folder(path),
                    NamedSource::Image(reference) => NamedContext::Image(reference),
                    NamedSource::Part(other) => {
                        NamedContext::Image(fresh.get(&other).or_else(|| made.get(&other))?.id.to_string())
                    }
                };
                Some((name, source))
            })
            .collect();
        request
    }

    /// A build of the source tree, from a copy without what its ignore file leaves out, as a deployment would send it.
    async fn tree_request(&self) -> Result<(BuildRequest, tempfile::TempDir), DevError> {
        let tree = self.stack.tree.clone().unwrap_or_default();
        let (spec, scratch) = (self.stack.spec.clone(), self.scratch.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            let copy = copy_tree(&tree, &scratch)?;
            let plan = plan(copy.path(), &spec)?;
            Ok::<_, DevError>((copy, plan))
        });
        let (copy, plan) = copied.await.map_err(|error| no_plan(format!("copying the source tree broke off: {error}")))??;
        let spec = &self.stack.spec;
        let request = BuildRequest {
            app: spec.app.clone(),
            release: self.release,
            part: None,
            source: copy.path().to_owned(),
            contexts: BTreeMap::new(),
            plan,
            limits: limits(spec),
            logins: Logins::default(),
        };
        Ok((request, copy))
    }
}

/// How a source tree is built where there are no containers.
pub(crate) fn plan(tree: &Path, spec: &AppSpec) -> Result<BuildPlan, DevError> {
    match coracle_build::plan(tree, spec, EngineKind::Process) {
        Ok(plan) => Ok(plan),
        Err(PlanError::Unsuitable { message, hint }) => Err(DevError::NoPlan { message, hint }),
        Err(error) => Err(no_plan(error.to_string())),
    }
}

fn no_plan(message: String) -> DevError {
    DevError::NoPlan { message, hint: "mend it, then `coracle dev`".to_owned() }
}

/// A copy of a tree in `scratch`, without what its ignore file leaves out: what a deployment would send. It goes when it is dropped.
/// Blocking.
///
/// # Errors
/// The ignore file is wrong, or something cannot be read or written.
pub fn copy_tree(tree: &Path, scratch: &Path) -> Result<tempfile::TempDir, DevError> {
    let failed = |source| DevError::State { path: tree.to_owned(), source };
    let ignore = coracle_build::source_ignore(tree).map_err(|error| no_plan(error.to_string()))?;
    std::fs::create_dir_all(scratch).map_err(failed)?;
    let copy = tempfile::tempdir_in(scratch).map_err(failed)?;
    let packed = tempfile::tempfile_in(scratch).map_err(failed)?;
    let mut packed = coracle_build::tar_context(tree, &ignore, &[], packed).map_err(failed)?;
    packed.rewind().map_err(failed)?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(packed));
    archive.set_preserve_permissions(true);
    archive.unpack(copy.path()).map_err(failed)?;
    Ok(copy)
}

fn needs(source: &Source) -> impl Iterator<Item = &ProcessName> {
    let contexts = if let Source::Folder(folder) = source { Some(folder.contexts.values()) } else { None };
    contexts.into_iter().flatten().filter_map(|source| if let NamedSource::Part(name) = source { Some(name) } else { None })
}

/// A build may use half of the machine, as it may on a server, and at least what small builds need.
pub fn limits(spec: &AppSpec) -> BuildLimits {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let memory = rustix::system::sysinfo().totalram.saturating_mul(u64::from(rustix::system::sysinfo().mem_unit));
    BuildLimits {
        memory: spec.build.memory.unwrap_or(ByteSize::bytes(memory / 2).max(ByteSize::mib(512))),
        cpus: spec.build.cpus.unwrap_or(Cpus::milli((cores * 500).max(500))),
        deadline: DEADLINE,
    }
}

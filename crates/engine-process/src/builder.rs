//! Building: from a source tree to a slug and, where it has any, its installed dependencies.
//!
//! Dependencies are installed once for each state of what decides them, so that a change of the code alone copies files and
//! nothing else. Whatever the app's own tools run here, they run confined like the app itself, within the build's limits.

mod dependencies;
mod lockfile;
mod node;
mod python;
mod step;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

use async_trait::async_trait;
use coracle_engine::{BuildError, BuildRequest, Builder, EngineError, OutputSink, Stream};
use coracle_jail::User;
use coracle_model::plan::Recipe;
use coracle_model::{AppName, Artifact, ArtifactId, CommandLine, EngineKind, ImageFacts, ProcessName};
use tokio_util::sync::CancellationToken;

use crate::files::{give_group, make_directory, remove_tree, write_json};
use crate::runtime::in_background;
use crate::site::Site;
use crate::slug::{SlugName, SlugRecord};
use step::Bench;

/// A download cache that has grown beyond this is thrown away.
const LARGEST_CACHE: u64 = 1 << 30;

/// How many installed dependencies that no kept slug uses are kept all the same.
const SPARE_DEPENDENCIES: usize = 1;

/// Builds slugs.
pub(crate) struct ProcessBuilder {
    site: Arc<Site>,
}

impl ProcessBuilder {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site }
    }

    /// Everything but the clearing up after a failure.
    async fn make(&self, slug: &SlugName, bench: &Bench<'_>) -> Result<Artifact, BuildError> {
        let (home, request) = (&self.site.home, bench.request);
        let place = slug.place(home);
        make_private(&home.slugs(&slug.app), bench.user)?;
        make_directory(&place, 0o755).map_err(|error| EngineError::io("make the slug", &error))?;
        let (source, tree) = (request.source.clone(), slug.tree(home));
        let skip = matches!(request.plan.recipe, Recipe::Node(_)).then_some("node_modules");
        let cancel = bench.cancel.clone();
        {
            let tree = tree.clone();
            in_background(move || tree::copy(&source, &tree, skip, &cancel)).await?;
        }
        let record = match &request.plan.recipe {
            Recipe::Python(app) => python::install(bench, &tree, app).await?,
            Recipe::Node(app) => node::install(bench, &tree, app).await?,
            Recipe::Static { .. } | Recipe::Plain => SlugRecord { path: Vec::new(), env: Vec::new(), dependencies: None },
            Recipe::Dockerfile { .. } | Recipe::Image { .. } | Recipe::Go(_) | Recipe::Rust(_) => {
                return Err(BuildError::CannotBuild(format!(
                    "the process engine cannot build this ({}); set engine = \"docker\" in coracle.toml",
                    request.plan.recipe
                )));
            }
        };
        let processes = self.processes(request, &tree)?;
        let user = bench.user;
        in_background(move || {
            tree::seal(&tree, user)?;
            write_json(&place.join("slug.json"), &record)
                .map_err(|error| BuildError::from(EngineError::io("write the slug", &error)))
        })
        .await?;
        Ok(Artifact { processes, ..Artifact::new(EngineKind::Process, slug.id()) })
    }

    /// The processes that the build found. A static site is served by this very program.
    fn processes(&self, request: &BuildRequest, tree: &Path) -> Result<BTreeMap<ProcessName, Option<CommandLine>>, BuildError> {
        let mut processes: BTreeMap<_, _> =
            request.plan.processes.iter().map(|(name, command)| (name.clone(), Some(command.clone()))).collect();
        if let Recipe::Static { root } = &request.plan.recipe {
            let folder = tree.join(inside(root)?);
            if !folder.is_dir() {
                return Err(BuildError::CannotBuild(format!("there is no folder {root:?} to serve")));
            }
            let text = crate::surroundings::text;
            let argv = vec![text(&self.site.home.program()), "static".to_owned(), "--root".to_owned(), text(&folder)];
            let command = CommandLine::literal(argv).map_err(|error| BuildError::CannotBuild(error.to_string()))?;
            processes.entry(ProcessName::web()).or_insert(Some(command));
        }
        Ok(processes)
    }
}

#[async_trait]
impl Builder for ProcessBuilder {
    async fn build(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let slug = SlugName { app: request.app.clone(), name: format!("{}-{}", request.release, nonce()?) };
        // A caller that goes away ends file work too.
        let cancel = cancel.child_token();
        let _end = cancel.clone().drop_guard();
        let bench = Bench::set_up(&self.site, request, output, &cancel)?;
        output.line(Stream::Stdout, format!("building {} ({})", request.plan.recipe, request.plan.reason));
        let made = tokio::select! {
            made = self.make(&slug, &bench) => made,
            () = tokio::time::sleep(request.limits.deadline.duration() + step::SLACK) => {
                Err(BuildError::TimedOut { limit: request.limits.deadline })
            }
        };
        if made.is_err() {
            let place = slug.place(&self.site.home);
            in_background(move || remove_tree(&place).map_err(|error| EngineError::io("remove the failed build", &error)))
                .await?;
        }
        made
    }

    /// Builds may fetch something new, so none is taken for another.
    async fn fingerprint(&self, _: &BuildRequest) -> Result<Option<String>, BuildError> {
        Ok(None)
    }

    async fn has(&self, artifact: &ArtifactId) -> Result<bool, EngineError> {
        let Some(slug) = SlugName::parse(artifact) else { return Ok(false) };
        Ok(slug.read(&self.site.home)?.is_some())
    }

    /// A directory says nothing of itself.
    async fn facts(&self, artifact: &ArtifactId) -> Result<Option<ImageFacts>, EngineError> {
        if self.has(artifact).await? { Ok(None) } else { Err(EngineError::NoSuchArtifact(artifact.clone())) }
    }

    async fn prune(&self, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
        let keep: Vec<SlugName> = keep.iter().filter_map(SlugName::parse).filter(|slug| slug.app == *app).collect();
        let (site, app) = (Arc::clone(&self.site), app.clone());
        in_background(move || {
            site.remove_groups(&format!("{}.{app}.", step::GROUP))?;
            let failed = |error: std::io::Error| EngineError::io(format!("prune {app}"), &error);
            let mut used = BTreeSet::new();
            for slug in &keep {
                used.extend(slug.read(&site.home)?.and_then(|record| record.dependencies));
            }
            let kept = |name: &str| keep.iter().any(|slug| slug.name == name);
            remove_others(&site.home.slugs(&app), kept).map_err(failed)?;
            let spare = if keep.is_empty() { 0 } else { SPARE_DEPENDENCIES };
            let dependencies = site.home.dependencies(&app);
            let spared = dependencies::youngest(&dependencies, &used, spare);
            remove_others(&dependencies, |name| used.contains(name) || spared.contains(name)).map_err(failed)?;
            let cache = site.home.cache(&app);
            if keep.is_empty() || tree::size(&cache, LARGEST_CACHE) > LARGEST_CACHE {
                remove_tree(&cache).map_err(failed)?;
            }
            Ok(())
        })
        .await
    }
}

/// Removes what is in a directory and not kept, and the directory if nothing is.
fn remove_others(directory: &Path, kept: impl Fn(&str) -> bool) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut empty = true;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&kept) {
            empty = false;
        } else {
            remove_tree(&entry.path())?;
        }
    }
    if empty { std::fs::remove_dir(directory) } else { Ok(()) }
}

/// A directory that only the app's user and its owner may look into.
fn make_private(path: &Path, user: Option<User>) -> Result<(), BuildError> {
    make_directory(path, 0o750)
        .and_then(|()| give_group(path, user))
        .map_err(|error| EngineError::io(format!("make {}", path.display()), &error).into())
}

/// A path of the plan: relative, and not leading out of the tree.
fn inside(path: &str) -> Result<&Path, BuildError> {
    let checked = Path::new(path);
    if checked.components().all(|piece| matches!(piece, Component::Normal(_) | Component::CurDir)) {
        Ok(checked)
    } else {
        Err(BuildError::CannotBuild(format!("{path:?} leads out of the source tree")))
    }
}

/// Eight random hexadecimal digits.
fn nonce() -> Result<String, EngineError> {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| EngineError::Failed { action: "get randomness".to_owned(), cause: error.to_string() })?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}

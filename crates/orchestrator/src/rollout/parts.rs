//! What the parts of an app run: images that are fetched, and folders that are built, side by side. What an earlier
//! release was made from in the same way is taken from there.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, NamedContext, OutputLine, OutputSink, Tail};
use coracle_model::plan::{Recipe, Serving};
use coracle_model::stack::{ContextSource, PartBuild, PullPolicy};
use coracle_model::{AppSpec, Artifact, BuildPlan, Logins, ProcessName, ProcessSource, Release, ReleaseNumber};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::making::{build_failure, build_limits};
use super::{Failure, Rollout};
use crate::core::Core;
use crate::services::{Comparison, Standing, StatefulChanges};

/// How many parts are built or fetched at once.
const AT_ONCE: usize = 3;

/// Everything that parts are made from.
pub(super) struct Workshop<'a> {
    pub engine: &'a Engine,
    pub spec: &'a AppSpec,
    pub source: &'a Path,
    /// Releases that are kept, the newest first.
    pub earlier: &'a [Release],
    /// How the stateful services stand, before anything is built.
    pub comparison: &'a Comparison,
    pub stateful: &'a StatefulChanges,
    /// The release that was made of the same tree: what is described as it was there need not even be looked at.
    pub same_tree_as: Option<ReleaseNumber>,
    /// What registries are shown.
    pub logins: Logins,
}

impl Rollout<'_> {
    /// Makes every part that says what it is made from. Parts that are made from the same are made once.
    pub(super) async fn make_parts(&self, workshop: &Workshop<'_>) -> Result<BTreeMap<ProcessName, Artifact>, Failure> {
        let mut made: BTreeMap<ProcessName, Artifact> = BTreeMap::new();
        let mut left: Vec<(&ProcessSource, Vec<&ProcessName>)> = Vec::new();
        for (name, part) in workshop.spec.parts() {
            let Some(source) = &part.source else { continue };
            match left.iter_mut().find(|(other, _)| *other == source) {
                Some((_, names)) => names.push(name),
                None => left.push((source, vec![name])),
            }
        }
        while !left.is_empty() {
            let is_free =
                |(source, _): &(&ProcessSource, Vec<&ProcessName>)| needs(source).iter().all(|name| made.contains_key(name));
            let (free, waiting): (Vec<_>, Vec<_>) = left.into_iter().partition(is_free);
            if free.is_empty() {
                let names: Vec<&str> = waiting.iter().flat_map(|(_, names)| names).map(|name| name.as_str()).collect();
                let cause = format!("{} are built from each other", names.join(", "));
                return Err(Failure::release(cause, "mend additional_contexts, then `coracle deploy`"));
            }
            let work: Vec<_> =
                free.iter().map(|(source, names)| self.make_part(workshop, names[0], source, &made).boxed()).collect();
            let artifacts: Vec<Artifact> = futures::stream::iter(work).buffered(AT_ONCE).try_collect().await?;
            for ((_, names), artifact) in free.into_iter().zip(artifacts) {
                made.extend(names.into_iter().map(|name| (name.clone(), artifact.clone())));
            }
            left = waiting;
        }
        Ok(made)
    }

    async fn make_part(
        &self,
        workshop: &Workshop<'_>,
        name: &ProcessName,
        source: &ProcessSource,
        made: &BTreeMap<ProcessName, Artifact>,
    ) -> Result<Artifact, Failure> {
        if let Some(artifact) = self.taken_over(workshop, name, source).await? {
            return Ok(artifact);
        }
        let request = self.part_request(workshop, name, source, made)?;
        let builder = &workshop.engine.builder;
        let (sink, tail) = self.output_of(name);
        let failed = |error: BuildError| match build_failure(error, tail.lines()) {
            Failure::Release { cause, evidence, hint } => Failure::Release { cause: format!("{name}: {cause}"), evidence, hint },
            other => other,
        };
        let fingerprint = builder.fingerprint(&request).await.map_err(failed)?;
        if let Some(fingerprint) = &fingerprint {
            let same =
                workshop.earlier.iter().flat_map(Release::all_artifacts).filter(|a| a.fingerprint.as_ref() == Some(fingerprint));
            for artifact in same {
                if builder.has(&artifact.id).await? {
                    return Ok(artifact.clone());
                }
            }
        }
        self.note(format!("making {name}: {}", request.plan.recipe));
        let mut artifact = builder.build(&request, &sink, self.cancel).await.map_err(failed)?;
        (artifact.fingerprint, artifact.processes) = (fingerprint, BTreeMap::new());
        Ok(artifact)
    }

    /// What an earlier release runs of the same image: a reference stays with what it meant until somebody asks anew. That
    /// of a stateful service stays with the service.
    async fn taken_over(
        &self,
        workshop: &Workshop<'_>,
        name: &ProcessName,
        source: &ProcessSource,
    ) -> Result<Option<Artifact>, Failure> {
        let stays = match workshop.comparison.standings.get(name) {
            Some(Standing::Same(now)) => Some(*now),
            Some(Standing::Changed(now, _)) if !workshop.stateful.allow(name) => Some(*now),
            _ => None,
        };
        let same_tree = workshop.same_tree_as.filter(|_| needs(source).is_empty());
        let before = match (stays, source) {
            (_, ProcessSource::Build(_)) if same_tree.is_some() => {
                workshop.earlier.iter().find(|release| Some(release.number) == same_tree)
            }
            (_, ProcessSource::Build(_)) => return Ok(None),
            (Some(now), _) => workshop.earlier.iter().find(|release| release.number == now),
            (None, ProcessSource::Image { pull: PullPolicy::Missing, .. }) => workshop.earlier.first(),
            (None, ProcessSource::Image { .. }) => None,
        };
        let Some(release) = before else { return Ok(None) };
        let same = release.spec.parts().find(|(_, part)| part.source.as_ref() == Some(source)).map(|(name, _)| name);
        let Some(artifact) = same.and_then(|name| release.artifacts.get(name)) else { return Ok(None) };
        Ok(workshop.engine.builder.has(&artifact.id).await?.then(|| artifact.clone()))
    }

    fn part_request(
        &self,
        workshop: &Workshop<'_>,
        name: &ProcessName,
        source: &ProcessSource,
        made: &BTreeMap<ProcessName, Artifact>,
    ) -> Result<BuildRequest, Failure> {
        let mut request = BuildRequest {
            app: workshop.spec.app.clone(),
            release: self.deployment.to,
            part: Some(name.clone()),
            source: workshop.source.to_owned(),
            contexts: BTreeMap::new(),
            plan: plan_of(source),
            limits: self.limits(workshop.spec),
            logins: workshop.logins.clone(),
        };
        let ProcessSource::Build(build) = source else { return Ok(request) };
        let folder = |path: &str| {
            folder_in(workshop.source, path).ok_or_else(|| {
                Failure::release(
                    format!("{name}: there is no folder {path} in the source tree"),
                    "see that no ignore file leaves it out, and that it is below the compose file's folder",
                )
            })
        };
        request.source = folder(&build.context)?;
        for (context, source) in &build.extras.contexts {
            let source = match source {
                ContextSource::Folder(path) => NamedContext::Folder(folder(path)?),
                ContextSource::Image(reference) => NamedContext::Image(reference.clone()),
                ContextSource::Process(other) => {
                    let artifact = made.get(other).ok_or_else(|| {
                        Failure::release(
                            format!("{name} is built from {other}, which does not exist"),
                            "mend additional_contexts",
                        )
                    })?;
                    NamedContext::Image(artifact.id.to_string())
                }
            };
            request.contexts.insert(context.clone(), source);
        }
        Ok(request)
    }

    fn limits(&self, spec: &AppSpec) -> BuildLimits {
        build_limits(self.core, spec)
    }

    /// A sink that says whose lines they are and remembers the last ones.
    fn output_of(&self, name: &ProcessName) -> (OutputSink, Tail) {
        let (sink, tail) = self.output();
        let name = name.clone();
        let sink = OutputSink::new(move |line: OutputLine| sink.line(line.stream, format!("{name}: {}", line.text)));
        (sink, tail)
    }
}

/// The parts whose results a part is built from.
fn needs(source: &ProcessSource) -> Vec<&ProcessName> {
    let ProcessSource::Build(build) = source else { return Vec::new() };
    let contexts = build.extras.contexts.values();
    contexts.filter_map(|context| if let ContextSource::Process(name) = context { Some(name) } else { None }).collect()
}

/// How what a part is made from is made.
pub(crate) fn plan_of(source: &ProcessSource) -> BuildPlan {
    let (recipe, reason) = match source {
        ProcessSource::Image { reference, pull } => {
            (Recipe::Image { reference: reference.clone(), pull: *pull }, "an image".to_owned())
        }
        ProcessSource::Build(build) => {
            let PartBuild { dockerfile, target, args, extras, context } = build.as_ref();
            let path = dockerfile.clone().unwrap_or_else(|| "Dockerfile".to_owned());
            let (target, args) = (target.clone(), args.clone());
            let extras = Box::new(extras.clone());
            (Recipe::Dockerfile { path, target, args, extras }, format!("build of {context}"))
        }
    };
    BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason, serving: Serving::default() }
}

/// A folder of the tree; links that lead out of it are not followed.
fn folder_in(tree: &Path, path: &str) -> Option<PathBuf> {
    let climbs = Path::new(path).components().any(|piece| !matches!(piece, Component::Normal(_) | Component::CurDir));
    let real = tree.join(path).canonicalize().ok()?;
    (!climbs && real.is_dir() && real.starts_with(tree.canonicalize().ok()?)).then_some(real)
}

impl Core {
    /// What a plan says of the parts of an app, one sentence each.
    pub(crate) async fn plan_parts(
        &self,
        engine: &Engine,
        spec: &AppSpec,
        comparison: &Comparison,
        stateful: &StatefulChanges,
    ) -> Vec<String> {
        let mut lines: Vec<String> = spec
            .processes
            .iter()
            .filter_map(|(name, part)| {
                Some(format!("{name} {}: {}", if part.task { "(task)" } else { "(process)" }, made_from(part.source.as_ref()?)))
            })
            .collect();
        for (name, standing) in &comparison.standings {
            let source = spec.services.get(name).and_then(|part| part.source.as_ref()).map(made_from).unwrap_or_default();
            lines.push(match standing {
                Standing::New => format!("{name} (keeps data): created, {source}"),
                Standing::Same(now) => format!("{name} (keeps data): stays as it was made for {now}"),
                Standing::Changed(_, what) if stateful.allow(name) => {
                    format!(
                        "{name} (keeps data): REPLACED, since {} changed; requests wait meanwhile, its volumes stay",
                        what.join(", ")
                    )
                }
                Standing::Changed(_, what) => {
                    format!("{name} (keeps data): {} changed; refused unless you say --recreate-services {name}", what.join(", "))
                }
            });
        }
        for record in &comparison.gone {
            let name = &record.name;
            lines.push(match stateful.allow(name) {
                true => format!("{name} (keeps data): STOPPED, since the file does not name it any more; its volumes stay"),
                false => {
                    format!("{name} (keeps data): not in the file any more; refused unless you say --recreate-services {name}")
                }
            });
        }
        for (name, part) in spec.parts() {
            let cannot = engine.runtime.cannot_honour(part);
            if !cannot.is_empty() {
                lines.push(format!("{name}: REFUSED, since the {} engine cannot honour {}", engine.kind, cannot.join(", ")));
            }
        }
        lines
    }
}

fn made_from(source: &ProcessSource) -> String {
    match source {
        ProcessSource::Image { reference, .. } => format!("image {reference}"),
        ProcessSource::Build(build) => format!("built from {}", build.context),
    }
}

//! Builds of parts of an app: their names, their further sources, and what their result depends on.

use std::collections::BTreeMap;
use std::io::{self, Write};

use coracle_build::DockerIgnore;
use coracle_engine::{BuildError, BuildRequest, Builder, NamedContext, OutputSink};
use coracle_model::plan::Recipe;
use coracle_model::stack::BuildExtras;
use coracle_model::{ArtifactId, BuildPlan, PrivateText, ProcessName, ReleaseNumber};
use tokio_util::sync::CancellationToken;

use super::ImageBuilder;
use super::dockerfile::Dockerfile;
use super::pull;
use crate::labels;

/// The tag of what a request builds: `v3`, `v3.worker`.
pub(super) fn tag_of(request: &BuildRequest) -> String {
    tag(request.release, request.part.as_ref())
}

/// The tag of what a release runs, or a part of it.
pub(super) fn tag(release: ReleaseNumber, part: Option<&ProcessName>) -> String {
    match part {
        None => release.to_string(),
        Some(part) => format!("{release}.{part}"),
    }
}

/// The parameters of a build that come from what it asks for beside a Dockerfile.
pub(super) fn parameters(extras: &BuildExtras) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    if !extras.cache_from.is_empty() {
        parameters.push(("cachefrom", serde_json::json!(extras.cache_from).to_string()));
    }
    parameters.extend(extras.extra_hosts.iter().map(|host| ("extrahosts", host.clone())));
    parameters.extend(extras.network.clone().map(|network| ("networkmode", network)));
    parameters.extend(extras.shm_size.map(|size| ("shmsize", size.to_string())));
    parameters.extend(extras.platform.clone().map(|platform| ("platform", platform)));
    parameters.extend(extras.no_cache.then(|| ("nocache", "1".to_owned())));
    parameters.extend(extras.pull.then(|| ("pull", "1".to_owned())));
    parameters
}

/// The secrets that a build may mount, by id.
pub(super) fn secrets_of(request: &BuildRequest) -> &BTreeMap<String, PrivateText> {
    static NONE: BTreeMap<String, PrivateText> = BTreeMap::new();
    match &request.plan.recipe {
        Recipe::Dockerfile { extras, .. } => &extras.secrets,
        _ => &NONE,
    }
}

impl ImageBuilder {
    /// The further sources of a build as stages: their names and the images they begin from. A folder becomes an image of
    /// its files first, since neither builder takes two trees.
    pub(super) async fn stages(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, BuildError> {
        let mut stages = Vec::new();
        for (name, context) in &request.contexts {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !plain || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
                let cause = format!("the additional context {name:?} needs a name of letters, digits and -_.");
                return Err(BuildError::CannotBuild(cause));
            }
            let image = match context {
                NamedContext::Image(reference) => self.reachable(reference).await?,
                NamedContext::Folder(folder) => {
                    let part = request.part.as_ref().map_or(String::new(), |part| format!("{part}."));
                    let part = format!("{part}{}", name.to_ascii_lowercase());
                    let inline = Some("FROM scratch\nCOPY . /\n".to_owned());
                    let extras = Box::new(BuildExtras { inline, ..BuildExtras::default() });
                    let recipe = Recipe::Dockerfile { path: String::new(), target: None, args: Default::default(), extras };
                    let plan = BuildPlan { recipe, reason: format!("files of {name}"), ..request.plan.clone() };
                    let part =
                        part.parse().map_err(|_| BuildError::CannotBuild(format!("the context name {name:?} is too long")))?;
                    let files = BuildRequest {
                        part: Some(part),
                        source: folder.clone(),
                        contexts: Default::default(),
                        plan,
                        ..request.clone()
                    };
                    Box::pin(self.build(&files, output, cancel)).await?;
                    self.tag(&files)
                }
            };
            stages.push((name.clone(), image));
        }
        Ok(stages)
    }

    /// A name for an image that a Dockerfile may begin from: an id alone is none.
    async fn reachable(&self, reference: &str) -> Result<String, BuildError> {
        if !reference.starts_with("sha256:") {
            return Ok(reference.to_owned());
        }
        let inspected = crate::client::timely(self.client.docker.inspect_image(reference)).await;
        let inspected = inspected.map_err(|error| self.client.error(format!("inspect image {reference}"), &error))?;
        let tags = inspected.repo_tags.unwrap_or_default();
        let ours = tags.into_iter().find(|tag| labels::is_our_tag(&self.client.owner, tag));
        ours.ok_or_else(|| coracle_engine::EngineError::NoSuchArtifact(ArtifactId::new(reference)).into())
    }

    /// What the result of a build depends on, as far as this machine can tell: the recipe, the files that the builder would
    /// see, and the images it begins from as they are here now.
    pub(super) async fn fingerprint_of(&self, request: &BuildRequest) -> Result<Option<String>, BuildError> {
        let Recipe::Dockerfile { extras, .. } = &request.plan.recipe else { return Ok(None) };
        if extras.no_cache || extras.pull {
            return Ok(None);
        }
        let dockerfile = Dockerfile::of(request).await?;
        let mut facts = vec![serde_json::json!(request.plan.recipe).to_string(), dockerfile.text().to_owned()];
        for base in dockerfile.bases() {
            facts.push(format!("{base} {:?}", pull::local_id(&self.client, &base).await?));
        }
        let mut folders = vec![(request.source.clone(), dockerfile.ignore.clone())];
        for (name, context) in &request.contexts {
            facts.push(format!("{name} {context:?}"));
            match context {
                NamedContext::Image(reference) => facts.push(format!("{:?}", pull::local_id(&self.client, reference).await?)),
                NamedContext::Folder(folder) => folders.push((folder.clone(), DockerIgnore::default())),
            }
        }
        let hashing = tokio::task::spawn_blocking(move || {
            let mut hasher = blake3::Hasher::new();
            for fact in facts {
                hasher.update(fact.as_bytes()).update(&[0]);
            }
            for (folder, ignore) in folders {
                coracle_build::fingerprint_context(&folder, &ignore, Hashing(&mut hasher))?;
            }
            Ok::<_, io::Error>(hasher.finalize().to_hex().to_string())
        });
        let hashed = hashing.await.map_err(|error| BuildError::CannotBuild(error.to_string()))?;
        hashed.map(Some).map_err(|error| BuildError::CannotBuild(format!("cannot read the source tree: {error}")))
    }
}

/// Hashes what is written.
struct Hashing<'a>(&'a mut blake3::Hasher);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

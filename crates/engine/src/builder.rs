//! Building: from a source tree and a plan to an artifact.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_model::{
    AppName, Artifact, ArtifactId, BuildPlan, ByteSize, Cpus, ImageFacts, ImageReference, Logins, PinnedImage, ProcessName,
    RegistryHost, RegistryLogin, ReleaseNumber, Span,
};
use tokio_util::sync::CancellationToken;

use crate::error::{BuildError, EngineError};
use crate::runtime::Stream;

/// Makes artifacts and keeps them until they are removed.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Builds `request.plan` from `request.source`, telling every line of output to `output` as it appears.
    ///
    /// Within its memory and processor caps and its deadline; beyond them it is killed with all it started. When
    /// `cancel` fires it stops soon, removes what it made and answers [`BuildError::Cancelled`]. A build that fails or
    /// whose process is killed leaves nothing that [`Builder::prune`] does not remove.
    async fn build(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError>;

    /// What the result depends on, as a text: two requests of one text have one result, so that the second need not be
    /// built. `None` where that cannot be told, and for images, whose references move.
    async fn fingerprint(&self, request: &BuildRequest) -> Result<Option<String>, BuildError>;

    /// Whether the artifact is still there to be run.
    async fn has(&self, artifact: &ArtifactId) -> Result<bool, EngineError>;

    /// What the image of an artifact says of itself; `None` where artifacts are no images. An artifact that is gone, or not of
    /// this engine, is [`EngineError::NoSuchArtifact`].
    async fn facts(&self, artifact: &ArtifactId) -> Result<Option<ImageFacts>, EngineError>;

    /// What a reference means at its registry now, without fetching it. Refuses what this machine could not run.
    async fn resolve(&self, reference: &ImageReference, logins: &Logins) -> Result<PinnedImage, BuildError> {
        let _ = logins;
        Err(BuildError::CannotBuild(format!(
            "this engine runs no images, so {reference} cannot be deployed; use engine = \"docker\""
        )))
    }

    /// Pushes what an artifact is made of, under this tag, telling the progress to `output`. Answers where it is then.
    async fn push(
        &self,
        artifact: &ArtifactId,
        to: &ImageReference,
        logins: &Logins,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<PinnedImage, BuildError> {
        let _ = (artifact, logins, output, cancel);
        Err(BuildError::CannotBuild(format!(
            "this engine makes no images, so nothing can be pushed to {to}; use engine = \"docker\""
        )))
    }

    /// Gives an artifact that is there to one more app: from then on it is kept for as long as either keeps it. Answers the
    /// artifact as that app has it. [`EngineError::NoSuchArtifact`] if it is not there.
    async fn share(&self, artifact: &Artifact, with: &Sharing) -> Result<Artifact, BuildError> {
        let _ = artifact;
        Err(BuildError::CannotBuild(format!(
            "this engine keeps what it builds for one app, and cannot give it to {}; deploy the source there with `coracle deploy`",
            with.app
        )))
    }

    /// Shows a registry credentials and hears whether it takes them.
    async fn check_login(&self, host: &RegistryHost, login: &RegistryLogin) -> Result<(), BuildError> {
        let _ = login;
        Err(BuildError::CannotBuild(format!("this engine runs no images, and {host} is of no use to it")))
    }

    /// Removes everything of `app` that this engine built and that is not in `keep`, and what interrupted builds left
    /// behind. Caches of ours that nothing in `keep` uses shrink to a bound. Foreign images, directories and caches
    /// stay. Never called while a build of the same app runs.
    async fn prune(&self, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError>;
}

/// What to build, where from, and what it may cost.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The app it is for.
    pub app: AppName,
    /// The release it will become.
    pub release: ReleaseNumber,
    /// The part of the app that it is for; `None`: the app as a whole.
    pub part: Option<ProcessName>,
    /// The unpacked tree, or the folder of it that the part is built from. The builder only reads it.
    pub source: PathBuf,
    /// Further sources, by the names that a Dockerfile knows them by.
    pub contexts: BTreeMap<String, NamedContext>,
    /// How.
    pub plan: BuildPlan,
    /// What it may cost.
    pub limits: BuildLimits,
    /// What registries are shown that it fetches from.
    pub logins: Logins,
}

/// Whom an artifact is given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// The app.
    pub app: AppName,
    /// The release that it will be part of.
    pub release: ReleaseNumber,
    /// The part of the app that it is for; `None`: the app as a whole.
    pub part: Option<ProcessName>,
}

/// A further source of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder.
    Folder(PathBuf),
    /// An image, by reference or id.
    Image(String),
}

/// What a build may cost.
#[derive(Debug, Clone, Copy)]
pub struct BuildLimits {
    /// Memory of all its processes together.
    pub memory: ByteSize,
    /// Processor time.
    pub cpus: Cpus,
    /// From start to end.
    pub deadline: Span,
}

/// A line that a build, a release command or a one-off process wrote; without its line end, invalid UTF-8 replaced, cut
/// at 16 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Where it was written to.
    pub stream: Stream,
    /// The text.
    pub text: String,
}

/// Takes lines of output as they appear. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct OutputSink(Arc<dyn Fn(OutputLine) + Send + Sync>);

impl OutputSink {
    /// A sink that hands every line to `take`.
    pub fn new(take: impl Fn(OutputLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// A sink that forgets everything.
    pub fn discard() -> Self {
        Self::new(|_| ())
    }

    /// Takes one line.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        (self.0)(OutputLine { stream, text: text.into() });
    }
}

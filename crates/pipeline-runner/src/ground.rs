//! What all steps of a run have in common.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_engine::{BuildLimits, Engine, OutputLine};
use coracle_model::{AppName, Artifact, ArtifactId, EnvName, Limits, Logins, ReleaseNumber, Secret, StepRun};
use coracle_pipeline::{Key, Trigger};

use crate::shelf::Shelf;
use crate::spares::Spares;

/// What all steps of a run have in common.
#[derive(Clone)]
pub struct Ground {
    /// What they run on.
    pub engine: Engine,
    /// The app.
    pub app: AppName,
    /// The release that they are run for.
    pub release: ReleaseNumber,
    /// The source tree; it is only read.
    pub source: PathBuf,
    /// A directory for copies of the tree and for what steps hand over; the caller removes it at the end.
    pub workspaces: PathBuf,
    /// Copies of the tree that were made in advance.
    pub spares: Option<Spares>,
    /// What the app was built into; `None` if no step asks for it.
    pub of_app: Option<OfApp>,
    /// The variables of the manifest.
    pub env: BTreeMap<EnvName, String>,
    /// The app's configuration, of which each step sees what it names.
    pub config: Vec<(EnvName, Secret)>,
    /// What steps are told of where the source came from.
    pub told: Told,
    /// What a step, or the fetching of an image, may use.
    pub limits: BuildLimits,
    /// What registries are shown that images of steps come from.
    pub logins: Logins,
    /// Who passed before.
    pub memory: Arc<dyn Memory>,
    /// What they handed over.
    pub shelf: Shelf,
    /// Whether every step is run, whatever is known of it.
    pub fresh: bool,
    /// Takes what happens.
    pub tell: Tell,
    /// The command that tries again, for hints.
    pub again: &'static str,
}

/// What the app was built into.
#[derive(Debug, Clone)]
pub struct OfApp {
    /// The artifact.
    pub artifact: ArtifactId,
    /// What it was made by, which beside the tree is all that it depends on.
    pub recipe: String,
}

/// What steps are told of where the source came from.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// What every step is told. It is a part of the steps' keys.
    pub always: BTreeMap<EnvName, String>,
    /// What changes with each run: only steps that run each time are told.
    pub each_time: BTreeMap<EnvName, String>,
}

impl Told {
    /// What is known of where the source came from.
    pub fn of(trigger: &Trigger, commit: Option<&str>, release: ReleaseNumber) -> Self {
        let mut told = Self::default();
        let origin = match trigger {
            Trigger::Tree => None,
            Trigger::Branch(name) => Some(("CORACLE_BRANCH", name)),
            Trigger::Tag(name) => Some(("CORACLE_TAG", name)),
        };
        told.always.extend(origin.and_then(|(name, value)| Some((name.parse().ok()?, value.clone()))));
        let each_time = [("CORACLE_COMMIT", commit.map(str::to_owned)), ("CORACLE_RELEASE", Some(release.to_string()))];
        told.each_time.extend(each_time.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value?))));
        told
    }
}

impl Ground {
    /// What a step, or what runs beside one, may use.
    pub(crate) fn instance_limits(&self) -> Limits {
        Limits { memory: Some(self.limits.memory), cpus: Some(self.limits.cpus), ..Limits::default() }
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        (self.tell)(News::Note(text.into()));
    }
}

/// Knows which steps have passed. What it cannot tell is not known: then a step only runs once more.
#[async_trait]
pub trait Memory: Send + Sync {
    /// When a job of this key passed, in words for people: `for v3`. It counts as used now.
    async fn passed(&self, key: &Key) -> Option<String>;

    /// Writes down that one passed.
    async fn record(&self, passed: Passed);

    /// What an image that a step names was fetched as for an earlier run; it may be gone.
    async fn kept_image(&self, reference: &str) -> Option<Artifact> {
        let _ = reference;
        None
    }

    /// Keeps what an image was fetched as.
    async fn keep_image(&self, reference: &str, artifact: &Artifact) {
        let _ = (reference, artifact);
    }
}

/// A job that passed.
#[derive(Debug, Clone)]
pub struct Passed {
    /// What it was run with.
    pub key: Key,
    /// Which it was, for people.
    pub step: String,
    /// The images beside the app's own that it was run with.
    pub images: Vec<ArtifactId>,
}

/// What happens while steps are run.
#[derive(Debug, Clone)]
pub enum News {
    /// A sentence.
    Note(String),
    /// A line that a step wrote, or the fetching of its image, without the values of its secrets.
    Output {
        /// Which.
        step: String,
        /// The line.
        line: OutputLine,
    },
    /// How a step stands now.
    Step(StepRun),
    /// What a step hands over is kept here for now.
    Handed {
        /// Which.
        step: String,
        /// A gzipped tar archive of plain files and folders.
        parcel: PathBuf,
    },
}

/// Takes news. It must not block.
pub type Tell = Arc<dyn Fn(News) + Send + Sync>;

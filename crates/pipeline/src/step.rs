//! What the section says, checked: steps, what each needs, and when it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use coracle_model::{ApprovalRule, CommandLine, EnvName, Pattern, Span};
use serde::Serialize;

use crate::policy::{Policy, Watch};

/// The name of a step: 1 to 24 lower-case letters, digits, hyphens and underscores, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StepName(String);

impl StepName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StepName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fine = text.len() <= 24
            && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
        let shown = coracle_model::text::one_line(text, 40);
        let rule = "use 1 to 24 lower-case letters, digits, hyphens and underscores, beginning with a letter";
        if fine { Ok(Self(text.to_owned())) } else { Err(format!("{shown:?} is not a name for a step: {rule}")) }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// All that the section says. The default is that of a manifest without one: nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipeline {
    /// How many steps run at once.
    pub parallel: Option<usize>,
    /// What runs with a new release before any of its instances starts; each after those it needs, in the order of the file
    /// otherwise.
    pub steps: Vec<Step>,
    /// What is asked of the new release before and after requests go to it, one after the other.
    pub verify: Vec<Step>,
    /// That a person has to allow a release.
    pub approve: Option<ApprovalRule>,
    /// How the new release's answers are compared with the old one's after the switch.
    pub watch: Option<Watch>,
    /// What is otherwise in an environment.
    pub(crate) environments: BTreeMap<String, Policy>,
}

/// How many steps run at once if the section does not say.
const PARALLEL: usize = 3;

impl Pipeline {
    /// How many steps run at once.
    pub fn parallel(&self) -> usize {
        self.parallel.unwrap_or(PARALLEL)
    }

    /// As it is in an environment of the manifest.
    #[must_use]
    pub fn in_environment(mut self, environment: Option<&str>) -> Self {
        if let Some(policy) = environment.and_then(|name| self.environments.remove(name)) {
            self.approve = policy.approve.unwrap_or(self.approve);
            self.watch = policy.watch.unwrap_or(self.watch);
        }
        self
    }

    /// Whether nothing is to be run.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.verify.is_empty()
    }

    /// Every step of either kind.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.verify)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// What it runs; it has succeeded if that ends with code 0.
    pub run: CommandLine,
    /// What it runs in.
    pub image: StepImage,
    /// Steps that must have succeeded before. What they hand over is a part of its key, they themselves are not.
    #[serde(skip)]
    pub needs: Vec<StepName>,
    /// What runs beside it, healthy before it starts and removed after it.
    pub services: Vec<Service>,
    /// Its variables.
    pub env: BTreeMap<EnvName, String>,
    /// Names of the app's configuration that it sees. It sees no others.
    pub secrets: Vec<EnvName>,
    /// Absolute paths that are kept for its next run.
    pub cache: Vec<String>,
    /// What it hands to the steps that need it, by paths below where it begins; kept with its run as well.
    pub artifacts: Vec<Pattern>,
    /// Values of variables; it runs once for each combination.
    #[serde(skip)]
    pub matrix: BTreeMap<EnvName, Vec<String>>,
    /// How long one attempt may take.
    #[serde(skip)]
    pub timeout: Span,
    /// How often it is tried again.
    #[serde(skip)]
    pub retries: u8,
    /// When it runs at all.
    #[serde(skip)]
    pub when: When,
    /// Whether it runs each time, whatever is known of it. Only then it is told what changes each time: the commit and the
    /// release.
    #[serde(skip)]
    pub always: bool,
}

impl Step {
    /// Whether it hands over this path.
    pub fn hands_over(&self, path: &str) -> bool {
        self.artifacts.iter().any(|pattern| pattern.covers(path))
    }

    /// The paths at and below which there may be something that it hands over, none below another; `.` is everything.
    pub fn artifact_roots(&self) -> Vec<String> {
        let mut roots: Vec<String> = self.artifacts.iter().map(Pattern::root).collect();
        roots.sort();
        roots.dedup();
        let all = roots.clone();
        let is_below = |inner: &str, outer: &str| {
            inner != outer && (outer == "." || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/')))
        };
        roots.retain(|root| !all.iter().any(|other| is_below(root, other)));
        roots
    }
}

/// Where a step with an image of its own finds the source tree.
pub const WORKSPACE: &str = "/workspace";

/// What a step runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepImage {
    /// What the app was just built into.
    App,
    /// This image, with the source tree in it.
    Named(String),
}

/// What runs beside a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The name that the step reaches it by.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its variables.
    pub env: BTreeMap<EnvName, String>,
    /// A program inside that ends with code 0 when it is well. `None`: the image's own check, else a TCP connection.
    pub health: Option<Vec<String>>,
    /// Variables that tell the step where it is.
    pub told: BTreeMap<EnvName, String>,
}

/// When a step runs; what is empty makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct When {
    /// On these branches.
    pub branches: Vec<Pattern>,
    /// On these tags.
    pub tags: Vec<Pattern>,
    /// Again only if one of these files is not as it was when the step last succeeded.
    pub paths: Vec<Pattern>,
}

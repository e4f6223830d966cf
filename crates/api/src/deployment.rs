//! Deployments: on record, and as they happen.

use coracle_model::{AppName, Bringer, DeploymentId, InstanceId, PersonName, ReleaseNumber};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::output::{OutputLine, Stream};
use crate::policy::Finding;
use crate::problem::Problem;

pub use coracle_model::deployment::{DeploymentKind as ModelKind, Outcome as ModelOutcome, Phase as ModelPhase};

/// Deployments of an app, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentList {
    /// The deployments.
    pub deployments: Vec<Deployment>,
}

/// A deployment on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// Its id; people write it `d12`.
    #[schema(value_type = i64, example = 12)]
    pub id: DeploymentId,
    /// The app.
    #[schema(value_type = String, example = "shop")]
    pub app: AppName,
    /// What it is for.
    pub kind: DeploymentKind,
    /// The release it makes.
    #[schema(value_type = u32, example = 4)]
    pub to: ReleaseNumber,
    /// The release that was active when it began.
    #[schema(value_type = Option<u32>, example = 3)]
    pub from: Option<ReleaseNumber>,
    /// The furthest phase that was begun.
    pub phase: Phase,
    /// How it ended; absent while it runs.
    pub outcome: Option<Outcome>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// That it waits, or waited, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

impl From<coracle_model::Deployment> for Deployment {
    fn from(it: coracle_model::Deployment) -> Self {
        Self {
            id: it.id,
            app: it.app,
            kind: it.kind.into(),
            to: it.to,
            from: it.from,
            phase: it.phase.into(),
            outcome: it.outcome.map(Outcome::from),
            started_at: it.started_at,
            finished_at: it.finished_at,
            approval: it.approval.map(Approval::from),
        }
    }
}

/// A deployment's wait for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// Who brought the release; absent: the administrator, or a forge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "ana")]
    pub asked_by: Option<PersonName>,
    /// Whether it was pushed to the repository at a forge, by nobody whom this server knows.
    #[serde(default)]
    pub from_forge: bool,
    /// Whether somebody else has to approve it.
    pub by_another: bool,
    /// Since when it waits.
    #[schema(value_type = String, format = DateTime)]
    pub asked_at: Timestamp,
    /// Until when it waits.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// What was decided; absent as long as nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// What a person decided about a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Whether the release may go live.
    pub approved: bool,
    /// Who said so; absent: the administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "bob")]
    pub by: Option<PersonName>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why, in that person's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<coracle_model::Approval> for Approval {
    fn from(it: coracle_model::Approval) -> Self {
        let decision = it.decision.map(|it| Decision { approved: it.approved, by: it.by, at: it.at, reason: it.reason });
        let coracle_model::Approval { rule, brought_by, asked_at, until, .. } = it;
        let (asked_by, from_forge) = match brought_by {
            Bringer::Administrator => (None, false),
            Bringer::Person(name) => (Some(name), false),
            Bringer::Forge => (None, true),
        };
        Self { asked_by, from_forge, by_another: rule.by_another, asked_at, until, decision }
    }
}

/// Why a deployment that waits is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// In a person's words; kept with the deployment, up to 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a deployment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentKind {
    /// New source.
    Deploy,
    /// New configuration.
    Config,
    /// An earlier release again.
    Rollback,
    /// Fresh instances of the same release.
    Restart,
}

impl From<ModelKind> for DeploymentKind {
    fn from(kind: ModelKind) -> Self {
        match kind {
            ModelKind::Deploy => Self::Deploy,
            ModelKind::Config => Self::Config,
            ModelKind::Rollback => Self::Rollback,
            ModelKind::Restart => Self::Restart,
        }
    }
}

impl std::fmt::Display for DeploymentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Deploy => "deploy",
            Self::Config => "config",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
        })
    }
}

/// Where a deployment stands, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The request is being checked.
    Validate,
    /// The artifact is being made.
    Build,
    /// The steps of its pipeline run with what was built.
    Pipeline,
    /// It waits for a person; nothing of it runs, and the app may be changed by others meanwhile.
    Approval,
    /// What was built is pushed to the app's registry.
    Push,
    /// Services that keep data are created, changed where that is allowed, and joined.
    Services,
    /// The release command runs.
    Release,
    /// Requests are held and the old instances are stopped.
    Hold,
    /// The new instances are being started.
    Start,
    /// They are probed until healthy.
    Probe,
    /// Requests go to the new release from here on; it cannot be called off any more.
    Switch,
    /// Requests on the old instances run out.
    Drain,
    /// The old instances are being stopped.
    Stop,
    /// What is past keeping is being removed.
    Record,
}

impl Phase {
    /// Whether the deployment may still be called off.
    pub fn can_cancel(self) -> bool {
        self < Self::Switch
    }

    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Build => "build",
            Self::Pipeline => "pipeline",
            Self::Approval => "approval",
            Self::Push => "push",
            Self::Services => "services",
            Self::Release => "release",
            Self::Hold => "hold",
            Self::Start => "start",
            Self::Probe => "probe",
            Self::Switch => "switch",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Record => "record",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<ModelPhase> for Phase {
    fn from(phase: ModelPhase) -> Self {
        match phase {
            ModelPhase::Validate => Self::Validate,
            ModelPhase::Build => Self::Build,
            ModelPhase::Pipeline => Self::Pipeline,
            ModelPhase::Approval => Self::Approval,
            ModelPhase::Push => Self::Push,
            ModelPhase::Services => Self::Services,
            ModelPhase::Release => Self::Release,
            ModelPhase::Hold => Self::Hold,
            ModelPhase::Start => Self::Start,
            ModelPhase::Probe => Self::Probe,
            ModelPhase::Switch => Self::Switch,
            ModelPhase::Drain => Self::Drain,
            ModelPhase::Stop => Self::Stop,
            ModelPhase::Record => Self::Record,
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// The new release is active.
    Succeeded,
    /// There was nothing to change: the release that was active still is.
    Unchanged,
    /// It failed; the old release serves.
    Failed {
        /// The phase it failed in.
        phase: Phase,
        /// Why, in a sentence.
        cause: String,
        /// The last log lines of what failed.
        evidence: Vec<String>,
    },
    /// A person called it off, or went away; the old release serves.
    Cancelled {
        /// The phase it was called off in.
        phase: Phase,
    },
    /// The server was stopped in the middle of it.
    Interrupted {
        /// The phase it was in.
        phase: Phase,
        /// Whether the new release became the active one all the same.
        completed: bool,
    },
}

impl From<ModelOutcome> for Outcome {
    fn from(outcome: ModelOutcome) -> Self {
        match outcome {
            ModelOutcome::Succeeded => Self::Succeeded,
            ModelOutcome::Unchanged => Self::Unchanged,
            ModelOutcome::Failed { phase, cause, evidence } => Self::Failed { phase: phase.into(), cause, evidence },
            ModelOutcome::Cancelled { phase } => Self::Cancelled { phase: phase.into() },
            ModelOutcome::Interrupted { phase, completed } => Self::Interrupted { phase: phase.into(), completed },
        }
    }
}

/// One thing that happened in a deployment, in order. On the wire the name of the event stands in the `event` field of
/// the server-sent event and, again, in the `event` member of its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DeploymentEvent {
    /// The deployment has been written down and has its number.
    Began {
        /// The deployment.
        deployment: Deployment,
    },
    /// A phase begins.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// Something worth telling: the strategy and why, what is being waited for.
    Note {
        /// The sentence.
        text: String,
    },
    /// Something that the policy says against the release. One that blocks it is why the deployment ends.
    Finding {
        /// What.
        finding: Finding,
        /// Whether the app was told the same with an earlier release.
        known: bool,
    },
    /// A line of the build's or the release command's output.
    Output {
        /// Where it was written to.
        stream: Stream,
        /// The line, without its end.
        text: String,
    },
    /// An instance became healthy.
    Healthy {
        /// Which.
        #[schema(value_type = String, example = "shop.v4.web.1")]
        instance: InstanceId,
    },
    /// Requests go to the new release from here on.
    Live {
        /// Hosts that lead to the app.
        hosts: Vec<String>,
        /// Addresses a browser on the server's machine can open.
        urls: Vec<String>,
        /// Milliseconds since the deployment began.
        elapsed_ms: u64,
    },
    /// It ended; always the last event. It is the only one if the deployment was refused while it waited for its turn.
    Ended {
        /// How; absent if it was refused before it began.
        outcome: Option<Outcome>,
        /// Why it did not succeed, with what to do about it; absent if it did.
        problem: Option<Problem>,
    },
}

impl DeploymentEvent {
    /// The name of the event on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Began { .. } => "began",
            Self::Phase { .. } => "phase",
            Self::Note { .. } => "note",
            Self::Finding { .. } => "finding",
            Self::Output { .. } => "output",
            Self::Healthy { .. } => "healthy",
            Self::Live { .. } => "live",
            Self::Ended { .. } => "ended",
        }
    }
}

impl From<OutputLine> for DeploymentEvent {
    fn from(line: OutputLine) -> Self {
        Self::Output { stream: line.stream, text: line.text }
    }
}

/// What a deployment would do, without doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentPlan {
    /// Sentences for people, in order: recipe, strategy and why, what changes, what is missing.
    pub steps: Vec<String>,
    /// What the policy says, as far as that can be known before it is built; what it leaves silent included.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// How to deploy a source tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeployOptions {
    /// The `[environments.NAME]` overlay of the manifest to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The git commit of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Go on when the client goes away; without it, a connection that ends calls the deployment off (until the switch).
    #[serde(default)]
    pub detach: bool,
    /// Wait for the app's running deployment to end, instead of answering 409.
    #[serde(default)]
    pub wait: bool,
    /// The services that keep data and that this deployment may change, replace or stop, separated by commas; `*` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recreate_services: Option<String>,
    /// The compose files of the tree, in their order, separated by commas; absent: the usual names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose_files: Option<String>,
    /// The profiles of the compose files that are active, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<String>,
    /// The environment files of the tree that fill in variables, later ones winning, separated by commas; absent: `.env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_files: Option<String>,
    /// Warn of keys of a compose file that cannot be honoured, instead of refusing it.
    #[serde(default)]
    pub ignore_unsupported: bool,
    /// The image of a registry that is deployed in place of what the tree would be built into. What its tag means now is
    /// what the release runs, whatever becomes of the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The port that the image listens on, if neither it nor the manifest says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Make a release even if nothing has changed.
    #[serde(default)]
    pub force: bool,
    /// Run every step of the pipeline, also those that have passed with the same before.
    #[serde(default)]
    pub no_cache: bool,
    /// The compose project that runs on the server's machine and whose place the app takes, with its data and its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// Remove the project's containers when the app has taken its place, instead of stopping them.
    #[serde(default)]
    pub remove_old: bool,
}

impl DeployOptions {
    /// The part that every change of an app has.
    pub fn change(&self) -> ChangeOptions {
        ChangeOptions { detach: self.detach, wait: self.wait }
    }
}

/// A push of git's that has come to the gate: the hook that git runs asks for it to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// What shows that the push is under way.
    pub ticket: String,
    /// The full name of the ref, as in `refs/heads/main`.
    pub reference: String,
    /// The object that it names until now; zeros: it is not there.
    pub old: String,
    /// The commit that is to be deployed.
    pub new: String,
}

/// How to make a release out of what the server already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ChangeOptions {
    /// Go on when the client goes away; without it, a connection that ends calls it off (until the switch).
    #[serde(default)]
    pub detach: bool,
    /// Wait for the app's running deployment to end, instead of answering 409.
    #[serde(default)]
    pub wait: bool,
}

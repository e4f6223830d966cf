//! Runs of pipelines: what became of each step, what it wrote, what it handed over. A run is a deployment's, and has its number.

use coracle_model::{AppName, DeploymentId, ReleaseNumber, run};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::deployment::{Deployment, Outcome, Phase};
use crate::output::Stream;

/// Runs of an app's pipeline, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineRunList {
    /// The runs.
    pub runs: Vec<PipelineRun>,
}

/// A run of an app's pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineRun {
    /// Its number, which is that of the deployment it belongs to.
    #[schema(value_type = i64, example = 12)]
    pub id: DeploymentId,
    /// The app.
    #[schema(value_type = String, example = "shop")]
    pub app: AppName,
    /// The release that it is for.
    #[schema(value_type = u32, example = 4)]
    pub release: ReleaseNumber,
    /// How it stands.
    pub state: PipelineRunState,
    /// Why it failed.
    pub cause: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// The branch or tag.
    pub reference: Option<String>,
    /// Who asked for it; absent where that is not known, or was the administrator.
    pub by: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Its steps, in their order. `(build)` is the build itself.
    pub steps: Vec<PipelineStep>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineRunState {
    /// It goes on.
    Running,
    /// It waits until a person approves it.
    Waiting,
    /// Its release became the active one.
    Passed,
    /// It failed.
    Failed,
    /// It was called off.
    Cancelled,
    /// The server was stopped in the middle of it.
    Interrupted,
}

impl PipelineRunState {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// How a run stands whose deployment has come to this.
    pub fn of(deployment: &Deployment) -> Self {
        match &deployment.outcome {
            None if deployment.phase == Phase::Approval => Self::Waiting,
            None => Self::Running,
            Some(Outcome::Succeeded | Outcome::Unchanged | Outcome::Interrupted { completed: true, .. }) => Self::Passed,
            Some(Outcome::Failed { .. }) => Self::Failed,
            Some(Outcome::Cancelled { .. }) => Self::Cancelled,
            Some(Outcome::Interrupted { .. }) => Self::Interrupted,
        }
    }
}

/// What became of a step in a run. A step with a matrix has one for each combination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineStep {
    /// Which.
    #[schema(example = "test[PYTHON=3.12]")]
    pub name: String,
    /// How it stands.
    pub state: PipelineStepState,
    /// Why it failed, was left out, or need not run.
    pub why: Option<String>,
    /// The exit code of the last attempt, if it ended by itself.
    pub exit_code: Option<i32>,
    /// How often it was begun.
    pub attempts: u32,
    /// Milliseconds from when nothing kept it from running to when its program had been started, without what its services took.
    pub waited_ms: Option<u64>,
    /// Milliseconds that its services took to become healthy.
    pub services_ms: Option<u64>,
    /// When nothing kept it from running any more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// What it handed over.
    pub artifacts: Option<PipelineArtifacts>,
}

/// What a step handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineArtifacts {
    /// Files.
    pub files: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineStepState {
    /// It waits for others.
    Waiting,
    /// It runs.
    Running,
    /// It has succeeded.
    Passed,
    /// It need not run.
    Cached,
    /// It has failed.
    Failed,
    /// It was not run, since something else failed.
    NotRun,
    /// It was not to run.
    LeftOut,
    /// It was called off.
    Cancelled,
}

impl From<run::StepState> for PipelineStepState {
    fn from(state: run::StepState) -> Self {
        use run::StepState as From;
        match state {
            From::Waiting => Self::Waiting,
            From::Running => Self::Running,
            From::Passed => Self::Passed,
            From::Cached => Self::Cached,
            From::Failed => Self::Failed,
            From::NotRun => Self::NotRun,
            From::LeftOut => Self::LeftOut,
            From::Cancelled => Self::Cancelled,
        }
    }
}

impl PipelineStepState {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::NotRun => "not-run",
            Self::LeftOut => "left-out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<run::StepRun> for PipelineStep {
    fn from(it: run::StepRun) -> Self {
        Self {
            name: it.name,
            state: it.state.into(),
            why: it.why,
            exit_code: it.exit_code,
            attempts: it.attempts,
            waited_ms: it.waited_ms,
            services_ms: it.services_ms,
            started_at: it.started_at,
            finished_at: it.finished_at,
            artifacts: it.artifacts.map(|it| PipelineArtifacts { files: it.files, content_bytes: it.bytes }),
        }
    }
}

/// Which lines of a run's log are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PipelineLogOptions {
    /// Only lines of this step; `build` is the build itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only lines in which this text stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// Go on with new lines until the run has ended.
    #[serde(default)]
    pub follow: bool,
}

/// A line in the log of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineLogLine {
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By which step.
    pub step: String,
    /// Where to.
    pub stream: Stream,
    /// The line, without its end.
    pub text: String,
}

/// Which artifacts of a run are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PipelineArtifactOptions {
    /// The step, as the run names it: `test[PYTHON=3.12]`.
    pub step: String,
}

//! A run of a pipeline: what became of each of its steps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What became of a step in one run. A step with a matrix has one for each combination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRun {
    /// Which: `test`, `test[PYTHON=3.12]`, `smoke (before)`.
    pub name: String,
    /// How it stands.
    pub state: StepState,
    /// Why it failed, was left out, or need not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The exit code of the last attempt, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// Milliseconds from when nothing kept it from running to when its program had been started, for the first attempt; what its
    /// services took to become healthy is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Milliseconds that its services took to become healthy, for the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services_ms: Option<u64>,
    /// When nothing kept it from running any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What it handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Handover>,
}

/// Whether a step of a run is what a person calls `name`: `test` is every combination of its matrix, `smoke` before and after the
/// switch, `build` the deployment's own `(build)`.
pub fn is_called(step: &str, name: &str) -> bool {
    let own = step.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let rest = step.strip_prefix(name);
    own == Some(name) || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('[') || rest.starts_with(" ("))
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It waits for others.
    Waiting,
    /// It runs.
    Running,
    /// It has succeeded.
    Passed,
    /// It need not run: nothing that it depends on has changed since it passed.
    Cached,
    /// It has failed.
    Failed,
    /// It was not run, since one that it needs failed.
    NotRun,
    /// It was not to run.
    LeftOut,
    /// It was called off.
    Cancelled,
}

impl StepState {
    /// The word for it.
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

    /// Whether it will change no more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// What a step handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

impl StepRun {
    /// One that has not begun.
    pub fn new(name: impl Into<String>, state: StepState) -> Self {
        Self {
            name: name.into(),
            state,
            why: None,
            exit_code: None,
            attempts: 0,
            waited_ms: None,
            services_ms: None,
            started_at: None,
            finished_at: None,
            artifacts: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_called_as_its_author_calls_it() {
        for (step, name) in
            [("test", "test"), ("test[A=1]", "test"), ("smoke (before)", "smoke"), ("(build)", "build"), ("(build)", "(build)")]
        {
            assert!(is_called(step, name), "{step} is {name}");
        }
        for (step, name) in [("tests", "test"), ("build", "(build)"), ("test", "test[A=1]")] {
            assert!(!is_called(step, name), "{step} is not {name}");
        }
    }
}

//! A deployment and its phases: the order they come in, and what each means for a server that comes back after a crash.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::approval::Approval;
use crate::names::{AppName, ReleaseNumber};

/// Identifies a deployment. Written `d12`; numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub i64);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("d{}", self.0))
    }
}

/// What a deployment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl fmt::Display for DeploymentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deploy => "deploy",
            Self::Config => "config",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
        })
    }
}

/// Where a deployment stands. Each phase is written down before it begins, so a server that comes back knows the furthest
/// thing that can have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The request is being checked.
    Validate,
    /// The artifact is being made.
    Build,
    /// The steps of its pipeline run with what was built.
    Pipeline,
    /// It waits for a person to allow it. Nothing of it runs, and the app may be changed by others meanwhile.
    Approval,
    /// What was built is pushed to the app's registry.
    Push,
    /// Stateful services are created, changed where that is allowed, and joined.
    Services,
    /// The release command runs.
    Release,
    /// Recreate only: requests are held and the old instances are stopped.
    Hold,
    /// The new instances are being started.
    Start,
    /// They are probed until healthy.
    Probe,
    /// The app's active release is the new one from here on; the proxy is being told.
    Switch,
    /// New instances are watched, requests on the old ones run out.
    Drain,
    /// The old instances are being stopped.
    Stop,
    /// What is past keeping is being removed.
    Record,
}

impl Phase {
    /// Every phase in order.
    pub const ALL: [Self; 14] = [
        Self::Validate,
        Self::Build,
        Self::Pipeline,
        Self::Approval,
        Self::Push,
        Self::Services,
        Self::Release,
        Self::Hold,
        Self::Start,
        Self::Probe,
        Self::Switch,
        Self::Drain,
        Self::Stop,
        Self::Record,
    ];

    /// What a server that finds a deployment interrupted in this phase does about it.
    pub fn recovery(self) -> Recovery {
        if self < Self::Switch { Recovery::Undo } else { Recovery::Complete }
    }

    /// Whether the deployment may still be called off. From the switch on it runs to its end.
    pub fn can_cancel(self) -> bool {
        self.recovery() == Recovery::Undo
    }

    /// The word for it on the wire and in the store.
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

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What to do about an interrupted deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Remove what it made; the old release never noticed.
    Undo,
    /// The new release is the active one: finish what is left.
    Complete,
}

/// A deployment on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The app.
    pub app: AppName,
    /// What it is for.
    pub kind: DeploymentKind,
    /// The release it makes; the number is taken when the deployment begins.
    pub to: ReleaseNumber,
    /// The release that was active when it began.
    pub from: Option<ReleaseNumber>,
    /// The furthest phase that was begun.
    pub phase: Phase,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// That it waits, or waited, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
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
    /// A person called it off, or went away.
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

impl Outcome {
    /// The word for it in the store and on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Unchanged => "unchanged",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Interrupted { .. } => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_before_the_switch_is_undone_and_everything_from_it_on_completed() {
        let completed: Vec<_> = Phase::ALL.iter().filter(|phase| phase.recovery() == Recovery::Complete).collect();
        assert_eq!(completed, [&Phase::Switch, &Phase::Drain, &Phase::Stop, &Phase::Record]);
    }

    #[test]
    fn phases_are_listed_in_their_order() {
        assert!(Phase::ALL.is_sorted());
    }
}

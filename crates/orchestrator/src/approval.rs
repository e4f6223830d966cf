//! The seam to people: a release that somebody has to allow waits here, and leaves the app to others meanwhile.

use async_trait::async_trait;
use coracle_model::{AppName, ApprovalRule, Bringer, Decision, Deployment, DeploymentId, Outcome, Phase, ReleaseNumber};

use crate::core::Core;
use crate::error::OrchestratorError;

/// Who is asked about releases.
#[async_trait]
pub trait Approver: Send + Sync {
    /// Who brought what is deployed.
    fn brought_by(&self) -> Bringer;

    /// Gives up the right to change the app, for a deployment that is on record as waiting. Only then is it told to anybody.
    async fn step_aside(&self, waiting: &Deployment);

    /// Waits for a decision about the deployment, at most as long as its approval says, and takes the right again. What is
    /// decided must be on record when it is told.
    async fn decide(&self, waiting: &Deployment) -> Verdict;

    /// Ends what waits in front of a newer deployment of the app; `false` if nobody works on it.
    async fn supersede(&self, waiting: DeploymentId, by: DeploymentId) -> bool;
}

/// What became of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was decided.
    pub word: Word,
    /// Whether the app may be changed by this deployment again.
    pub has_turn: bool,
}

/// What was decided about a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It goes on.
    Approved(Decision),
    /// Somebody does not want it.
    Rejected(Decision),
    /// Nobody has said anything in time.
    Late,
    /// A newer one has come as far.
    Superseded(DeploymentId),
    /// It was allowed, but cannot go on, for this reason.
    Stale(String),
    /// It was called off, or the server stops.
    CalledOff,
}

/// What is demanded if the app demands one thing and its new manifest another.
pub(crate) fn both(stands: Option<ApprovalRule>, brought: Option<ApprovalRule>) -> Option<ApprovalRule> {
    match (stands, brought) {
        (Some(stands), Some(brought)) => Some(stands.and(brought)),
        (one, other) => one.or(other),
    }
}

impl Core {
    /// Refuses a release that has not come past its pipeline and whoever had to allow it: going back to one, or promoting it, would go
    /// around both. One whose deployment is forgotten is old, and was kept because it was live.
    pub(crate) async fn require_allowed(&self, app: &AppName, number: ReleaseNumber) -> Result<(), OrchestratorError> {
        if self.store.app(app).await?.active == Some(number) {
            return Ok(());
        }
        let deployments = self.store.deployments(app, u32::MAX).await?;
        let Some(made) = deployments.iter().find(|deployment| deployment.to == number) else { return Ok(()) };
        let (why, next) = match &made.outcome {
            None => ("is being deployed, or waits to be allowed", "coracle deployments"),
            Some(
                Outcome::Failed { phase, .. } | Outcome::Cancelled { phase } | Outcome::Interrupted { phase, completed: false },
            ) if *phase <= Phase::Approval => ("has not come past its pipeline and whoever had to allow it", "coracle releases"),
            Some(_) => return Ok(()),
        };
        Err(OrchestratorError::refused(format!("{number} of {app} {why}"), format!("{next} -a {app}")))
    }
}

/// Who could be asked where nobody can.
pub(crate) fn nobody(app: &AppName) -> String {
    format!("{app} demands that a person allows a release, and nobody can be asked here")
}

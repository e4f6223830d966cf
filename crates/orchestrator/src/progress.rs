//! What a deployment tells while it runs.

use std::sync::Arc;

use coracle_engine::OutputLine;
use coracle_model::{Deployment, Finding, InstanceId, Outcome, Phase};
use serde::{Deserialize, Serialize};

use crate::approval::Approver;

/// One thing that happened, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// The deployment has been written down and has its number.
    Began(Deployment),
    /// A phase begins.
    Phase(Phase),
    /// A decision worth telling: the strategy and why, the recipe and why.
    Note(String),
    /// Something that the policy says against the release.
    Finding {
        /// What.
        finding: Finding,
        /// Whether the app's last release was told the same.
        known: bool,
    },
    /// A line of the build's or the release command's output.
    Output(OutputLine),
    /// An instance became healthy.
    Healthy(InstanceId),
    /// Requests go to the new release from here on.
    Live(LiveFacts),
    /// It ended; always the last event.
    Ended(Outcome),
}

/// Told when requests go to the new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFacts {
    /// Hosts that lead to the app.
    pub hosts: Vec<String>,
    /// Milliseconds since the deployment began.
    pub elapsed_ms: u64,
}

/// Takes events as they happen. Cheap to clone; never blocks; nobody may listen. Whoever listens may be asked as well.
#[derive(Clone)]
pub struct Progress {
    take: Arc<dyn Fn(Event) + Send + Sync>,
    approver: Option<Arc<dyn Approver>>,
}

impl Progress {
    /// Hands every event to `take`.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { take: Arc::new(take), approver: None }
    }

    /// With somebody to ask about releases that wait for a person.
    #[must_use]
    pub fn asking(self, approver: Arc<dyn Approver>) -> Self {
        Self { approver: Some(approver), ..self }
    }

    /// Who is asked.
    pub(crate) fn approver(&self) -> Option<&Arc<dyn Approver>> {
        self.approver.as_ref()
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Tells one event.
    pub fn tell(&self, event: Event) {
        (self.take)(event);
    }
}

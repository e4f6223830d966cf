//! What a deployment tells while it runs.

use std::sync::Arc;

use coracle_engine::OutputLine;
use coracle_model::{Deployment, InstanceId, Outcome, Phase};
use serde::{Deserialize, Serialize};

/// One thing that happened, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// The deployment has been written down and has its number.
    Began(Deployment),
    /// A phase begins.
    Phase(Phase),
    /// A decision worth telling: the strategy and why, the recipe and why.
    Note(String),
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

/// Takes events as they happen. Cheap to clone; never blocks; nobody may listen.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

impl Progress {
    /// Hands every event to `take`.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Tells one event.
    pub fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

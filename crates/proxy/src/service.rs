//! A service as it serves: its targets, who is next, and the gate before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_proxy_table::Admission;

use crate::hold::Gate;
use crate::target::Target;

/// A service of one snapshot.
pub(crate) struct Service {
    pub(crate) admission: Admission,
    /// Where requests wait; there is one while the service is held, and as long as held requests have not all gone on.
    pub(crate) gate: Option<Arc<Gate>>,
    /// From the last byte of a request to the headers of its answer, if the service has a limit of its own.
    pub(crate) response_timeout: Option<Duration>,
    targets: Vec<Arc<Target>>,
    turn: Turn,
}

/// Every request writes to it: not beside what every request reads.
#[repr(align(128))]
struct Turn(AtomicUsize);

impl Service {
    /// `turn` says which target begins.
    pub(crate) fn new(
        plan: &coracle_proxy_table::Service,
        targets: Vec<Arc<Target>>,
        gate: Option<Arc<Gate>>,
        turn: usize,
    ) -> Self {
        Self {
            admission: plan.admission.clone(),
            gate,
            response_timeout: plan.response_timeout_ms.map(Duration::from_millis),
            targets,
            turn: Turn(AtomicUsize::new(turn)),
        }
    }

    /// The next target in turn that has not been tried yet.
    pub(crate) fn pick(&self, tried: &[Arc<Target>]) -> Option<&Arc<Target>> {
        let count = self.targets.len();
        let first = match count {
            0 => return None,
            1 => 0,
            _ => self.turn.0.fetch_add(1, Ordering::Relaxed),
        };
        (0..count)
            .map(|step| &self.targets[first.wrapping_add(step) % count])
            .find(|target| !tried.iter().any(|t| Arc::ptr_eq(t, target)))
    }

    /// Its targets.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

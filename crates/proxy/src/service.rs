//! A service as it serves: its targets, who is next, and the gate before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_proxy_table::Admission;

use crate::hold::Gate;
use crate::target::Target;

/// A service of one snapshot.
pub(crate) struct Service {
    pub(crate) admission: Admission,
    /// Where requests wait; there is one while the service is held, and as long as held requests have not all gone on.
    pub(crate) gate: Option<Arc<Gate>>,
    targets: Vec<Arc<Target>>,
    turn: AtomicUsize,
}

impl Service {
    /// `turn` says which target begins.
    pub(crate) fn new(admission: Admission, targets: Vec<Arc<Target>>, gate: Option<Arc<Gate>>, turn: usize) -> Self {
        Self { admission, gate, targets, turn: AtomicUsize::new(turn) }
    }

    /// The next target in turn that has not been tried yet.
    pub(crate) fn pick(&self, tried: &[Arc<Target>]) -> Option<&Arc<Target>> {
        let count = self.targets.len();
        if count == 0 {
            return None;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .map(|step| &self.targets[first.wrapping_add(step) % count])
            .find(|target| !tried.iter().any(|t| Arc::ptr_eq(t, target)))
    }

    /// Its targets.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

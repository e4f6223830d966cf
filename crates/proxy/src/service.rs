//! A service as it serves: the gate before it, and its targets.

use std::sync::Arc;
use std::time::Duration;

use coracle_proxy_table::Admission;

use crate::balance::Balancer;
use crate::hold::Gate;
use crate::target::Target;

/// A service of one snapshot.
pub(crate) struct Service {
    pub(crate) admission: Admission,
    /// Where requests wait; there is one while the service is held, and as long as held requests have not all gone on.
    pub(crate) gate: Option<Arc<Gate>>,
    /// From the last byte of a request to the headers of its answer, if the service has a limit of its own.
    pub(crate) response_timeout: Option<Duration>,
    /// Which target answers.
    pub(crate) balancer: Balancer,
}

impl Service {
    /// Of the table's service.
    pub(crate) fn new(plan: &coracle_proxy_table::Service, balancer: Balancer, gate: Option<Arc<Gate>>) -> Self {
        Self {
            admission: plan.admission.clone(),
            gate,
            response_timeout: plan.response_timeout_ms.map(Duration::from_millis),
            balancer,
        }
    }

    /// Whether it leads to exactly these targets, through this gate.
    pub(crate) fn has(&self, targets: &[Arc<Target>], gate: Option<&Arc<Gate>>) -> bool {
        let mine = self.balancer.targets();
        mine.len() == targets.len()
            && mine.iter().zip(targets).all(|(mine, theirs)| Arc::ptr_eq(mine, theirs))
            && self.gate.as_ref().map(Arc::as_ptr) == gate.map(Arc::as_ptr)
    }
}

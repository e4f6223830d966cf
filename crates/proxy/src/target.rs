//! Targets and what is in flight on them. A target keeps its counts and its connections across tables.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_proxy_table::TargetId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::options::Limits;
use crate::pool::Pool;

/// One address that answers.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) address: SocketAddr,
    pub(crate) pool: Pool,
    plain: AtomicUsize,
    upgraded: AtomicUsize,
    /// Only then does the end of a request tell `settled`: nobody listens otherwise.
    watched: AtomicBool,
    settled: Notify,
    /// Ends upgraded connections.
    pub(crate) close_upgraded: CancellationToken,
}

impl Target {
    fn new(id: TargetId, address: SocketAddr, limits: &Limits) -> Self {
        Self {
            id,
            address,
            pool: Pool::new(address, limits),
            plain: AtomicUsize::new(0),
            upgraded: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            settled: Notify::new(),
            close_upgraded: CancellationToken::new(),
        }
    }

    /// Requests in flight, until the last byte of their answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.plain.load(Ordering::SeqCst)
    }

    /// Upgraded connections.
    pub(crate) fn upgraded(&self) -> usize {
        self.upgraded.load(Ordering::SeqCst)
    }

    /// Waits until nothing is counted any more: no plain request, or no upgraded connection.
    pub(crate) async fn until_none(&self, what: Count) {
        self.watched.store(true, Ordering::SeqCst);
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.counter(what).load(Ordering::SeqCst) == 0 {
                return;
            }
            settled.await;
        }
    }

    fn counter(&self, what: Count) -> &AtomicUsize {
        match what {
            Count::Plain => &self.plain,
            Count::Upgraded => &self.upgraded,
        }
    }
}

/// Which of the two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Requests.
    Plain,
    /// Connections that have become something else than HTTP.
    Upgraded,
}

/// Counts one request (or upgraded connection) on a target for as long as it lives.
pub(crate) struct InFlight {
    target: Arc<Target>,
    what: Count,
}

impl InFlight {
    /// Counts a request from now on.
    pub(crate) fn begin(target: &Arc<Target>, what: Count) -> Self {
        target.counter(what).fetch_add(1, Ordering::SeqCst);
        Self { target: Arc::clone(target), what }
    }

    /// Where it is in flight.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.target.counter(self.what).fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.target.watched.load(Ordering::SeqCst) {
            self.target.settled.notify_waiters();
        }
    }
}

/// All targets that are in the table or still have something in flight.
#[derive(Default)]
pub(crate) struct Registry(Mutex<HashMap<(TargetId, SocketAddr), Arc<Target>>>);

impl Registry {
    /// The target of this id and address, known or new.
    pub(crate) fn obtain(&self, target: &coracle_proxy_table::Target, limits: &Limits) -> Arc<Target> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.id.clone(), target.address);
        Arc::clone(known.entry(key).or_insert_with(|| Arc::new(Target::new(target.id.clone(), target.address, limits))))
    }

    /// Forgets targets that nobody needs: neither `needed` nor with anything in flight.
    pub(crate) fn sweep(&self, needed: impl Fn(&Arc<Target>) -> bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, target| needed(target) || target.in_flight() + target.upgraded() > 0);
    }

    /// Forgets exactly this one; if the table has it, the next snapshot begins it anew.
    pub(crate) fn forget(&self, target: &Arc<Target>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, other| !Arc::ptr_eq(other, target));
    }

    /// Every target.
    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

//! Targets and what is in flight on them. A target keeps its counts and its connections across tables.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_proxy_table::{Protocol, TargetId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::TargetState;
use crate::h2;
use crate::pool::Pool;
use crate::standing::{DOWN, Standing};

/// One address that answers.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) address: SocketAddr,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// Whether it is well.
    pub(crate) standing: Standing,
    /// It answers nothing any more.
    cut: AtomicBool,
    /// Upgraded connections end.
    closes_upgraded: AtomicBool,
    /// Only then does the end of a request tell `settled`: nobody listens otherwise.
    watched: AtomicBool,
    settled: Notify,
    shares: Box<[Share]>,
}

/// What one worker has on a target; on cache lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Share {
    plain: AtomicUsize,
    upgraded: AtomicUsize,
    pool: Pool,
    h2_pool: h2::Pool,
}

impl Target {
    /// For so many workers.
    fn new(id: TargetId, address: SocketAddr, protocol: Protocol, workers: usize) -> Self {
        Self {
            id,
            address,
            protocol,
            standing: Standing::new(Instant::now()),
            cut: AtomicBool::new(false),
            closes_upgraded: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            settled: Notify::new(),
            shares: (0..workers).map(|_| Share::default()).collect(),
        }
    }

    /// Requests in flight, until the last byte of their answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.count(Count::Plain)
    }

    /// Upgraded connections.
    pub(crate) fn upgraded(&self) -> usize {
        self.count(Count::Upgraded)
    }

    /// Whether its health checks fail.
    pub(crate) fn is_down(&self) -> bool {
        self.standing.against(DOWN) != 0
    }

    /// How it stands at this moment.
    pub(crate) fn state(&self) -> TargetState {
        self.standing.state(Instant::now())
    }

    /// A worker's kept connections.
    pub(crate) fn pool(&self, worker: usize) -> &Pool {
        &self.shares[worker].pool
    }

    /// A worker's connections that requests share.
    pub(crate) fn h2_pool(&self, worker: usize) -> &h2::Pool {
        &self.shares[worker].h2_pool
    }

    /// Closes all kept connections.
    pub(crate) fn clear_pools(&self) {
        for share in &self.shares {
            share.pool.clear();
            share.h2_pool.clear();
        }
    }

    /// Ends everything on it but what is upgraded, once the workers' connections have been woken: requests without an answer
    /// are answered by 504, the others break off.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Whether it was cut; whoever waits for it has to ask whenever it is polled.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Ends what is upgraded, once the workers' connections have been woken.
    pub(crate) fn close_upgraded(&self) {
        self.closes_upgraded.store(true, Ordering::SeqCst);
    }

    /// Whether upgraded connections have to end.
    pub(crate) fn closes_upgraded(&self) -> bool {
        self.closes_upgraded.load(Ordering::Relaxed)
    }

    /// Waits until nothing is counted any more: no plain request, or no upgraded connection.
    pub(crate) async fn until_none(&self, what: Count) {
        self.watched.store(true, Ordering::SeqCst);
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.count(what) == 0 {
                return;
            }
            settled.await;
        }
    }

    /// The sum over the workers. A count may grow while it is made, but each worker's never falls below what is there.
    fn count(&self, what: Count) -> usize {
        self.shares.iter().map(|share| share.counter(what).load(Ordering::SeqCst)).sum()
    }
}

impl Share {
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

/// Counts one request (or upgraded connection) of a worker on a target for as long as it lives.
pub(crate) struct InFlight {
    target: Arc<Target>,
    worker: usize,
    what: Count,
}

impl InFlight {
    /// Counts from now on.
    pub(crate) fn begin(target: &Arc<Target>, worker: usize, what: Count) -> Self {
        target.shares[worker].counter(what).fetch_add(1, Ordering::SeqCst);
        Self { target: Arc::clone(target), worker, what }
    }

    /// Where it is in flight.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.target.shares[self.worker].counter(self.what).fetch_sub(1, Ordering::SeqCst);
        if self.target.watched.load(Ordering::SeqCst) {
            self.target.settled.notify_waiters();
        }
    }
}

/// All targets that are in the table or still have something in flight.
pub(crate) struct Registry {
    known: Mutex<Known>,
    workers: usize,
}

#[derive(Default)]
struct Known {
    /// By id, address, and whether it speaks HTTP/2.
    found: HashMap<(TargetId, SocketAddr, bool), Arc<Target>>,
    /// Those that are drained. No table finds them any more.
    leaving: Vec<Arc<Target>>,
}

impl Registry {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { known: Mutex::default(), workers }
    }

    /// The target of this id and address that speaks this, known or new.
    pub(crate) fn obtain(&self, target: &coracle_proxy_table::Target, protocol: Protocol) -> Arc<Target> {
        let mut known = self.lock();
        let key = (target.id.clone(), target.address, protocol == Protocol::H2c);
        let make = || Arc::new(Target::new(target.id.clone(), target.address, protocol, self.workers));
        Arc::clone(known.found.entry(key).or_insert_with(make))
    }

    /// Forgets targets that nobody needs: neither `needed` nor with anything in flight.
    pub(crate) fn sweep(&self, needed: impl Fn(&Arc<Target>) -> bool) {
        let stays = |target: &Arc<Target>| needed(target) || target.in_flight() + target.upgraded() > 0;
        let mut known = self.lock();
        known.found.retain(|_, target| stays(target));
        known.leaving.retain(stays);
    }

    /// Has no later table find exactly this one. It is still there until it is forgotten.
    pub(crate) fn take_leave(&self, target: &Arc<Target>) {
        let mut known = self.lock();
        known.forget(target);
        known.leaving.push(Arc::clone(target));
    }

    /// Forgets exactly this one; if the table has it, the next snapshot begins it anew.
    pub(crate) fn forget(&self, target: &Arc<Target>) {
        self.lock().forget(target);
    }

    /// Every target, those that are leaving last.
    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        let known = self.lock();
        known.found.values().chain(&known.leaving).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, target: &Arc<Target>) {
        self.found.retain(|_, other| !Arc::ptr_eq(other, target));
        self.leaving.retain(|other| !Arc::ptr_eq(other, target));
    }
}

//! The gate before a service that is held: requests wait in line, and go on in line.
//!
//! They are let go one after the other, each once the one before has been sent, and only a few of them at a time are
//! without an answer: a service that has just started is not run over.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_table::ServiceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// So many released requests may be without an answer before the next one has to wait for one, or for [`PATIENCE`].
const AT_ONCE: usize = 16;
/// A slow answer does not hold up the line for longer.
const PATIENCE: Duration = Duration::from_millis(20);
/// A request that is slow to be sent holds up those behind it for so long, since they are to follow in their order: a machine that
/// is busy may well take longer than [`PATIENCE`].
const IN_ORDER: Duration = Duration::from_millis(500);
/// All requests of a line together may be slow to be sent by so much; after that, targets that cannot be reached are what is slow.
const SLOWNESS: Duration = Duration::from_secs(2);
/// The service is spared for so long at most; then all who wait go at once. Requests come meanwhile, and a service that is always
/// spared would never be through with them.
const SPARED: Duration = Duration::from_secs(5);

/// The line before one service.
#[derive(Default)]
pub(crate) struct Gate {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// How many of them waited when the gate was opened, and have not been called yet. Who comes later goes after them, but is not
    /// what the service is spared.
    held: usize,
    /// How many hold a place, also those that have been called but have not left yet.
    places: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Shut,
    Releasing,
    Open,
}

/// A place in the line; leaving it by dropping it is fine.
pub(crate) struct Place {
    gate: Arc<Gate>,
    called: oneshot::Receiver<Turn>,
}

/// Whoever has it may go. Dropping it tells the gate that an answer has come, or none will.
pub(crate) struct Turn {
    sent: Option<oneshot::Sender<()>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// The request has been sent: the next one may follow.
    pub(crate) fn sent(&mut self) {
        self.sent = None;
    }
}

impl Gate {
    /// A place at the end of the line, unless `max_waiting` wait already.
    pub(crate) fn join(self: &Arc<Self>, max_waiting: usize) -> Option<Place> {
        let mut line = self.lock();
        (line.places < max_waiting).then(|| self.append(&mut line))
    }

    fn append(self: &Arc<Self>, line: &mut Line) -> Place {
        let (call, called) = oneshot::channel();
        line.places += 1;
        line.waiting.push_back(call);
        Place { gate: Arc::clone(self), called }
    }

    /// A place behind those that are just being let go, or are about to be, if there are any: the service is open, but it is not
    /// this request's turn yet. (A gate that is still shut belongs to a table that is just being installed.)
    pub(crate) fn queue_up(self: &Arc<Self>) -> Option<Place> {
        let mut line = self.lock();
        (line.state != State::Open).then(|| self.append(&mut line))
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().places
    }

    fn shut(&self) {
        self.lock().state = State::Shut;
    }

    /// Whether somebody has to be let go; then [`Gate::release`] has to be run.
    fn open(&self) -> bool {
        let mut line = self.lock();
        let begins = line.state == State::Shut && !line.waiting.is_empty();
        if begins {
            line.state = State::Releasing;
            line.held = line.waiting.len();
        } else if line.state == State::Shut {
            line.state = State::Open;
        }
        begins
    }

    /// Lets everybody go at once: they will find the service closed or gone.
    fn scatter(&self) {
        self.lock().let_go();
    }

    /// Lets the line go, in order, until it is empty or the gate is shut again.
    pub(crate) async fn release(self: Arc<Self>) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let (mut left, until) = (SLOWNESS, Instant::now() + SPARED);
        while Instant::now() < until
            && let Some(call) = self.next()
        {
            if call.is_closed() {
                continue;
            }
            let permit = tokio::time::timeout(PATIENCE, Arc::clone(&permits).acquire_owned()).await;
            let (sent, until_sent) = oneshot::channel();
            let turn = Turn { sent: Some(sent), _permit: permit.ok().and_then(Result::ok) };
            if call.send(turn).is_ok() {
                let since = Instant::now();
                // Its end is the message.
                drop(tokio::time::timeout(left.min(IN_ORDER).max(PATIENCE), until_sent).await);
                left = left.saturating_sub(since.elapsed());
            }
        }
        let mut line = self.lock();
        if line.state == State::Releasing {
            line.let_go();
        }
    }

    /// The next one of those who were held.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut line = self.lock();
        if line.state != State::Releasing || line.held == 0 {
            return None;
        }
        line.held -= 1;
        line.waiting.pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Opens the gate for all who wait, in their order.
    fn let_go(&mut self) {
        (self.state, self.held) = (State::Open, 0);
        for call in self.waiting.drain(..) {
            // Whoever has left does not hear it.
            drop(call.send(Turn { sent: None, _permit: None }));
        }
    }
}

impl Place {
    /// Waits for the turn; nothing if it does not come in time.
    pub(crate) async fn turn(mut self, deadline: Instant) -> Option<Turn> {
        tokio::time::timeout_at(deadline, &mut self.called).await.ok().and_then(Result::ok)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.gate.lock();
        line.places -= 1;
        if line.waiting.len() > 2 * line.places + 16 {
            let held = line.held.min(line.waiting.len());
            line.held = line.waiting.iter().take(held).filter(|call| !call.is_closed()).count();
            line.waiting.retain(|call| !call.is_closed());
        }
    }
}

/// The gates of all services that have one.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<ServiceId, Arc<Gate>>>);

impl Gates {
    /// The gate of a service that is held.
    pub(crate) fn held(&self, service: &ServiceId) -> Arc<Gate> {
        Arc::clone(self.lock().entry(service.clone()).or_default())
    }

    /// The gate of a service that is open, if anybody may still wait there.
    pub(crate) fn remaining(&self, service: &ServiceId) -> Option<Arc<Gate>> {
        self.lock().get(service).cloned()
    }

    /// After a new table: shuts, opens and scatters as it says. Returns the gates whose [`Gate::release`] has to be run.
    pub(crate) fn settle(&self, wanted: impl Fn(&ServiceId) -> Wanted) -> Vec<Arc<Gate>> {
        let mut gates = self.lock();
        let mut to_release = Vec::new();
        gates.retain(|service, gate| match wanted(service) {
            Wanted::Shut => {
                gate.shut();
                true
            }
            Wanted::Open => {
                if gate.open() {
                    to_release.push(Arc::clone(gate));
                }
                gate.waiting() > 0
            }
            Wanted::Gone => {
                gate.scatter();
                false
            }
        });
        to_release
    }

    /// How many requests wait, by service.
    pub(crate) fn waiting(&self) -> Vec<(ServiceId, usize)> {
        self.lock().iter().map(|(service, gate)| (service.clone(), gate.waiting())).filter(|(_, count)| *count > 0).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceId, Arc<Gate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a gate should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Requests wait.
    Shut,
    /// Requests go on.
    Open,
    /// Requests learn that there is nothing to wait for.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_goes_in_the_order_of_arrival() {
        let gates = Gates::default();
        let id = ServiceId("s".into());
        let gate = gates.held(&id);
        let places: Vec<_> = (0..100).map(|_| gate.join(100).unwrap()).collect();
        assert!(gate.join(100).is_none());
        let to_release = gates.settle(|_| Wanted::Open);
        assert_eq!(to_release.len(), 1);
        let (order, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let deadline = Instant::now() + Duration::from_secs(20);
        for (number, place) in places.into_iter().enumerate() {
            let order = order.clone();
            tokio::spawn(async move {
                let mut turn = place.turn(deadline).await.unwrap();
                order.send(number).unwrap();
                turn.sent();
            });
        }
        drop(order);
        Arc::clone(&gate).release().await;
        for number in 0..100 {
            assert_eq!(seen.recv().await, Some(number));
        }
        assert!(gate.queue_up().is_none());
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn a_line_that_grows_faster_than_answers_come_ends_all_the_same() {
        let gates = Gates::default();
        let gate = gates.held(&ServiceId("s".into()));
        let held: Vec<_> = (0..40).map(|_| gate.join(100).unwrap()).collect();
        // A newcomer between the new table and its opening does not overtake anybody.
        let between = gate.queue_up().unwrap();
        gates.settle(|_| Wanted::Open);
        let newcomers: Vec<_> = (0..200).map(|_| gate.queue_up().unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Nobody is ever answered.
        let (unanswered, mut turns) = tokio::sync::mpsc::unbounded_channel();
        for place in held.into_iter().chain([between]) {
            let unanswered = unanswered.clone();
            tokio::spawn(async move {
                let mut turn = place.turn(deadline).await.unwrap();
                turn.sent();
                unanswered.send(turn)
            });
        }
        Arc::clone(&gate).release().await;
        assert!(gate.queue_up().is_none(), "the gate is open");
        for place in newcomers {
            assert!(place.turn(deadline).await.is_some());
        }
        for _ in 0..41 {
            assert!(turns.recv().await.is_some());
        }
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn a_gate_that_is_shut_again_keeps_the_rest() {
        let gates = Gates::default();
        let gate = gates.held(&ServiceId("s".into()));
        let place = gate.join(1).unwrap();
        gates.settle(|_| Wanted::Open);
        gates.settle(|_| Wanted::Shut);
        Arc::clone(&gate).release().await;
        assert_eq!(gate.waiting(), 1);
        assert!(place.turn(Instant::now()).await.is_none());
        assert_eq!(gate.waiting(), 0);
    }
}

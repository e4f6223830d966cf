//! Whose turn it is: executions at the same time are bounded, and those who wait are served in turns, client by client, so
//! that one who sends much makes only himself wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::caller::ClientId;

/// How a queue is bounded.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Executions at the same time.
    pub running: usize,
    /// Those of one client.
    pub running_per_client: usize,
    /// Executions that wait.
    pub waiting: usize,
    /// Those of one client.
    pub waiting_per_client: usize,
    /// How long one waits.
    pub patience: Duration,
}

/// Why somebody does not get a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This client has too many waiting already.
    Client,
    /// Too many of all clients are waiting.
    Everybody,
    /// It took too long.
    Impatient,
}

/// The queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    limits: QueueLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    lines: HashMap<ClientId, Line>,
    /// Clients with somebody waiting, whoever's turn is next first.
    turns: VecDeque<ClientId>,
}

#[derive(Debug, Default)]
struct Line {
    running: usize,
    /// How many of its may run at the same time.
    most: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    queue: Queue,
    client: Option<ClientId>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.queue.release(client);
        }
    }
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Executions running and waiting now.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running, state.waiting)
    }

    /// Waits for a turn. At most `most` of this client's run at the same time, where that is less than the queue's own bound.
    pub(crate) async fn turn(&self, client: ClientId, most: Option<usize>) -> Result<Permit, Full> {
        let waiting = {
            let mut state = self.lock();
            let line = state.lines.entry(client).or_default();
            line.most = self.limits.running_per_client.min(most.unwrap_or(usize::MAX)).max(1);
            let free = line.waiting.is_empty() && line.running < line.most;
            if free && state.running < self.limits.running {
                return Ok(self.admit(&mut state, client));
            }
            self.line_up(&mut state, client)?
        };
        match tokio::time::timeout(self.limits.patience, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                self.forget_departed(client);
                Err(Full::Impatient)
            }
        }
    }

    fn admit(&self, state: &mut State, client: ClientId) -> Permit {
        state.running += 1;
        state.lines.entry(client).or_default().running += 1;
        Permit { queue: self.clone(), client: Some(client) }
    }

    fn line_up(&self, state: &mut State, client: ClientId) -> Result<oneshot::Receiver<Permit>, Full> {
        state.sweep();
        let all = state.waiting;
        let line = state.lines.entry(client).or_default();
        if line.waiting.len() >= self.limits.waiting_per_client {
            return Err(Full::Client);
        }
        if all >= self.limits.waiting {
            return Err(Full::Everybody);
        }
        let (sender, receiver) = oneshot::channel();
        if line.waiting.is_empty() {
            state.turns.push_back(client);
        }
        line.waiting.push_back(sender);
        state.waiting += 1;
        Ok(receiver)
    }

    fn release(&self, client: ClientId) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
        if let Some(line) = state.lines.get_mut(&client) {
            line.running = line.running.saturating_sub(1);
        }
        state.tidy(client);
        self.call_next(state);
    }

    /// Gives free turns to those who wait, each client in its turn. One whose own bound is reached keeps its place.
    fn call_next(&self, mut state: MutexGuard<'_, State>) {
        let mut passed = 0;
        let mut unwanted = Vec::new();
        while state.running < self.limits.running && passed < state.turns.len() {
            let Some(client) = state.turns.pop_front() else { break };
            let at_its_bound = state.lines.get(&client).is_some_and(|line| line.running >= line.most);
            if at_its_bound {
                state.turns.push_back(client);
                passed += 1;
                continue;
            }
            let Some(sender) = state.take_waiting(client) else { continue };
            if let Err(permit) = sender.send(self.admit(&mut state, client)) {
                // Whoever waited has left. Its permit must not be dropped under the lock.
                state.running -= 1;
                if let Some(line) = state.lines.get_mut(&client) {
                    line.running -= 1;
                }
                unwanted.push(permit);
            }
            passed = 0;
        }
        drop(state);
        for mut permit in unwanted {
            // It has been taken back already.
            permit.client.take();
        }
    }

    fn forget_departed(&self, client: ClientId) {
        let mut state = self.lock();
        state.sweep();
        state.tidy(client);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_waiting(&mut self, client: ClientId) -> Option<oneshot::Sender<Permit>> {
        let line = self.lines.get_mut(&client)?;
        let sender = line.waiting.pop_front()?;
        self.waiting -= 1;
        if !line.waiting.is_empty() {
            self.turns.push_back(client);
        }
        Some(sender)
    }

    /// Takes those out who have left.
    fn sweep(&mut self) {
        let mut left = 0;
        for line in self.lines.values_mut() {
            line.waiting.retain(|sender| !sender.is_closed());
            left += line.waiting.len();
        }
        self.waiting = left;
        let lines = &self.lines;
        self.turns.retain(|client| lines.get(client).is_some_and(|line| !line.waiting.is_empty()));
    }

    /// Forgets a client of whom nothing is left.
    fn tidy(&mut self, client: ClientId) {
        if self.lines.get(&client).is_some_and(|line| line.running == 0 && line.waiting.is_empty()) {
            self.lines.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const ONE: ClientId = ClientId::Key(1);
    const TWO: ClientId = ClientId::Key(2);

    fn queue(running: usize, running_per_client: usize, waiting: usize, waiting_per_client: usize) -> Queue {
        let patience = Duration::from_secs(30);
        Queue::new(QueueLimits { running, running_per_client, waiting, waiting_per_client, patience })
    }

    /// Who tells his name when it is his turn.
    type Calls = tokio::sync::mpsc::UnboundedSender<(&'static str, Permit)>;

    /// Puts somebody into the line.
    async fn waits(queue: &Queue, client: ClientId, most: Option<usize>, name: &'static str, called: &Calls) {
        let (own, called) = (queue.clone(), called.clone());
        let before = queue.counts().1;
        tokio::spawn(async move {
            let permit = own.turn(client, most).await.unwrap();
            called.send((name, permit)).ok();
        });
        for _ in 0..1000 {
            if queue.counts().1 > before {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{name} does not wait");
    }

    #[tokio::test]
    async fn clients_have_turns_however_many_of_one_are_waiting() {
        let queue = queue(1, 1, 10, 10);
        let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let first = queue.turn(ONE, None).await.unwrap();
        for name in ["a1", "a2", "a3"] {
            waits(&queue, ONE, None, name, &called).await;
        }
        waits(&queue, TWO, None, "b1", &called).await;
        drop(first);
        let mut order = Vec::new();
        for _ in 0..4 {
            let (name, permit) = calls.recv().await.unwrap();
            order.push(name);
            drop(permit);
        }
        assert_eq!(order, ["a1", "b1", "a2", "a3"]);
        assert_eq!(queue.counts(), (0, 0));
        assert!(queue.lock().lines.is_empty() && queue.lock().turns.is_empty());
    }

    #[tokio::test]
    async fn one_client_never_has_every_turn() {
        let queue = queue(4, 2, 10, 10);
        let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let held = [queue.turn(ONE, None).await.unwrap(), queue.turn(ONE, None).await.unwrap()];
        waits(&queue, ONE, None, "third", &called).await;
        let other = [queue.turn(TWO, None).await.unwrap(), queue.turn(TWO, None).await.unwrap()];
        assert_eq!(queue.counts(), (4, 1));
        drop(other);
        // There is room, and still it is not the third's turn.
        assert_eq!(queue.counts(), (2, 1));
        drop(held);
        assert_eq!(calls.recv().await.unwrap().0, "third");
        let key_of_one = queue.turn(TWO, Some(1)).await.unwrap();
        waits(&queue, TWO, Some(1), "second of a small key", &called).await;
        drop(key_of_one);
        assert_eq!(calls.recv().await.unwrap().0, "second of a small key");
    }

    #[tokio::test]
    async fn lines_are_bounded_and_who_leaves_makes_room() {
        let queue = queue(1, 1, 2, 1);
        let _held = queue.turn(ONE, None).await.unwrap();
        let mut waiting = Box::pin(queue.turn(ONE, None));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(queue.turn(ONE, None).await.unwrap_err(), Full::Client);
        let mut other = Box::pin(queue.turn(TWO, None));
        assert!(futures::poll!(&mut other).is_pending());
        assert_eq!(queue.turn(ClientId::Key(3), None).await.unwrap_err(), Full::Everybody);
        drop(other);
        let mut third = Box::pin(queue.turn(ClientId::Key(3), None));
        assert!(futures::poll!(&mut third).is_pending());
        drop((waiting, third));
    }

    #[tokio::test]
    async fn a_turn_that_comes_too_late_is_nobodys() {
        let mut queue = queue(1, 1, 5, 5);
        queue.limits.patience = Duration::from_millis(1);
        let held = queue.turn(ONE, None).await.unwrap();
        assert_eq!(queue.turn(TWO, None).await.unwrap_err(), Full::Impatient);
        drop(held);
        assert!(queue.turn(ONE, None).await.is_ok());
        assert_eq!(queue.counts(), (0, 0));
    }
}

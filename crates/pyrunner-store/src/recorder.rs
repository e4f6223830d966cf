//! Writes history off the hot path: whoever records puts it into a bounded queue and goes on; one task writes batches.
//!
//! While the database is away or full, the task tries again with growing pauses, and the queue fills up to its bounds. Then
//! records are dropped, newest first, and counted by reason; or, for those who cannot afford that, [`Recorder::record_durably`]
//! answers only after the commit and otherwise with an error. Both may be used on one recorder. Commits of many that wait at
//! once are one commit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Store;
use crate::error::StoreError;
use crate::queue::{Batch, Entry, Queue, Refusal};
use crate::record::{Record, now};

/// The pause after the first failure; it doubles up to [`RecorderOptions::retry_pause`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause while somebody waits for the end.
const CLOSING_PAUSE: Duration = Duration::from_millis(200);

/// How much a recorder holds and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderOptions {
    /// The most records held, what is being written included.
    pub queue_records: usize,
    /// The most bytes held ([`Record::size`]), what is being written included.
    pub queue_bytes: usize,
    /// The most records written by one transaction.
    pub batch_records: usize,
    /// The most bytes written by one transaction; a larger record goes alone.
    pub batch_bytes: usize,
    /// How long a record may wait for company before it is written.
    pub linger: Duration,
    /// How long [`Recorder::record_durably`] waits for room and for the commit, together.
    pub patience: Duration,
    /// The longest pause between two attempts at a database that fails.
    pub retry_pause: Duration,
}

impl Default for RecorderOptions {
    /// 10 000 records or 64 MiB held; batches of 256 or 4 MiB, at the latest every 50 ms; 5 s of patience and pause.
    fn default() -> Self {
        Self {
            queue_records: 10_000,
            queue_bytes: 64 << 20,
            batch_records: 256,
            batch_bytes: 4 << 20,
            linger: Duration::from_millis(50),
            patience: Duration::from_secs(5),
            retry_pause: Duration::from_secs(5),
        }
    }
}

/// Why a record is not in the database, as far as its recorder knows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotRecorded {
    /// Too much is waiting already.
    #[error("too many records wait to be written{}", because(.last_error))]
    Full {
        /// What the database said last, if it fails.
        last_error: Option<String>,
    },
    /// The record alone is larger than the queue may be.
    #[error("the record of {size} bytes is larger than the queue may be ({most} bytes)")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The bound.
        most: usize,
    },
    /// The recorder has been shut down.
    #[error("the recorder has been shut down")]
    Closed,
    /// The database refuses this very record.
    #[error("the database refuses the record: {0}")]
    Refused(StoreError),
    /// Not committed in time. The record stays in the queue and will be written if the database comes back.
    #[error("the record has not been written within {patience:?}{}", because(.last_error))]
    Late {
        /// How long it was waited for.
        patience: Duration,
        /// What the database said last, if it fails.
        last_error: Option<String>,
    },
}

fn because(last_error: &Option<String>) -> String {
    last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

/// How a recorder is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Since when the database fails and how; `None` while it works.
    pub failing: Option<Failing>,
    /// Records held.
    pub queued_records: usize,
    /// Bytes held.
    pub queued_bytes: usize,
    /// Records written since the start.
    pub written: u64,
    /// Transactions that failed and were tried again, since the start.
    pub retries: u64,
    /// Records dropped since the start.
    pub dropped: Dropped,
}

/// A database that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// When it first did.
    pub since: Timestamp,
    /// What it said last.
    pub error: String,
}

/// Records that were not written, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full.
    pub full: u64,
    /// The record alone was larger than the queue may be.
    pub too_large: u64,
    /// The database refused that very record.
    pub refused: u64,
    /// They came after the shutdown, or were left when its deadline came.
    pub shutdown: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.too_large + self.refused + self.shutdown
    }
}

/// Writes history. Cheap to clone; all clones are one. When the last one is dropped the writing ends at once: call
/// [`Recorder::shutdown`] first.
#[derive(Clone)]
pub struct Recorder(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    options: RecorderOptions,
    queue: Mutex<Queue>,
    /// There is something to write, or it has become urgent.
    wake: Notify,
    /// Something has been settled: the number of all that ever were.
    settled: watch::Sender<u64>,
    failing: Mutex<Option<Failing>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    written: AtomicU64,
    retries: AtomicU64,
    full: AtomicU64,
    too_large: AtomicU64,
    refused: AtomicU64,
    shutdown: AtomicU64,
}

impl Recorder {
    /// Starts the task that writes. Needs a running Tokio runtime.
    pub fn start(store: Store, options: RecorderOptions) -> Self {
        let shared = Arc::new(Shared {
            options,
            queue: Mutex::default(),
            wake: Notify::new(),
            settled: watch::Sender::new(0),
            failing: Mutex::default(),
            counters: Counters::default(),
        });
        let writer = tokio::spawn(Arc::clone(&shared).write_all(store));
        Self(Arc::new(Owner { shared, writer: Mutex::new(Some(writer)) }))
    }

    /// Puts a record into the queue, without ever waiting. An error means that it was dropped, and counted.
    pub fn record(&self, record: Record) -> Result<(), NotRecorded> {
        let shared = &self.0.shared;
        let size = record.size();
        shared.push(Entry { record, size, waiter: None }).map_err(|(_, refusal)| shared.dropped(refusal, size))
    }

    /// Returns after the record is on the disk. An error means that it may not be: the caller should not answer as if it
    /// were. Waits for room, too, but not longer than [`RecorderOptions::patience`] in all. Whoever stops waiting does not
    /// take back what is in the queue.
    pub async fn record_durably(&self, record: Record) -> Result<(), NotRecorded> {
        let shared = &self.0.shared;
        let patience = shared.options.patience;
        let deadline = Instant::now() + patience;
        let size = record.size();
        let (waiter, answer) = oneshot::channel();
        let mut entry = Entry { record, size, waiter: Some(waiter) };
        let mut settled = shared.settled.subscribe();
        loop {
            match shared.push(entry) {
                Ok(()) => break,
                Err((back, Refusal::Full)) => entry = *back,
                Err((_, refusal)) => return Err(shared.dropped(refusal, size)),
            }
            if !matches!(timeout_at(deadline, settled.changed()).await, Ok(Ok(()))) {
                return Err(shared.dropped(Refusal::Full, size));
            }
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NotRecorded::Closed),
            Err(_) => Err(NotRecorded::Late { patience, last_error: shared.last_error() }),
        }
    }

    /// Whether a record would find room and a database that works. In strict mode, ask before the execution: refusing it
    /// costs the client less than losing its record.
    pub fn ready(&self) -> Result<(), NotRecorded> {
        let shared = &self.0.shared;
        let last_error = shared.last_error();
        if last_error.is_some() {
            return Err(NotRecorded::Full { last_error });
        }
        match shared.queue().has_room(0, &shared.options) {
            Ok(()) => Ok(()),
            Err(Refusal::Closed) => Err(NotRecorded::Closed),
            Err(Refusal::Full | Refusal::TooLarge) => Err(NotRecorded::Full { last_error }),
        }
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        let shared = &self.0.shared;
        let (queued_records, queued_bytes) = shared.queue().held();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &shared.counters;
        Health {
            failing: lock(&shared.failing).clone(),
            queued_records,
            queued_bytes,
            written: read(&counters.written),
            retries: read(&counters.retries),
            dropped: Dropped {
                full: read(&counters.full),
                too_large: read(&counters.too_large),
                refused: read(&counters.refused),
                shutdown: read(&counters.shutdown),
            },
        }
    }

    /// Waits until everything recorded so far is written (or refused by the database), at most that long; whether it is.
    pub async fn flush(&self, within: Duration) -> bool {
        let shared = &self.0.shared;
        let mut settled = shared.settled.subscribe();
        let goal = shared.queue().flush();
        shared.wake.notify_one();
        matches!(timeout(within, settled.wait_for(|settled| *settled >= goal)).await, Ok(Ok(_)))
    }

    /// Accepts no more, writes what is there, at most that long, and ends the task; what is left then is dropped and
    /// counted. Returns how many were left. Nothing to do the second time.
    pub async fn shutdown(&self, within: Duration) -> usize {
        let shared = &self.0.shared;
        shared.queue().close();
        shared.wake.notify_one();
        let Some(mut writer) = lock(&self.0.writer).take() else { return 0 };
        if timeout(within, &mut writer).await.is_err() {
            writer.abort();
            // Until the task has really ended it may still commit.
            drop(writer.await);
        }
        let (left, _) = shared.queue().held();
        shared.counters.shutdown.fetch_add(left as u64, Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(left, "executions were not written down before the end");
        }
        left
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(writer) = lock(&self.writer).take() {
            writer.abort();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Recorder").field(&self.health()).finish()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn last_error(&self) -> Option<String> {
        lock(&self.failing).as_ref().map(|failing| failing.error.clone())
    }

    /// Gives the entry back if there is no room.
    fn push(&self, entry: Entry) -> Result<(), (Box<Entry>, Refusal)> {
        let mut queue = self.queue();
        if let Err(refusal) = queue.has_room(entry.size, &self.options) {
            return Err((Box::new(entry), refusal));
        }
        let wake = queue.push(entry, &self.options);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Counts a record that was not accepted.
    fn dropped(&self, refusal: Refusal, size: usize) -> NotRecorded {
        let (counter, error) = match refusal {
            Refusal::Full => (&self.counters.full, NotRecorded::Full { last_error: self.last_error() }),
            Refusal::TooLarge => (&self.counters.too_large, NotRecorded::TooLarge { size, most: self.options.queue_bytes }),
            Refusal::Closed => (&self.counters.shutdown, NotRecorded::Closed),
        };
        let before = counter.fetch_add(1, Ordering::Relaxed);
        // The first, and then ever more rarely: a flood of drops must not become a flood of lines.
        if (before + 1).is_power_of_two() {
            tracing::warn!(dropped = before + 1, %error, "an execution was not written down");
        }
        error
    }

    /// The task: batch after batch until it is closed and empty.
    async fn write_all(self: Arc<Self>, store: Store) {
        while let Some(batch) = self.next_batch().await {
            self.write(&store, batch).await;
        }
    }

    /// Waits for something to write, and then for company, unless it is urgent.
    async fn next_batch(&self) -> Option<Batch> {
        let mut lingered_until = None;
        loop {
            {
                let mut queue = self.queue();
                let is_late = lingered_until.is_some_and(|moment| Instant::now() >= moment);
                if !queue.is_empty() && (is_late || queue.is_urgent(&self.options)) {
                    return Some(queue.take(&self.options));
                }
                if queue.is_empty() && queue.is_closed() {
                    return None;
                }
                if !queue.is_empty() && lingered_until.is_none() {
                    lingered_until = Some(Instant::now() + self.options.linger);
                }
            }
            match lingered_until {
                // Woken or late: the loop looks.
                Some(moment) => drop(timeout_at(moment, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    /// Writes a batch, however long it takes; one record at a time if the database has something against one of them.
    async fn write(&self, store: &Store, mut batch: Batch) {
        let durable = batch.is_awaited();
        let answers: Vec<Result<(), NotRecorded>> = match self.write_patiently(store, &batch.records, durable).await {
            Ok(()) => vec![Ok(()); batch.records.len()],
            Err(error) if batch.records.len() == 1 => vec![Err(self.refused(error))],
            Err(_) => {
                let mut answers = Vec::with_capacity(batch.records.len());
                for record in &batch.records {
                    let written = self.write_patiently(store, std::slice::from_ref(record), durable).await;
                    answers.push(written.map_err(|error| self.refused(error)));
                }
                answers
            }
        };
        let written = answers.iter().filter(|answer| answer.is_ok()).count();
        self.counters.written.fetch_add(written as u64, Ordering::Relaxed);
        let settled = {
            let mut queue = self.queue();
            queue.settle(&batch);
            queue.settled()
        };
        self.settled.send_replace(settled);
        for (waiter, answer) in batch.waiters.drain(..).zip(answers) {
            if let Some(waiter) = waiter {
                // Whoever waited may have lost patience.
                drop(waiter.send(answer));
            }
        }
    }

    /// Tries until it succeeds or the database refuses for good.
    async fn write_patiently(&self, store: &Store, records: &[Record], durable: bool) -> Result<(), StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match store.insert_records(records, durable).await {
                Err(error) if !error.blames_values() => error,
                result => {
                    if let Some(failing) = lock(&self.failing).take() {
                        tracing::info!(since = %failing.since, "history can be written again");
                    }
                    return result;
                }
            };
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            let message = error.to_string();
            match &mut *lock(&self.failing) {
                Some(failing) => failing.error = message,
                none => {
                    tracing::warn!(error = message, "history cannot be written; trying again");
                    *none = Some(Failing { since: now(), error: message });
                }
            }
            let most = if self.queue().is_closed() { CLOSING_PAUSE } else { self.options.retry_pause };
            // New records wake the task, too; so a notification only ends the pause if there is an end to hurry to.
            let until = Instant::now() + pause.min(most);
            while timeout_at(until, self.wake.notified()).await.is_ok() && !self.queue().is_closed() {}
            pause = (pause * 2).min(self.options.retry_pause);
        }
    }

    fn refused(&self, error: StoreError) -> NotRecorded {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%error, "the database refuses the record of an execution");
        NotRecorded::Refused(error)
    }
}

/// What a panicking holder leaves behind is whole: nothing between lock and release can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

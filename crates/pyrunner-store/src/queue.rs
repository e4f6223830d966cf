//! What waits to be written: bounded by count and by bytes, what is being written included.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::record::Record;
use crate::recorder::{NotRecorded, RecorderOptions};

/// Tells whoever waits for a commit how it went.
pub(crate) type Waiter = oneshot::Sender<Result<(), NotRecorded>>;

/// A record in the queue.
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) size: usize,
    pub(crate) waiter: Option<Waiter>,
}

/// Records in the order they came.
#[derive(Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Of the entries.
    bytes: usize,
    /// Entries somebody waits for.
    waiters: usize,
    /// Of the entries and of what is being written.
    held_records: usize,
    held_bytes: usize,
    /// How many were ever accepted, and how many of those have been written or given up. In order, so one number tells.
    accepted: u64,
    settled: u64,
    /// Up to which accepted one somebody wants them written now.
    flush_to: u64,
    closed: bool,
}

/// Why a record was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    TooLarge,
    Closed,
}

/// Some records taken out to be written.
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) waiters: Vec<Option<Waiter>>,
    bytes: usize,
}

impl Batch {
    /// Whether somebody waits for one of them.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiters.iter().any(Option::is_some)
    }
}

impl Queue {
    /// Whether a record of that size finds room.
    pub(crate) fn has_room(&self, size: usize, options: &RecorderOptions) -> Result<(), Refusal> {
        if self.closed {
            Err(Refusal::Closed)
        } else if size > options.queue_bytes {
            Err(Refusal::TooLarge)
        } else if self.held_records >= options.queue_records || self.held_bytes + size > options.queue_bytes {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Takes a record in, for which there is room; whether the writer should be woken.
    pub(crate) fn push(&mut self, entry: Entry, options: &RecorderOptions) -> bool {
        let was_urgent = self.is_urgent(options);
        self.bytes += entry.size;
        self.held_bytes += entry.size;
        self.held_records += 1;
        self.waiters += usize::from(entry.waiter.is_some());
        self.accepted += 1;
        self.entries.push_back(entry);
        self.entries.len() == 1 || (!was_urgent && self.is_urgent(options))
    }

    /// Whether waiting for more would gain nothing, or keep somebody waiting.
    pub(crate) fn is_urgent(&self, options: &RecorderOptions) -> bool {
        self.closed
            || self.waiters > 0
            || self.settled < self.flush_to
            || self.entries.len() >= options.batch_records
            || self.bytes >= options.batch_bytes
    }

    /// Takes the oldest out, up to a batch; at least one if there is one.
    pub(crate) fn take(&mut self, options: &RecorderOptions) -> Batch {
        let mut batch = Batch { records: Vec::new(), waiters: Vec::new(), bytes: 0 };
        while let Some(next) = self.entries.front() {
            let is_full = batch.records.len() >= options.batch_records || batch.bytes + next.size > options.batch_bytes;
            if is_full && !batch.records.is_empty() {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            batch.bytes += entry.size;
            self.bytes -= entry.size;
            self.waiters -= usize::from(entry.waiter.is_some());
            batch.records.push(entry.record);
            batch.waiters.push(entry.waiter);
        }
        batch
    }

    /// The batch has been written, or given up.
    pub(crate) fn settle(&mut self, batch: &Batch) {
        self.held_records -= batch.records.len();
        self.held_bytes -= batch.bytes;
        self.settled += batch.records.len() as u64;
    }

    /// Wants everything accepted so far written now; the number that `settled` must reach.
    pub(crate) fn flush(&mut self) -> u64 {
        self.flush_to = self.accepted;
        self.accepted
    }

    /// Accepts no more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Records and bytes held, what is being written included.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.held_records, self.held_bytes)
    }
}

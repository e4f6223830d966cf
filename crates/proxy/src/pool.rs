//! Connections to one target that wait for another request, kept by each worker for itself.
//!
//! A kept connection is a guess that the other side has not just closed it: its end may be on the way while the request is
//! sent. Nothing on this side can rule that out, so a kept connection is only given to requests that may be sent a second
//! time; everything else gets a fresh one. That the end has not *arrived* yet is made sure of, at the price of a look at
//! what the reactor knows already: no system call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::target::Target;

/// What one worker keeps for one target.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The one used last is at the end.
    streams: Vec<(TcpStream, Instant)>,
    reaper_runs: bool,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolLimits {
    /// For how long.
    pub(crate) idle: Duration,
    /// How many connections.
    pub(crate) count: usize,
}

impl Pool {
    /// A kept connection that looks alive.
    pub(crate) fn take(&self, now: Instant, limits: PoolLimits) -> Option<TcpStream> {
        let mut kept = self.lock();
        while let Some((stream, since)) = kept.streams.pop() {
            if now.saturating_duration_since(since) >= limits.idle {
                // The ones before it are older still.
                kept.streams.clear();
                return None;
            }
            if is_silent(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Lets go of all of them.
    pub(crate) fn clear(&self) {
        let streams = std::mem::take(&mut self.lock().streams);
        drop(streams);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection of `worker` whose answer has been read to its end. On that worker's runtime.
pub(crate) fn keep(target: &Arc<Target>, worker: usize, stream: TcpStream, now: Instant, limits: PoolLimits) {
    if limits.idle.is_zero() || target.is_cut() {
        return;
    }
    let mut kept = target.pool(worker).lock();
    if kept.streams.len() >= limits.count {
        return;
    }
    kept.streams.push((stream, now));
    let begins = !std::mem::replace(&mut kept.reaper_runs, true);
    drop(kept);
    if begins {
        tokio::spawn(reap(Arc::downgrade(target), worker, limits.idle));
    }
}

/// Closes kept connections in time. Runs only while there are any, so that an idle proxy sleeps; ends with its worker.
async fn reap(target: Weak<Target>, worker: usize, idle: Duration) {
    loop {
        tokio::time::sleep(idle / 2).await;
        let Some(target) = target.upgrade() else { return };
        let now = Instant::now();
        let mut kept = target.pool(worker).lock();
        kept.streams.retain(|(stream, since)| now.saturating_duration_since(*since) < idle && is_silent(stream));
        if kept.streams.is_empty() {
            kept.streams.shrink_to_fit();
            kept.reaper_runs = false;
            return;
        }
    }
}

/// Whether neither its end nor anything else has arrived: nobody has asked anything on it.
fn is_silent(stream: &TcpStream) -> bool {
    // Asks the reactor first, and the socket only if something has happened on it.
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

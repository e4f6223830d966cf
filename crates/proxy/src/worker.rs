//! Workers: threads that serve connections. Each has a runtime of its own, a copy of the snapshot, and its own connections to
//! targets. A connection lives and ends on one worker, so that on the way of a request nothing waits for another thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::connection;
use crate::listener::{self, Doorway, Peer};
use crate::plane::Plane;
use crate::router::Snapshot;

/// How long a worker's thread may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What others see of a worker.
#[repr(align(128))]
pub(crate) struct Worker {
    /// What its requests go by. Nobody but the one who installs tables contends for it.
    snapshot: Mutex<Arc<Snapshot>>,
    /// The tasks of its connections.
    wakers: Mutex<Wakers>,
    connections: AtomicUsize,
    jobs: mpsc::UnboundedSender<Job>,
}

/// What a worker is told to do.
pub(crate) enum Job {
    /// Accept from a listening socket.
    Accept(Doorway),
    /// Serve a connection that another worker has accepted.
    Serve(std::net::TcpStream, Peer, Counted),
}

/// The plane, seen from one of its workers.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) plane: Arc<Plane>,
    pub(crate) index: usize,
}

impl Worker {
    /// One that is told its jobs by this channel.
    pub(crate) fn new(jobs: mpsc::UnboundedSender<Job>) -> Self {
        Self {
            snapshot: Mutex::new(Arc::new(Snapshot::empty())),
            wakers: Mutex::default(),
            connections: AtomicUsize::new(0),
            jobs,
        }
    }

    /// The snapshot that its requests go by, for as long as it is held: nothing else is done meanwhile.
    pub(crate) fn snapshot(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a job; dropped if it has ended.
    pub(crate) fn tell(&self, job: Job) {
        drop(self.jobs.send(job));
    }

    /// How many connections it has.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Polls all its connections once: something that they have to look at has changed.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = self.wakers().slots.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Its worker.
    pub(crate) fn worker(&self) -> &Worker {
        &self.plane.workers[self.index]
    }

    /// Serves a connection, here or on a worker that has fewer.
    pub(crate) fn place(&self, stream: TcpStream, peer: Peer) -> std::io::Result<()> {
        let (mut best, mut fewest) = (self.index, self.worker().connections());
        for (index, worker) in self.plane.workers.iter().enumerate() {
            if worker.connections() < fewest {
                (best, fewest) = (index, worker.connections());
            }
        }
        let counted = Counted::new(Self { plane: Arc::clone(&self.plane), index: best });
        if best == self.index {
            tokio::spawn(connection::serve(stream, peer, counted));
        } else {
            self.plane.workers[best].tell(Job::Serve(stream.into_std()?, peer, counted));
        }
        Ok(())
    }
}

/// A connection that is counted, on its worker and among those that the proxy waits for when it ends.
pub(crate) struct Counted {
    pub(crate) seat: Seat,
    _token: TaskTrackerToken,
}

impl Counted {
    fn new(seat: Seat) -> Self {
        seat.worker().connections.fetch_add(1, Ordering::Relaxed);
        let token = seat.plane.connections.token();
        Self { seat, _token: token }
    }

    /// Lets [`Worker::wake_all`] wake a task, until what is returned is dropped.
    pub(crate) fn enrol(&self, waker: &Waker) -> Enrolled<'_> {
        let worker = self.seat.worker();
        let mut wakers = worker.wakers();
        let place = match wakers.free.pop() {
            Some(place) => place,
            None => {
                wakers.slots.push(None);
                wakers.slots.len() - 1
            }
        };
        wakers.slots[place] = Some(waker.clone());
        Enrolled { worker, place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.seat.worker().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The wakers of all tasks of a worker.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A task that is woken with all others.
pub(crate) struct Enrolled<'w> {
    worker: &'w Worker,
    place: usize,
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        let mut wakers = self.worker.wakers();
        let waker = wakers.slots[self.place].take();
        wakers.free.push(self.place);
        drop(wakers);
        drop(waker);
    }
}

/// The threads. Dropping this ends them, and everything on them, in a moment.
pub(crate) struct Threads {
    kill: CancellationToken,
    ended: Vec<oneshot::Receiver<()>>,
}

impl Threads {
    /// Starts a thread per worker of this plane.
    pub(crate) fn start(plane: &Arc<Plane>, jobs: Vec<mpsc::UnboundedReceiver<Job>>) -> std::io::Result<Self> {
        let mut threads = Self { kill: CancellationToken::new(), ended: Vec::new() };
        for (index, jobs) in jobs.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (seat, kill) = (Seat { plane: Arc::clone(plane), index }, threads.kill.clone());
            let (ends, ended) = oneshot::channel();
            let run = move || {
                runtime.block_on(kill.run_until_cancelled(work(seat, jobs)));
                // With the runtime every task on it ends.
                drop(runtime);
                drop(ends);
            };
            std::thread::Builder::new().name(format!("proxy-{index}")).spawn(run)?;
            threads.ended.push(ended);
        }
        Ok(threads)
    }

    /// Ends them, with everything on them, and waits until they have.
    pub(crate) async fn end(mut self) {
        self.kill.cancel();
        let ended = futures::future::join_all(std::mem::take(&mut self.ended));
        if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("a worker does not end");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

async fn work(seat: Seat, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Accept(doorway) => drop(tokio::spawn(listener::accept(doorway, seat.clone()))),
            Job::Serve(stream, peer, counted) => match TcpStream::from_std(stream) {
                Ok(stream) => drop(tokio::spawn(connection::serve(stream, peer, counted))),
                Err(error) => tracing::debug!(%error, "a connection was lost between workers"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn those_who_are_enrolled_are_woken() {
        let plane = crate::plane::tests::plane(1);
        let counted = Counted::new(Seat { plane: Arc::clone(&plane), index: 0 });
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let (first, second) = (counted.enrol(&waker), counted.enrol(&waker));
        plane.workers[0].wake_all();
        drop(first);
        plane.workers[0].wake_all();
        let third = counted.enrol(&waker);
        assert_eq!((third.place, count.0.load(Ordering::SeqCst)), (0, 3));
        drop((second, third));
        plane.workers[0].wake_all();
        assert_eq!((count.0.load(Ordering::SeqCst), plane.workers[0].connections()), (3, 1));
    }
}

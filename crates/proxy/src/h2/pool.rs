//! Connections to one target that requests share, kept by each worker for itself.
//!
//! A connection belongs to whoever uses it: to the pool, as long as new requests may use it, and to each stream on it. When
//! the last of them lets go, its task ends. Only one is opened at a time: whoever comes meanwhile waits for it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use ::h2::client::{Builder, Connection, SendRequest};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::dial::dial;
use crate::options::Limits;
use crate::target::Target;

/// How many streams of one connection are used, if the target allows more: they share its window.
const MOST_STREAMS: usize = 256;

/// How many streams a target takes before it has said so. It is waited for: what is beyond would be refused.
const UNTOLD: usize = usize::MAX - 1;

/// What one worker has with one target.
#[derive(Default)]
pub(crate) struct Pool {
    links: Mutex<Vec<Arc<Link>>>,
    /// Somebody opens one just now.
    opens: AtomicBool,
    opened: Notify,
}

/// A connection.
pub(super) struct Link {
    send: SendRequest<Bytes>,
    used: Arc<Used>,
    driver: tokio::task::AbortHandle,
}

/// What the connection's task knows of its use.
struct Used {
    since: Instant,
    streams: AtomicUsize,
    /// Milliseconds after `since` at which a stream ended last.
    last: AtomicUsize,
}

/// A place on a connection for one stream.
pub(crate) struct Lane {
    pub(super) send: SendRequest<Bytes>,
    link: Arc<Link>,
    /// The connection was there before.
    pub(crate) is_reused: bool,
}

impl Pool {
    /// Lets go of all of them; what is under way on them goes on.
    pub(crate) fn clear(&self) {
        let links = std::mem::take(&mut *self.links());
        drop(links);
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place on a connection that takes another stream. Those that take none any more are forgotten: the target has said
    /// that it closes them, or they broke.
    fn find(&self, is_reused: bool) -> Option<Lane> {
        let mut found = None;
        let mut over = Vec::new();
        self.links().retain(|link| {
            let mut send = link.send.clone();
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if matches!(send.poll_ready(&mut cx), Poll::Ready(Err(_))) {
                over.push(Arc::clone(link));
                return false;
            }
            let most = send.current_max_send_streams().min(MOST_STREAMS);
            if found.is_none() && link.used.streams.load(Ordering::Relaxed) < most {
                link.used.streams.fetch_add(1, Ordering::Relaxed);
                found = Some(Lane { send, link: Arc::clone(link), is_reused });
            }
            true
        });
        found
    }

    /// The right to open one, unless somebody else does.
    fn opening(&self) -> Option<Opening<'_>> {
        (!self.opens.swap(true, Ordering::SeqCst)).then(|| Opening(self))
    }
}

/// Whoever waits may look again when this is dropped.
struct Opening<'p>(&'p Pool);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opens.store(false, Ordering::SeqCst);
        self.0.opened.notify_waiters();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let used = &self.link.used;
        used.last.store(used.now(), Ordering::Relaxed);
        used.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Used {
    fn now(&self) -> usize {
        usize::try_from(self.since.elapsed().as_millis()).unwrap_or(usize::MAX)
    }

    fn is_idle_for(&self, time: Duration) -> bool {
        let idle = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        self.streams.load(Ordering::Relaxed) == 0 && idle as u128 >= time.as_millis()
    }
}

/// A place on a connection of `worker` to a target, opened if there is none. On that worker's runtime. Nothing if the target
/// cannot be reached; the caller has a deadline.
pub(crate) async fn open(target: &Arc<Target>, worker: usize, limits: &Limits) -> Option<Lane> {
    let pool = target.h2_pool(worker);
    let mut is_reused = true;
    loop {
        let mut opened = pin!(pool.opened.notified());
        // From here on, nothing that is opened is missed.
        opened.as_mut().enable();
        if let Some(lane) = pool.find(is_reused) {
            return Some(lane);
        }
        let Some(_opening) = pool.opening() else {
            opened.await;
            is_reused = false;
            continue;
        };
        let stream = dial(target.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (send, mut connection) = builder(limits).handshake::<_, Bytes>(stream).await.ok()?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            _ if send.current_max_send_streams() != UNTOLD => Poll::Ready(Some(())),
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        if target.is_cut() {
            return None;
        }
        let used = Arc::new(Used { since: Instant::now(), streams: AtomicUsize::new(0), last: AtomicUsize::new(0) });
        let driver = drive(connection, Arc::downgrade(target), worker, Arc::clone(&used), limits.idle);
        let driver = tokio::spawn(driver).abort_handle();
        pool.links().push(Arc::new(Link { send, used, driver }));
        is_reused = false;
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_max_send_streams(UNTOLD)
        .max_concurrent_streams(0)
        .enable_push(false);
    builder
}

/// Sends and receives, until the connection has ended or has not been used for so long. Ended by [`Link`] or with its worker.
async fn drive(connection: Connection<TcpStream, Bytes>, target: Weak<Target>, worker: usize, used: Arc<Used>, idle: Duration) {
    let mut connection = pin!(connection);
    let mut looks = tokio::time::interval((idle / 2).max(Duration::from_millis(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to a target broke");
            }
            return Poll::Ready(());
        }
        while looks.poll_tick(cx).is_ready() {
            if used.is_idle_for(idle) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
    if let Some(target) = target.upgrade() {
        let mut over = Vec::new();
        let mut links = target.h2_pool(worker).links();
        links.retain(|link| {
            let stays = !Arc::ptr_eq(&link.used, &used);
            if !stays {
                over.push(Arc::clone(link));
            }
            stays
        });
        drop(links);
    }
}

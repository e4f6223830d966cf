//! Connections to one target: opened, kept for a moment, used again, and cut.
//!
//! A kept connection is a guess that the other side has not just closed it. So it is only given to requests that may be
//! sent a second time; everything else gets a fresh one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::body::RequestBody;
use crate::options::Limits;
use crate::target::Target;

/// Sends requests over one connection.
pub(crate) type Sender = SendRequest<RequestBody>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The target was cut off.
    #[error("the target was cut off")]
    CutOff,
    /// Not within the connect timeout.
    #[error("no connection in time")]
    Timeout,
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// hyper said no.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// The connections to one target.
pub(crate) struct Pool {
    address: SocketAddr,
    connect: Duration,
    idle_limit: Duration,
    idle_count: usize,
    header_bytes: usize,
    idle: Mutex<Idle>,
    /// Drives connections; owns the reaper too.
    drivers: Mutex<Drivers>,
}

#[derive(Default)]
struct Idle {
    /// The one used last is at the end.
    senders: Vec<(Sender, Instant)>,
    reaper_runs: bool,
}

#[derive(Default)]
struct Drivers {
    tasks: JoinSet<()>,
    cut: bool,
}

impl Pool {
    /// No connection yet.
    pub(crate) fn new(address: SocketAddr, limits: &Limits) -> Self {
        Self {
            address,
            connect: limits.connect,
            idle_limit: limits.upstream_idle,
            idle_count: limits.upstream_idle_count,
            header_bytes: limits.header_bytes,
            idle: Mutex::default(),
            drivers: Mutex::default(),
        }
    }

    /// A kept connection that looks alive.
    pub(crate) fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut from_end = idle.senders.len();
        while from_end > 0 {
            from_end -= 1;
            let (sender, since) = &idle.senders[from_end];
            if since.elapsed() >= self.idle_limit {
                // The ones before it are older still.
                idle.senders.drain(..=from_end);
                return None;
            }
            if sender.is_closed() {
                idle.senders.remove(from_end);
            } else if sender.is_ready() {
                return Some(idle.senders.remove(from_end).0);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn keep(target: &Arc<Target>, sender: Sender) {
        let pool = &target.pool;
        if sender.is_closed() || pool.idle_limit.is_zero() {
            return;
        }
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.senders.len() >= pool.idle_count {
            return;
        }
        idle.senders.push((sender, Instant::now()));
        if !std::mem::replace(&mut idle.reaper_runs, true) {
            drop(idle);
            pool.drive(reap(Arc::downgrade(target), pool.idle_limit));
        }
    }

    /// Lets go of all kept connections.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).senders.clear();
    }

    /// Opens a connection; with `upgrades`, one that may become something else than HTTP.
    pub(crate) async fn connect(&self, upgrades: bool) -> Result<Sender, ConnectError> {
        let stream = tokio::time::timeout(self.connect, TcpStream::connect(self.address));
        let stream = stream.await.map_err(|_elapsed| ConnectError::Timeout)??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new().max_buf_size(self.header_bytes).handshake(TokioIo::new(stream)).await?;
        // How a connection ends is told to whoever sent a request over it.
        let driven = if upgrades {
            self.drive(async move { drop(connection.with_upgrades().await) })
        } else {
            self.drive(async move { drop(connection.await) })
        };
        if driven { Ok(sender) } else { Err(ConnectError::CutOff) }
    }

    fn drive(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if drivers.cut {
            return false;
        }
        while drivers.tasks.try_join_next().is_some() {}
        drivers.tasks.spawn(task);
        true
    }

    /// Ends every connection, whatever is on it, and opens no more. Requests without an answer see [`Pool::is_cut`].
    pub(crate) fn cut(&self) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.cut = true;
        drivers.tasks.abort_all();
        drop(drivers);
        self.clear();
    }

    /// Whether it was cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).cut
    }
}

/// Closes kept connections in time. Runs only while there are any, so that an idle proxy sleeps.
async fn reap(target: std::sync::Weak<Target>, idle_limit: Duration) {
    loop {
        tokio::time::sleep(idle_limit / 2).await;
        let Some(target) = target.upgrade() else { return };
        let mut idle = target.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.senders.retain(|(sender, since)| since.elapsed() < idle_limit && !sender.is_closed());
        if idle.senders.is_empty() {
            idle.senders.shrink_to_fit();
            idle.reaper_runs = false;
            return;
        }
    }
}

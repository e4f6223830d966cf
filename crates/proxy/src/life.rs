//! What a proxy does from its beginning to its end.

use std::net::TcpListener;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coracle_proxy_table::Admission;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::access_log;
use crate::chains::Kept;
use crate::control;
use crate::control::server::{Core, Door, Estate};
use crate::drain;
use crate::listener::{Accepting, Doorway, Listener};
use crate::scrape;
use crate::worker::{Job, Threads};

/// How long connections may take to end after everything on them was cut off.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What runs as long as the proxy does, and is ended by dropping it.
pub(crate) struct Life {
    core: Arc<Core>,
    /// Until they have ended.
    threads: Option<Threads>,
    drain: Duration,
    _log_writer: access_log::Writer,
}

impl Life {
    /// With these workers and this long to drain.
    pub(crate) fn new(core: Arc<Core>, threads: Threads, drain: Duration, log_writer: access_log::Writer) -> Self {
        Self { core, threads: Some(threads), drain, _log_writer: log_writer }
    }

    /// Begins, serves, drains, and returns.
    pub(crate) async fn live(
        mut self,
        doorways: Vec<(TcpListener, Arc<Listener>)>,
        doors: mpsc::UnboundedReceiver<Door>,
        scrapes: Option<TcpListener>,
    ) {
        let core = Arc::clone(&self.core);
        let mut accepting = core.accepting.subscribe();
        let mut control = JoinSet::new();
        control.spawn(control::server::serve(Arc::clone(&core), doors));
        control.spawn(core.file.clone().keep_durable());
        control.spawn(Kept::watch_files(Arc::downgrade(&core.plane)));
        let mut scraping = JoinSet::new();
        if let Some(socket) = scrapes {
            scraping.spawn(scrape::serve(Arc::clone(&core.plane), socket));
        }
        let mut all_closed = Vec::new();
        for ((socket, listener), worker) in doorways.into_iter().zip(core.plane.workers.iter().cycle()) {
            let (closed, until_closed) = oneshot::channel();
            worker.tell(Job::Accept(Doorway { socket, listener, accepting: core.accepting.subscribe(), closed }));
            all_closed.push(until_closed);
        }
        // `core` holds a sender, so there is always one.
        drop(accepting.wait_for(|accepting| *accepting != Accepting::Yes).await);
        // Whoever comes after has a socket of its own for this.
        drop(scraping);
        core.plane.close_connections();
        if let Some(tls) = &core.plane.tls {
            // What is there stays served; ordering is for whoever comes after.
            let certificates = Arc::clone(&tls.certificates);
            core.plane.spawn(async move { certificates.shutdown().await });
        }
        let estate = core.estate.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lock = estate.map(|Estate { sockets, lock }| {
            drop(sockets);
            lock
        });
        futures::future::join_all(all_closed).await;
        if *core.accepting.borrow() == Accepting::Stopped
            && let Err(error) = std::fs::remove_file(&core.socket)
        {
            tracing::debug!(%error, "the control socket is gone already");
        }
        // From here on another proxy can start.
        drop(lock);
        self.serve_the_last().await;
        if let Some(threads) = self.threads.take() {
            threads.end().await;
        }
        core.close_side_door();
        control.shutdown().await;
        if let Err(error) = core.file.make_durable() {
            tracing::error!(%error, "the routing table would not outlive this machine");
        }
    }

    /// Serves what is connected, until it is through or the deadline passes.
    async fn serve_the_last(&self) {
        let plane = &self.core.plane;
        if timeout(self.drain, plane.until_idle()).await.is_ok() {
            return;
        }
        let mut table = coracle_proxy_table::Table::clone(&plane.snapshot().table);
        for service in table.services.values_mut() {
            service.targets.clear();
            service.admission = Admission::Closed { message: "The proxy is stopping.\n".to_owned(), retry_after_s: 1 };
        }
        // It is the one that is served by, with fewer targets.
        if let Ok(closed) = plane.prepare(table) {
            plane.install(closed);
        }
        let cut_off = drain::cut_all(plane).await;
        tracing::info!(cut_off, "the drain deadline has passed");
        // What still has an answer to read gets it; those who wait for nothing are closed.
        drop(timeout(LAST_WORDS, plane.until_idle()).await);
        plane.kill_tasks();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.core.plane.kill_tasks();
    }
}

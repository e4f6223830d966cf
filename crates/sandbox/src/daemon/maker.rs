//! The daemon's side of the maker: orders, and the reports that belong to them.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::process::Process;
use super::watched;
use crate::maker::{self, Order, Report};

/// How long making anything may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// The maker, as seen from the daemon.
#[derive(Debug)]
pub(super) struct Maker {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU32,
    /// Who waits for reports on an order.
    waiting: Mutex<HashMap<u32, mpsc::UnboundedSender<Report>>>,
}

impl Maker {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = watched::both_ways(socket)?;
        // The first numbers are those of the images.
        Ok(Self { socket, next: AtomicU32::new(1 << 16), waiting: Mutex::default() })
    }

    /// Hears what became of the images' roots, one report each.
    pub(super) async fn roots(&self, images: usize) -> io::Result<Vec<Result<(), String>>> {
        let mut roots = Vec::new();
        while roots.len() < images {
            match self.report().await? {
                Report::Failed { why, .. } => roots.push(Err(why)),
                _ => roots.push(Ok(())),
            }
        }
        Ok(roots)
    }

    /// Hands reports to those who wait for them, until the maker is gone.
    pub(super) async fn attend(&self) -> io::Error {
        loop {
            let report = match self.report().await {
                Ok(report) => report,
                Err(error) => return error,
            };
            let (Report::Started { id, .. } | Report::Ready { id } | Report::Failed { id, .. }) = &report;
            let abandoned = match self.lock().get(id) {
                Some(waiting) => waiting.send(report).err().map(|unsent| unsent.0),
                None => Some(report),
            };
            // Somebody gave up waiting: what was started for him must not stay.
            if let Some(Report::Started { pid, .. }) = abandoned {
                drop(adopt(pid));
            }
        }
    }

    async fn report(&self) -> io::Result<Report> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| maker::read_report(socket.get_ref())) {
                Ok(report) => return report?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
                Err(_would_block) => {}
            }
        }
    }

    /// Has PID 1 of a slot made and waits until it is ready.
    pub(super) async fn slot(&self, image: u32, seat: u32) -> Result<Process, String> {
        self.order(|id| Order::Slot { id, image, seat }, &[], true).await
    }

    /// Has a zygote started. It says by itself when it is warm.
    pub(super) async fn zygote(&self, image: u32, descriptors: &[BorrowedFd<'_>]) -> Result<Process, String> {
        self.order(|id| Order::Zygote { id, image }, descriptors, false).await
    }

    async fn order(
        &self,
        order: impl FnOnce(u32) -> Order,
        descriptors: &[BorrowedFd<'_>],
        wait: bool,
    ) -> Result<Process, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, mut reports) = mpsc::unbounded_channel();
        self.lock().insert(id, sender);
        let made = tokio::time::timeout(DEADLINE, async {
            self.send(order(id), descriptors).await.map_err(|error| format!("the maker takes no order: {error}"))?;
            collect(&mut reports, wait).await
        });
        let made = made.await.unwrap_or_else(|_| Err(format!("the maker did not answer within {} s", DEADLINE.as_secs())));
        self.lock().remove(&id);
        // A report that came in between is not lost either.
        if made.is_err() {
            reports.close();
            while let Ok(report) = reports.try_recv() {
                if let Report::Started { pid, .. } = report {
                    drop(adopt(pid));
                }
            }
        }
        made
    }

    async fn send(&self, order: Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| Ok(maker::send_order(socket.get_ref().as_fd(), order, descriptors)?));
            if let Ok(sent) = sent {
                return sent;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, mpsc::UnboundedSender<Report>>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Waits for the process and, if wanted, for its own word that it is ready. The two come in any order.
async fn collect(reports: &mut mpsc::UnboundedReceiver<Report>, wait: bool) -> Result<Process, String> {
    let (mut process, mut ready) = (None, !wait);
    loop {
        match process.take() {
            Some(process) if ready => return Ok(process),
            other => process = other,
        }
        match reports.recv().await {
            Some(Report::Started { pid, .. }) => process = Some(adopt(pid).map_err(|error| error.to_string())?),
            Some(Report::Ready { .. }) => ready = true,
            Some(Report::Failed { why, .. }) => return Err(why),
            None => return Err("the maker is gone".to_owned()),
        }
    }
}

pub(super) fn adopt(pid: i32) -> io::Result<Process> {
    Process::adopt(Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?)
}

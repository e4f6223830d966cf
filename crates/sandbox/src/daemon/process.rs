//! A child of the daemon, by its pidfd: waited for, killed and reaped without its number ever meaning another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use super::watched;

/// How a process ended, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// A child that has not been waited for. Dropping it kills it and lets somebody else wait.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// `None` when it has been reaped.
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl Process {
    /// Takes over a child that nobody has waited for yet, whose number is therefore still its own.
    pub(super) fn adopt(pid: Pid) -> io::Result<Self> {
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, descriptor: Some(watched::readable(descriptor)?) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().map(|descriptor| descriptor.get_ref().as_fd())
    }

    /// Ends it. One that has ended already is what was wanted.
    pub(super) fn kill(&self) {
        if let Some(descriptor) = &self.descriptor {
            rustix::process::pidfd_send_signal(descriptor.get_ref(), Signal::KILL).ok();
        }
    }

    /// Whether it has ended, without waiting; reaps it then.
    pub(super) fn try_ended(&mut self) -> io::Result<Option<Ended>> {
        let Some(descriptor) = &self.descriptor else { return Err(io::ErrorKind::NotFound.into()) };
        let ended = wait(descriptor)?;
        if ended.is_some() {
            self.descriptor = None;
        }
        Ok(ended)
    }

    /// Waits until it has ended, and reaps it. May be given up and called again.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.try_ended()? {
                return Ok(ended);
            }
            if let Some(descriptor) = &self.descriptor {
                descriptor.readable().await?.clear_ready();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let (Some(descriptor), Ok(runtime)) = (self.descriptor.take(), tokio::runtime::Handle::try_current()) {
            // Ends as soon as the kernel has ended the process; with the runtime at the latest.
            runtime.spawn(reap(descriptor));
        }
    }
}

async fn reap(descriptor: AsyncFd<OwnedFd>) {
    loop {
        match wait(&descriptor) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        match descriptor.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => return,
        }
    }
}

/// Reaps it if it has ended.
fn wait(descriptor: &AsyncFd<OwnedFd>) -> io::Result<Option<Ended>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(WaitId::PidFd(descriptor.get_ref().as_fd()), options)?;
    Ok(status.map(|status| Ended { code: status.exit_status(), signal: status.terminating_signal() }))
}

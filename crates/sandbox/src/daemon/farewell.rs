//! A worker's last call, of which the kernel tells before it takes the process down.
//!
//! Giving back the memory of an interpreter takes longer than running a short program, and the kernel says that a process has
//! ended only then. So a worker's filter (`seccomp::programs`) holds its last exit_group(2) until the daemon has heard of it
//! (seccomp_unotify(2)): the code that it ends with is in the kernel's own copy of the arguments, and nothing that the program
//! still does can change it. The call is never answered; the worker is killed where it waits.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;

use super::watched;

/// Where the kernel tells of a worker's last call. When it is dropped, calls that wait there fail, and the worker ends as any
/// process does.
#[derive(Debug)]
pub(super) struct Farewell {
    listener: AsyncFd<OwnedFd>,
    worker: i32,
}

impl Farewell {
    /// `worker` is the process whose last call matters. What it starts has its filter too.
    pub(super) fn new(listener: OwnedFd, worker: i32) -> io::Result<Self> {
        Ok(Self { listener: watched::readable(listener)?, worker })
    }

    /// Waits for the worker's last call and answers the code that it ends with; `None` if nothing will be heard of it here: it
    /// has ended otherwise, or somebody else has made the call. May be given up and called again.
    pub(super) async fn code(&self) -> Option<i32> {
        self.listener.readable().await.ok()?.clear_ready();
        // When all who have the filter are dead, it can be read as well, and reading waits for ever.
        let mut here = [PollFd::new(self.listener.get_ref(), PollFlags::IN)];
        poll(&mut here, Some(&Timespec::default())).ok()?;
        if !here.iter().all(|here| here.revents().contains(PollFlags::IN)) {
            return None;
        }
        let call = receive(self.listener.get_ref()).ok()?;
        let [code, ..] = call.data.args;
        (i32::try_from(call.pid) == Ok(self.worker)).then_some(i32::try_from(code & 0xFF).unwrap_or(0))
    }
}

/// The same for one that may not be there.
pub(super) async fn code(farewell: Option<&Farewell>) -> Option<i32> {
    match farewell {
        Some(farewell) => farewell.code().await,
        None => std::future::pending().await,
    }
}

/// Takes the call that waits.
fn receive(listener: &OwnedFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: the structure is plain data for which all zeros is a value, and the one that the kernel wants; the kernel writes
    // no more than its size, which is part of the request's number.
    unsafe {
        let mut call = std::mem::zeroed::<libc::seccomp_notif>();
        if libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(call)
    }
}

//! A child of the daemon, by its pidfd: waited for, killed and reaped without its number ever meaning another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

use super::watched;

/// How a process ended, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    /// What it and the children that it waited for have used: processor time in microseconds, and the most memory that one
    /// of them had.
    pub(super) cpu_us: u64,
    pub(super) memory_peak: u64,
    /// Whether somebody says that it reached its memory limit.
    pub(super) oom: bool,
}

impl Ended {
    /// Nothing is known about how it ended.
    pub(super) const UNKNOWN: Self = Self { code: None, signal: None, cpu_us: 0, memory_peak: 0, oom: false };
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

/// Reaps it if it has ended. The C library's waitid(2) leaves out what the child has used; the kernel's does not.
#[allow(unsafe_code)]
fn wait(descriptor: &AsyncFd<OwnedFd>) -> io::Result<Option<Ended>> {
    // SAFETY: both structures are plain data for which all zeros is a value; the kernel writes no more than their size.
    let (info, used) = unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let mut used = std::mem::zeroed::<libc::rusage>();
        let answer = libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            descriptor.get_ref().as_raw_fd(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
            &raw mut used,
        );
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        if info.si_pid() == 0 {
            return Ok(None);
        }
        ((info.si_code, info.si_status()), used)
    };
    let time = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    let (how, number) = info;
    let exited = how == libc::CLD_EXITED;
    Ok(Some(Ended {
        code: exited.then_some(number),
        signal: (!exited).then_some(number),
        cpu_us: time(used.ru_utime) + time(used.ru_stime),
        memory_peak: u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024,
        oom: false,
    }))
}

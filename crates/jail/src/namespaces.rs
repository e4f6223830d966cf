//! Namespaces: what a process sees of mounts, processes, shared memory and the host name.
#![allow(unsafe_code)] // unshare(2) is unsafe in rustix because of descriptor tables, which this module never splits.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::{JailError, Step};

/// A set of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Processes. Takes effect for the next child, which becomes PID 1: when it ends, the kernel kills all others in there.
    pub pid: bool,
    /// Mounts.
    pub mount: bool,
    /// System V and POSIX message queues, semaphores and shared memory.
    pub ipc: bool,
    /// The host name.
    pub uts: bool,
}

impl Namespaces {
    /// All of them.
    pub const ALL: Self = Self { pid: true, mount: true, ipc: true, uts: true };

    /// None of them.
    pub const NONE: Self = Self { pid: false, mount: false, ipc: false, uts: false };

    /// Whether there is any.
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    /// The same set without the one for processes.
    pub fn without_pid(self) -> Self {
        Self { pid: false, ..self }
    }

    /// Puts this process into new ones.
    pub fn unshare(self) -> Result<(), JailError> {
        let flags = [
            (self.pid, UnshareFlags::NEWPID),
            (self.mount, UnshareFlags::NEWNS),
            (self.ipc, UnshareFlags::NEWIPC),
            (self.uts, UnshareFlags::NEWUTS),
        ];
        for (_, flag) in flags.into_iter().filter(|(wanted, _)| *wanted) {
            // SAFETY: only namespaces are unshared, never the table of descriptors.
            unsafe { rustix::thread::unshare_unsafe(flag) }.step(|| format!("unshare {flag:?}"))?;
        }
        Ok(())
    }

    /// Puts this process into those of another one, given by its pidfd (Linux 5.8).
    pub fn join(self, process: BorrowedFd<'_>) -> Result<(), JailError> {
        let types = [
            (self.pid, ThreadNameSpaceType::PROCESS_ID),
            (self.mount, ThreadNameSpaceType::MOUNT),
            (self.ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
            (self.uts, ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ];
        let types = types.into_iter().filter(|(wanted, _)| *wanted).fold(ThreadNameSpaceType::empty(), |all, (_, one)| all | one);
        if types.is_empty() {
            return Ok(());
        }
        rustix::thread::move_into_thread_name_spaces(process.as_fd(), types)
            .step(|| "join the namespaces of the instance".to_owned())
    }
}

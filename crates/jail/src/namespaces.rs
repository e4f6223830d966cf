//! Namespaces: what a process sees of mounts, processes, shared memory and the host name.
#![allow(unsafe_code)] // unshare(2) is unsafe in rustix because of descriptor tables, which this module never splits.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::WaitOptions;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::process::{Fork, exit_now, fork};
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

    /// The flags of clone(2).
    pub(crate) fn flags(self) -> u64 {
        [
            (self.pid, libc::CLONE_NEWPID),
            (self.mount, libc::CLONE_NEWNS),
            (self.ipc, libc::CLONE_NEWIPC),
            (self.uts, libc::CLONE_NEWUTS),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |all, (_, flag)| all | u64::from(flag.cast_unsigned()))
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

/// A namespace of one kind, held by a descriptor: it lives as long as this does, with or without processes in it.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    kind: LinkNameSpaceType,
}

impl Namespace {
    /// The mount namespace that this process is in.
    pub fn current_mount() -> Result<Self, JailError> {
        Self::open("self", "mnt", LinkNameSpaceType::Mount)
    }

    /// A new, empty network: not even the loopback interface is up. This process is in it afterwards.
    pub fn new_network(proc: BorrowedFd<'_>) -> Result<Self, JailError> {
        // SAFETY: only a namespace is unshared, never the table of descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.step(|| "unshare the network".to_owned())?;
        Self::open_in(proc, "self", "net", LinkNameSpaceType::Network)
    }

    /// A new user namespace in which one user of this one appears under another number, and nobody else exists. This
    /// process stays outside. Needs the privilege to map users, and a `proc` that shows this process's children.
    pub fn new_users(proc: BorrowedFd<'_>, inside: crate::User, outside: crate::User) -> Result<Self, JailError> {
        let step = || "make a user namespace".to_owned();
        let (child_reads, release) = std::io::pipe().step(step)?;
        let (reader, child_tells) = std::io::pipe().step(step)?;
        match fork().step(step)? {
            Fork::Child => {
                drop((release, reader));
                // SAFETY: only a namespace is unshared, never the table of descriptors.
                if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.is_ok() {
                    rustix::io::write(&child_tells, b"+").ok();
                }
                drop(child_tells);
                // Stays until the parent has opened the namespace.
                rustix::io::read(&child_reads, &mut [0_u8; 1]).ok();
                exit_now(0)
            }
            Fork::Parent(child) => {
                drop((child_reads, child_tells));
                let mut told = [0_u8; 1];
                let made = rustix::io::read(&reader, &mut told).is_ok_and(|bytes| bytes == 1);
                let namespace = if made {
                    Self::map(proc, child.as_raw_nonzero().get(), inside, outside)
                } else {
                    Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied)).step(step)
                };
                drop(release);
                rustix::process::waitpid(Some(child), WaitOptions::empty()).step(step)?;
                namespace
            }
        }
    }

    fn map(proc: BorrowedFd<'_>, pid: i32, inside: crate::User, outside: crate::User) -> Result<Self, JailError> {
        for (file, inside, outside) in [("uid_map", inside.uid, outside.uid), ("gid_map", inside.gid, outside.gid)] {
            let path = format!("{pid}/{file}");
            let map = rustix::fs::openat(proc, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            map.and_then(|map| rustix::io::write(&map, format!("{inside} {outside} 1").as_bytes()))
                .step(|| format!("map {outside} to {inside} in {file}"))?;
        }
        Self::open_in(proc, &pid.to_string(), "user", LinkNameSpaceType::User)
    }

    fn open(process: &str, name: &str, kind: LinkNameSpaceType) -> Result<Self, JailError> {
        let proc = File::open("/proc").step(|| "open /proc".to_owned())?;
        Self::open_in(proc.as_fd(), process, name, kind)
    }

    fn open_in(proc: BorrowedFd<'_>, process: &str, name: &str, kind: LinkNameSpaceType) -> Result<Self, JailError> {
        let path = format!("{process}/ns/{name}");
        let descriptor = rustix::fs::openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open /proc/{path}"))?;
        Ok(Self { descriptor, kind })
    }

    /// Puts this process into the namespace.
    pub fn enter(&self) -> Result<(), JailError> {
        rustix::thread::move_into_link_name_space(self.descriptor.as_fd(), Some(self.kind))
            .step(|| format!("enter a namespace ({:?})", self.kind))
    }
}

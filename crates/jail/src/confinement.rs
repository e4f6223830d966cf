//! What a process gives up between its fork and its exec: its place in the cgroup tree, its user, its privileges.

use std::os::fd::OwnedFd;

use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::{JailError, Step};

/// A user and a group, by number: they need no entry in `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The only group.
    pub gid: u32,
}

/// Limits of each process of its own (getrlimit(2)); `None` leaves the inherited one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rlimits {
    /// Open descriptors. Where the hard limit is lower and may not be raised, that is taken.
    pub nofile: Option<u64>,
    /// Bytes of a core dump.
    pub core: Option<u64>,
}

/// Everything that is given up, in the order in which it must be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// The user to become; nobody else's groups are kept.
    pub user: Option<User>,
    /// Whether all capabilities go, for ever.
    pub drop_capabilities: bool,
    /// Whether set-user-id programs lose their effect, for ever.
    pub no_new_privileges: bool,
    /// Limits of each process.
    pub rlimits: Rlimits,
    /// Whether the process is killed when its parent dies.
    pub dies_with_parent: bool,
}

impl Confinement {
    /// Applies everything to this process, after it has gone through the `doors` of its cgroup. There is no way back, and
    /// after an error the process must not go on.
    pub fn enter(&self, doors: &[OwnedFd]) -> Result<(), JailError> {
        for door in doors {
            rustix::io::write(door, b"0").step(|| "join the cgroup".to_owned())?;
        }
        self.rlimits.apply()?;
        if self.drop_capabilities {
            empty_bounding_set()?;
        }
        if let Some(user) = self.user {
            user.become_it()?;
        }
        if self.drop_capabilities {
            let none = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).step(|| "drop capabilities".to_owned())?;
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).step(|| "set no_new_privs".to_owned())?;
        }
        if self.dies_with_parent {
            // After the change of user, which clears it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(|| "set the death signal".to_owned())?;
        }
        Ok(())
    }
}

impl User {
    fn become_it(self) -> Result<(), JailError> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&[]).step(|| "drop supplementary groups".to_owned())?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).step(|| format!("become group {}", self.gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step(|| format!("become user {}", self.uid))
    }
}

impl Rlimits {
    fn apply(&self) -> Result<(), JailError> {
        let set = |resource, value: u64, what: &str| {
            let limit = Rlimit { current: Some(value), maximum: Some(value) };
            let lowered = |error| match rustix::process::getrlimit(resource).maximum {
                Some(hard) if hard < value => {
                    rustix::process::setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
                }
                _ => Err(error),
            };
            rustix::process::setrlimit(resource, limit).or_else(lowered).step(|| format!("limit {what} to {value}"))
        };
        if let Some(files) = self.nofile {
            set(Resource::Nofile, files, "open files")?;
        }
        if let Some(bytes) = self.core {
            set(Resource::Core, bytes, "core dumps")?;
        }
        Ok(())
    }
}

/// Takes every capability out of the bounding set, so that no program can bring one back. The kernel says where they end.
fn empty_bounding_set() -> Result<(), JailError> {
    for bit in 0..63 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            // Without privileges there is nothing to take away, and nothing that exec would give.
            Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => break,
            Err(error) => return Err(error).step(|| format!("drop capability {bit} from the bounding set")),
        }
    }
    Ok(())
}

//! What this machine lets this user do: found out by trying it in a child that is thrown away, because every rule book
//! (capabilities, seccomp, sysctls, security modules) has exceptions.

use serde::{Deserialize, Serialize};

use crate::confinement::{Confinement, User};
use crate::file_system::FileSystem;
use crate::namespaces::Namespaces;
use crate::process::{Fork, exit_now, fork};
use crate::user_namespace::Standing;

/// What works. `Err` holds the reason why something does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// A pid namespace with a `/proc` of its own.
    pub processes: Result<(), String>,
    /// A mount namespace whose mounts can be made read-only.
    pub mounts: Result<(), String>,
    /// Shared memory and host name of one's own.
    pub ipc: Result<(), String>,
    /// Becoming another user.
    pub users: Result<(), String>,
}

impl Support {
    /// Nothing works, for this reason.
    pub fn nothing(why: &str) -> Self {
        let no = || Err(why.to_owned());
        Self { processes: no(), mounts: no(), ipc: no(), users: no() }
    }

    /// The same for whoever is not the machine's root: in a user namespace in which it is root, which an ordinary user makes
    /// for the attempt.
    pub fn try_out_as_root_of_own() -> Self {
        // The attempt is made in a child, so that this process stays who it is; the child has children of its own.
        let tried = in_child(|| {
            if Standing::now() == Standing::Ordinary {
                crate::user_namespace::become_root().map_err(text)?;
            }
            let Self { processes, mounts, ipc, users: _ } = Self::try_out();
            processes.and(mounts).and(ipc)
        });
        Self { processes: tried.clone(), mounts: tried.clone(), ipc: tried.clone(), users: tried }
    }

    /// What does not work, or nothing.
    pub fn trouble(&self) -> Option<&str> {
        [&self.processes, &self.mounts, &self.ipc, &self.users]
            .into_iter()
            .find_map(|tried| tried.as_ref().err().map(String::as_str))
    }

    /// Tries everything. Only for a process with a single thread, which is left as it was.
    pub fn try_out() -> Self {
        Self {
            processes: in_child(|| {
                Namespaces { pid: true, mount: true, ..Namespaces::NONE }.unshare().map_err(text)?;
                // Only a child is in the new pid namespace, so only it may mount its /proc.
                in_child(|| FileSystem { proc: true, ..FileSystem::default() }.apply().map_err(text))
            }),
            mounts: in_child(|| {
                Namespaces { mount: true, ..Namespaces::NONE }.unshare().map_err(text)?;
                let view = FileSystem { private: vec!["/tmp".into()], read_only: true, ..FileSystem::default() };
                view.apply().map_err(text)
            }),
            ipc: in_child(|| Namespaces { ipc: true, uts: true, ..Namespaces::NONE }.unshare().map_err(text)),
            users: in_child(|| {
                let user = Some(User { uid: 65_534, gid: 65_534 });
                Confinement { user, drop_capabilities: true, ..Confinement::default() }.enter(&[]).map_err(text)
            }),
        }
    }
}

fn text(error: crate::JailError) -> String {
    error.to_string()
}

/// Runs `attempt` in a child and brings back its error through a pipe.
fn in_child(attempt: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    match fork().map_err(|error| error.to_string())? {
        Fork::Child => {
            drop(reader);
            if let Err(why) = attempt() {
                drop(std::io::Write::write_all(&mut &writer, why.as_bytes()));
            }
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop(writer);
            let why = std::io::read_to_string(reader).map_err(|error| error.to_string())?;
            let waited = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            if why.is_empty() { waited.map(|_| ()).map_err(|error| error.to_string()) } else { Err(why) }
        }
    }
}

//! Where a running server keeps what lives no longer than itself: one directory for each port it can listen on.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::settings::User;

/// Users on the machine that one server's sandboxes may have.
const SEATS: u32 = 4096;

/// Places whose users are told apart: all ports, and as many others.
const MOST_PLACES: u32 = 1 << 17;

/// The file with the number of the process whose place it is.
const PROCESS: &str = "process";

/// Numbers of servers are ports; those of runs come after them.
const FIRST_RUN: u32 = 1 << 16;

/// The first of them all.
const FIRST_SEAT: u32 = 2_000_000_000;

/// The place of the server that listens on a port. Two servers on one machine, as during a deployment, never have the same.
#[derive(Debug, Clone)]
pub struct Place {
    number: u32,
    directory: PathBuf,
}

impl Place {
    /// The place for a port: below `/run/pyrunner` for root, else below `$XDG_RUNTIME_DIR` or the temporary directory.
    pub fn of(port: u16) -> Self {
        let user = rustix::process::geteuid();
        let base = if user.is_root() {
            PathBuf::from("/run/pyrunner")
        } else {
            let own = std::env::var_os("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("pyrunner"));
            own.unwrap_or_else(|| std::env::temp_dir().join(format!("pyrunner-{}", user.as_raw())))
        };
        Self { number: u32::from(port), directory: base.join(format!("port-{port}")) }
    }

    /// A place as told: a child has another user, and what is no server has no port. The numbers of servers are their ports.
    pub fn at(number: u32, directory: PathBuf) -> Self {
        Self { number, directory }
    }

    /// What tells it from all others on the machine.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The sandbox daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sandbox.sock")
    }

    /// The user on the machine of the first sandbox.
    pub fn first_uid(&self) -> u32 {
        FIRST_SEAT + self.number % MOST_PLACES * SEATS
    }

    /// Makes the directory, which others can pass through and only the owner can write to, for this process.
    pub fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o711))?;
        std::fs::write(self.directory.join(PROCESS), std::process::id().to_string())
    }

    /// Removes it, when the server has ended.
    pub fn remove(&self) {
        for name in ["sandbox.sock", "sandbox.sock.lock", PROCESS] {
            std::fs::remove_file(self.directory.join(name)).ok();
        }
        std::fs::remove_dir(&self.directory).ok();
    }
}

/// Removes the places whose processes were killed. A process that has a dead one's number by now keeps that place a while longer.
pub fn sweep() {
    let server = Place::of(0);
    let Some(base) = server.directory().parent() else { return };
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let process = std::fs::read_to_string(entry.path().join(PROCESS)).ok().and_then(|process| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            Place::at(0, entry.path()).remove();
        }
    }
}

/// The place of a run of a single program by this process.
pub fn place_of_run() -> Place {
    let process = std::process::id();
    let server = Place::of(0);
    Place::at(FIRST_RUN + process % FIRST_RUN, server.directory().with_file_name(format!("run-{process}")))
}

/// Makes the directory of what is kept, readable by the API's user alone.
pub fn make_state_dir(path: &Path, user: Option<User>) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    let Some(user) = user else { return Ok(()) };
    chown(path, Some(user.uid), Some(user.gid))?;
    // What an earlier server wrote as another user.
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_string_lossy().starts_with("pyrunner.db") {
            chown(entry.path(), Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

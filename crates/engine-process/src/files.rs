//! What lies where in the engine's directory, and how it is written: whole or not at all.
//!
//! ```text
//! bin/coracle                     the program, for commands that releases keep (static sites)
//! instances/<id>/                 pid.json exit.json lock log log.1 log.2 home/
//! slugs/<app>/<slug>/             slug.json tree/
//! deps/<app>/<hash>/              installed dependencies, with `.complete` when they are
//! cache/<app>/                    HOME of builds: download caches
//! volumes/<app>/<name>/           what outlives releases
//! users.json                      the uid of each app
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_engine::Exit;
use coracle_model::{AppName, InstanceId, VolumeName};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::task::ShimRecord;

/// How many log files are kept, the current one included.
pub(crate) const LOG_FILES: u32 = 3;

/// The engine's directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the program is found by commands that releases keep, wherever it was installed to.
    pub(crate) fn program(&self) -> PathBuf {
        self.root.join("bin/coracle")
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances().join(id.to_string())
    }

    pub(crate) fn slugs(&self, app: &AppName) -> PathBuf {
        self.root.join("slugs").join(app.as_str())
    }

    pub(crate) fn dependencies(&self, app: &AppName) -> PathBuf {
        self.root.join("deps").join(app.as_str())
    }

    pub(crate) fn cache(&self, app: &AppName) -> PathBuf {
        self.root.join("cache").join(app.as_str())
    }

    pub(crate) fn volumes(&self, app: &AppName) -> PathBuf {
        self.root.join("volumes").join(app.as_str())
    }

    pub(crate) fn volume(&self, app: &AppName, name: &VolumeName) -> PathBuf {
        self.volumes(app).join(name.as_str())
    }

    pub(crate) fn users(&self) -> PathBuf {
        self.root.join("users.json")
    }
}

/// The directory of an instance, held open: it can be written to whatever the holder's view of the file system becomes.
pub(crate) struct InstanceDir {
    directory: OwnedFd,
    /// The claim of the one shim that may run the instance. Goes with the process.
    lock: Option<OwnedFd>,
}

impl InstanceDir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(path, flags, Mode::empty())?, lock: None })
    }

    /// Claims the instance. Fails at once if another shim has it.
    pub(crate) fn lock(mut self) -> io::Result<Self> {
        let lock = self.create("lock", OFlags::RDWR)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        self.lock = Some(lock);
        Ok(self)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { directory: self.directory.as_fd().try_clone_to_owned()?, lock: None })
    }

    fn create(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::openat(&self.directory, name, flags | OFlags::CREATE | OFlags::CLOEXEC, mode)?)
    }

    fn write_whole(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let temporary = format!("{name}.new");
        let mut file = File::from(self.create(&temporary, OFlags::WRONLY | OFlags::TRUNC)?);
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(&self.directory, &temporary, &self.directory, name)?)
    }

    pub(crate) fn write_pid(&self, record: &ShimRecord) -> io::Result<()> {
        self.write_whole("pid.json", record)
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        self.write_whole("exit.json", exit)
    }

    pub(crate) fn create_log(&self) -> io::Result<File> {
        self.create(&log_name(0), OFlags::WRONLY | OFlags::TRUNC | OFlags::APPEND).map(File::from)
    }

    pub(crate) fn rename_log(&self, from: u32, to: u32) {
        // The first rotations have nothing to rename further up.
        rustix::fs::renameat(&self.directory, log_name(from), &self.directory, log_name(to)).ok();
    }
}

/// The file that holds the lines before those of the file numbered one less.
pub(crate) fn log_name(number: u32) -> String {
    if number == 0 { "log".to_owned() } else { format!("log.{number}") }
}

/// Reads a JSON file. `None` if there is none; [`io::ErrorKind::InvalidData`] if it is damaged.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        // One that was cut off is as damaged as one with nonsense in it.
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a JSON file, private, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes a directory and those above it, with that mode for the last one.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// How often a tree is removed again because somebody who is just ending still writes into it.
const REMOVALS: u32 = 20;

/// Removes a tree, read-only directories included. One that is gone is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut outcome = remove_once(path);
    for _ in 0..REMOVALS {
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(std::time::Duration::from_millis(25));
                outcome = remove_once(path);
            }
            _ => break,
        }
    }
    outcome
}

fn remove_once(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => {}
    }
    // An ordinary user must be able to write to a directory to take something out of it.
    for entry in walkdir::WalkDir::new(path).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_dir()) {
        std::fs::set_permissions(entry.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    std::fs::remove_dir_all(path)
}

/// Gives a file or directory to a user, without following links.
pub(crate) fn give_to(path: &Path, user: Option<coracle_jail::User>) -> io::Result<()> {
    user.map_or(Ok(()), |user| std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)))
}

/// Lets a user's group look at a file or directory of this process's own, without following links.
pub(crate) fn give_group(path: &Path, user: Option<coracle_jail::User>) -> io::Result<()> {
    user.map_or(Ok(()), |user| std::os::unix::fs::lchown(path, Some(0), Some(user.gid)))
}

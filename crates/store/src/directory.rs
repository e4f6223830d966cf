//! The state directory: who may enter, who works in it, and how files in it come to be.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::StoreError;

/// How long a server that is just ending may keep its successor waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// A directory that is there.
pub(crate) struct Directory(PathBuf);

/// The right to work in a directory, given back on drop (and by the kernel, if the process dies).
pub(crate) struct Lock {
    _file: File,
}

impl Directory {
    /// Makes the directory, for its owner alone, if it is not there. One that is there stays as it is.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::io("create the state directory", &path.display().to_string(), &error))?;
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("coracle.db")
    }

    /// Where a database is made before it gets its name.
    pub(crate) fn unfinished_database(&self) -> PathBuf {
        self.0.join("coracle.db.new")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("secret.key")
    }

    /// Whether there is a database. Its write-ahead log without it is a sign of a loss that must not be covered up: SQLite
    /// would mix it into a new database of the same name.
    pub(crate) fn has_database(&self) -> Result<bool, StoreError> {
        let path = self.database();
        let exists = |path: &Path| {
            let exists = path.try_exists();
            exists.map_err(|error| StoreError::io("look for the database", &path.display().to_string(), &error))
        };
        let there = exists(&path)?;
        let log = path.with_extension("db-wal");
        if !there && exists(&log)? {
            let cause = format!("it is missing, although {} is there", log.display());
            return Err(StoreError::Corrupt { path: path.display().to_string(), cause });
        }
        Ok(there)
    }

    /// Takes the directory for this process.
    pub(crate) async fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.0.join("server.lock");
        let failed = |error: &std::io::Error| StoreError::io("lock the state directory", &path.display().to_string(), error);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(|error| failed(&error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // The number is a help, not more: without it the error still says what to do.
                    file.read_to_string(&mut holder).ok();
                    return Err(StoreError::Locked { path: self.0.display().to_string(), pid: holder.trim().parse().ok() });
                }
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
            }
        }
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| failed(&error))?;
        Ok(Lock { _file: file })
    }
}

/// Writes a private file whole or not at all, and never over one that is there.
pub(crate) fn write_new_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    remove_if_there(&temporary)?;
    let mut file = create_private(&temporary)?;
    file.write_all(content)?;
    finish_as(&file, &temporary, path)
}

/// An empty file for its owner alone.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a finished file its name, durably. A file that has the name already is an error, not replaced.
pub(crate) fn finish_as(file: &File, temporary: &Path, path: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    // The lock keeps other servers out, so nobody makes the file between this look and the renaming.
    if path.try_exists()? {
        return Err(std::io::Error::new(ErrorKind::AlreadyExists, "it exists already"));
    }
    std::fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

pub(crate) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Takes rights from group and others, if they have any.
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    let permissions = std::fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 == 0 { Ok(()) } else { std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) }
}

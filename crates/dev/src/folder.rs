//! A folder that is developed: its owner id, its state, and that only one session runs in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_engine::{Engine, EngineError};
use coracle_model::{AppName, OwnerId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::DevError;

/// How long an instance that is left over may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The label that names the folder on everything that can bear one.
pub(crate) const FOLDER_LABEL: &str = "dev.coracle.dev.folder";

/// A folder, and where its state is kept.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    state: PathBuf,
    owner: OwnerId,
}

/// What is remembered of a folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// For people who wonder what the directory is.
    folder: PathBuf,
    /// The apps that ran there, for their volumes.
    apps: Vec<AppName>,
}

impl Folder {
    /// The folder, with state beneath `state`.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn new(path: &Path, state: &Path) -> Result<Self, DevError> {
        let failed = |source| DevError::State { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(failed)?;
        let hash = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
        let owner: OwnerId = hash[..16].parse().unwrap_or_else(|_| unreachable!("a hash is hexadecimal"));
        Ok(Self { state: state.join(owner.as_str()), path, owner })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its state is kept.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What everything created for it bears.
    pub fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Takes the folder for this process, until what is answered is dropped.
    ///
    /// # Errors
    /// Another process has it.
    pub fn hold(&self) -> Result<Holding, DevError> {
        let path = self.state.join("lock");
        let failed = |source| DevError::State { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.state).map_err(failed)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let mut file = options.open(&path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            return Err(DevError::Held { folder: self.path.clone(), process: text.trim().parse().ok() });
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Holding { _file: file })
    }

    /// Remembers that an app runs here, so that [`take_down`] finds what it leaves.
    ///
    /// # Errors
    /// The folder's state cannot be written.
    pub fn remember(&self, app: &AppName) -> Result<(), DevError> {
        let mut memory = self.memory()?;
        if memory.apps.contains(app) {
            return Ok(());
        }
        memory.apps.push(app.clone());
        memory.folder.clone_from(&self.path);
        let path = self.memory_file();
        let failed = |source| DevError::State { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(&memory).map_err(|error| failed(io::Error::other(error)))?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.state)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&path).map(drop).map_err(io::Error::from)
        };
        write().map_err(failed)
    }

    fn memory_file(&self) -> PathBuf {
        self.state.join("folder.json")
    }

    fn memory(&self) -> Result<Memory, DevError> {
        let path = self.memory_file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| DevError::State { path, source: io::Error::other(error) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(source) => Err(DevError::State { path, source }),
        }
    }
}

/// While this lives, nobody else develops the folder.
#[derive(Debug)]
pub struct Holding {
    _file: File,
}

/// Removes what a folder has on an engine: instances and networks, and with `volumes` also volumes and everything that was
/// built. Answers how many instances there were.
///
/// # Errors
/// The engine failed, or does not answer.
pub async fn take_down(folder: &Folder, engine: &Engine, volumes: bool) -> Result<usize, DevError> {
    let instances = engine.runtime.list().await?;
    let stops = instances.iter().map(|instance| engine.runtime.stop(&instance.id, GRACE));
    futures::future::join_all(stops).await.into_iter().collect::<Result<(), EngineError>>()?;
    let mut releases: Vec<_> = instances.iter().map(|instance| (instance.id.app.clone(), instance.id.release)).collect();
    let mut apps = folder.memory()?.apps;
    releases.extend(apps.iter().map(|app| (app.clone(), crate::making::first())));
    releases.sort();
    releases.dedup();
    for (app, release) in &releases {
        engine.runtime.remove_release(app, *release).await?;
    }
    if volumes {
        apps.extend(releases.into_iter().map(|(app, _)| app));
        apps.sort();
        apps.dedup();
        for app in &apps {
            engine.runtime.remove_app(app).await?;
            engine.builder.prune(app, &[]).await?;
        }
    }
    Ok(instances.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_session_at_a_time_and_the_other_one_is_named() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Folder::new(folder.path(), state.path()).unwrap();
        let held = one.hold().unwrap();
        let error = Folder::new(&folder.path().join("."), state.path()).unwrap().hold().unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        one.hold().unwrap();
    }

    #[test]
    fn folders_have_owners_of_their_own() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let owner = |path: &Path| Folder::new(path, Path::new("/state")).unwrap().owner().clone();
        assert_ne!(owner(a.path()), owner(b.path()));
    }
}

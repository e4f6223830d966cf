//! The door itself: all repositories, and the pushes that are under way.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{AppName, Bearer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::errand;
use crate::hook::{Hook, unmark};
use crate::push::{BranchTurns, Push, Ticket};
use crate::repository::Repository;

/// Why something could not be done with a repository.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The app has no repository.
    #[error("nothing has been pushed to {0} yet")]
    NoRepository(AppName),
    /// The ref names something else than when the push began.
    #[error("somebody else has pushed meanwhile")]
    Moved,
    /// The branch is not the one that is deployed, or is it by now.
    #[error("the branch that is deployed was changed meanwhile: it is {0}")]
    BranchChanged(String),
    /// The commit is too large to be deployed.
    #[error("the commit has more than {0} files")]
    TooManyFiles(u64),
    /// Git answers with more than is read: the only long answer is the list of refs.
    #[error("the repository has more branches and tags than {0} MiB can name")]
    TooManyRefs(u64),
    /// Git is not installed, or cannot be started.
    #[error("git cannot be started: {0}")]
    Start(std::io::Error),
    /// A program that git needs cannot be started.
    #[error("{program} cannot be started: {source}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Git says no.
    #[error("git says: {0}")]
    Git(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DoorError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// All repositories of a server. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// One repository per app, `APP.git`.
    repositories: PathBuf,
    /// Where git finds its hooks: names for Coracle's own program.
    pub(crate) hooks: PathBuf,
    /// Where git finds what starts `ssh`: a name for Coracle's own program.
    pub(crate) ssh: PathBuf,
    /// Where keys lie while something is fetched with them.
    pub(crate) keys: PathBuf,
    /// Where hooks reach the server.
    pub(crate) socket: PathBuf,
    pub(crate) tasks: TaskTracker,
    /// Fires when the server stops.
    pub(crate) stop: CancellationToken,
    making: tokio::sync::Mutex<()>,
    branch_turns: Arc<BranchTurns>,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    pushes: HashMap<Ticket, Arc<Push>>,
    /// One turn per app.
    turns: HashMap<AppName, Arc<tokio::sync::Mutex<()>>>,
}

impl Door {
    /// Opens the door: repositories lie in `dir`, hooks are `program`, and reach the server on `socket`. `tasks` own what runs,
    /// and `stop` ends it.
    pub fn open(
        dir: &Path,
        program: &Path,
        socket: &Path,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, DoorError> {
        let (repositories, hooks, keys) = (dir.join("repositories"), dir.join("hooks"), dir.join("keys"));
        // Keys of fetches that were cut off with their server.
        match std::fs::remove_dir_all(&keys) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(DoorError::file(&keys, error)),
            _ => {}
        }
        for path in [&repositories, &hooks, &keys] {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| DoorError::file(path, error))?;
        }
        forget_hooks(&hooks);
        let ssh = dir.join(errand::NAME);
        for path in Hook::ALL.iter().map(|hook| hooks.join(hook.name())).chain([ssh.clone()]) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(DoorError::file(&path, error)),
                _ => symlink(program, &path).map_err(|error| DoorError::file(&path, error))?,
            }
        }
        sweep(&repositories);
        let (making, shelf, socket) = (tokio::sync::Mutex::default(), Mutex::default(), socket.to_owned());
        let branch_turns = Arc::default();
        let inner = Inner { repositories, hooks, ssh, keys, socket, tasks, stop, making, branch_turns, shelf };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn path(&self, app: &AppName) -> PathBuf {
        self.inner.repositories.join(format!("{app}.git"))
    }

    /// The repository of an app, if it has one.
    pub fn repository(&self, app: &AppName) -> Option<Repository> {
        Repository::open(self.path(app))
    }

    /// The repository that something was pushed to.
    pub(crate) fn known(&self, app: &AppName) -> Result<Repository, DoorError> {
        self.repository(app).ok_or_else(|| DoorError::NoRepository(app.clone()))
    }

    /// The repository of an app, made if it is not there.
    pub async fn ensure(&self, app: &AppName) -> Result<Repository, DoorError> {
        let _making = self.inner.making.lock().await;
        match self.repository(app) {
            Some(repository) => Ok(repository),
            None => Repository::create(self.path(app)).await,
        }
    }

    /// Every app that has a repository.
    pub fn apps(&self) -> Vec<AppName> {
        let entries = std::fs::read_dir(&self.inner.repositories).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".git")?.parse().ok()).collect()
    }

    /// Forgets the repository of an app, if it has one. Pushes that are under way fail.
    pub async fn remove(&self, app: &AppName) -> Result<(), DoorError> {
        let turn = self.turn(app);
        let _turn = turn.lock().await;
        let (path, beside) = (self.path(app), self.inner.repositories.clone());
        let removing = path.clone();
        let removed = tokio::task::spawn_blocking(move || {
            // It is gone at once and whole, whoever writes into it meanwhile; what is left of it goes at the next start.
            let grave = tempfile::Builder::new().prefix(NEW).tempdir_in(beside)?;
            std::fs::rename(removing, grave.path())?;
            grave.close()
        });
        match removed.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(DoorError::file(&path, error)),
            _ => Ok(()),
        }
    }

    /// From now on this branch of an app is the one that is deployed; waits for a push that is under way. Makes the repository if it
    /// is not there.
    pub async fn set_branch(&self, app: &AppName, branch: &str) -> Result<(), DoorError> {
        let repository = self.ensure(app).await?;
        let turn = self.turn(app);
        let _turn = turn.lock().await;
        repository.set_branch(&format!("refs/heads/{branch}")).await
    }

    /// Tidies a repository up while everything else goes on; a server that stops does not wait for it.
    pub(crate) fn tidy(&self, repository: Repository) {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            if stop.run_until_cancelled(repository.tidy()).await.is_none() {
                tracing::debug!("a repository is tidied up another time");
            }
        });
    }

    /// The push that a ticket belongs to, while it is under way.
    pub fn push(&self, ticket: &Ticket) -> Option<Arc<Push>> {
        self.shelf().pushes.get(ticket).cloned()
    }

    pub(crate) fn begin(
        &self,
        app: &AppName,
        repository: Repository,
        by: Option<Bearer>,
        gone: CancellationToken,
    ) -> Result<(Ticket, Arc<Push>), DoorError> {
        let ticket = Ticket::new()?;
        let push = Arc::new(Push::new(app.clone(), repository, by, (self.turn(app), self.inner.branch_turns.clone()), gone));
        self.shelf().pushes.insert(ticket.clone(), push.clone());
        Ok((ticket, push))
    }

    pub(crate) fn ended(&self, ticket: &Ticket) {
        self.shelf().pushes.remove(ticket);
    }

    fn turn(&self, app: &AppName) -> Arc<tokio::sync::Mutex<()>> {
        let mut shelf = self.shelf();
        // Whoever has or wants a turn holds its handle.
        shelf.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        shelf.turns.entry(app.clone()).or_default().clone()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.inner.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the hooks that earlier versions had: git would run them.
fn forget_hooks(hooks: &Path) {
    for entry in std::fs::read_dir(hooks).into_iter().flatten().flatten() {
        if !Hook::ALL.iter().any(|hook| entry.file_name() == hook.name())
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a hook that is none any more stays");
        }
    }
}

/// What the names of directories begin with that are no repositories yet, or none any more.
pub(crate) const NEW: &str = "new-";

/// Removes repositories that were never finished, or not wholly removed, and what pushes left that were cut off with their server.
fn sweep(repositories: &Path) {
    for entry in std::fs::read_dir(repositories).into_iter().flatten().flatten() {
        let objects = entry.path().join("objects");
        let left = std::fs::read_dir(&objects).into_iter().flatten().flatten().map(|entry| (entry.file_name(), entry.path()));
        let unfinished = left.filter(|(name, _)| name.to_string_lossy().starts_with("tmp_objdir-")).map(|(_, path)| path);
        let never = entry.file_name().to_string_lossy().starts_with(NEW).then(|| entry.path());
        for path in unfinished.chain(never) {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::debug!(path = %path.display(), %error, "what an earlier push left stays");
            }
        }
        if let Err(error) = unmark(&objects) {
            tracing::debug!(path = %objects.display(), %error, "marks of an earlier push stay");
        }
    }
}

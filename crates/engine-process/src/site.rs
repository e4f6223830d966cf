//! What runtime and builder share: the directory, the means of confinement, the users.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_engine::{EngineError, InstanceEvent};
use coracle_jail::{Hierarchy, Support, User};
use coracle_model::{AppName, EngineKind, InstanceId, OwnerId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::confine::{Means, PRIVATE, SWITCHED_OFF, groups_of, is_reachable};
use crate::files::{Home, make_directory};
use crate::instance::{Shim, kill_marked};
use crate::users::Users;
use crate::{IsolationMode, ProcessOptions};

/// How long the shim may take to find out what works here.
const PROBE_SECONDS: i64 = 10;

/// How many events a slow listener may be behind.
const EVENTS: usize = 1024;

/// Directories that programs are looked for in, after those of the server's own PATH.
const STANDARD_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// An engine's place on this machine.
pub(crate) struct Site {
    pub(crate) owner: OwnerId,
    pub(crate) home: Home,
    pub(crate) program: PathBuf,
    pub(crate) means: Means,
    users: Users,
    events: broadcast::Sender<InstanceEvent>,
    /// Ends the tasks that watch instances when the engine is dropped.
    watchers: CancellationToken,
    _end_watchers: DropGuard,
    locks: Mutex<HashMap<InstanceId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Site {
    pub(crate) fn open(options: ProcessOptions) -> Result<Self, EngineError> {
        let failed = |what: &str, path: &Path| {
            let action = format!("{what} {}", path.display());
            move |error: std::io::Error| EngineError::io(action, &error)
        };
        make_directory(&options.dir, 0o711).map_err(failed("make", &options.dir))?;
        let dir = options.dir.canonicalize().map_err(failed("find", &options.dir))?;
        let program = options.program.canonicalize().map_err(failed("find", &options.program))?;
        let home = Home::new(dir);
        for part in ["bin", "instances", "slugs", "deps", "cache", "volumes"] {
            let path = home.root().join(part);
            make_directory(&path, 0o711).map_err(failed("make", &path))?;
        }
        link_program(&program, &home.program()).map_err(failed("link", &home.program()))?;
        let (support, hierarchy) = match options.isolation {
            IsolationMode::Auto => (probe(&program)?, Hierarchy::detect()),
            IsolationMode::None => (Support::nothing(SWITCHED_OFF), Hierarchy::None { why: SWITCHED_OFF.to_owned() }),
        };
        let means = Means::new(support, hierarchy, &home);
        let users = Users::open(home.users(), &options.owner).map_err(failed("read", &home.users()))?;
        let watchers = CancellationToken::new();
        let _end_watchers = watchers.clone().drop_guard();
        let events = broadcast::Sender::new(EVENTS);
        let locks = Mutex::default();
        Ok(Self { owner: options.owner, home, program, means, users, events, watchers, _end_watchers, locks })
    }

    /// The user of an app's programs; `None`: the server's own.
    pub(crate) fn user_of(&self, app: &AppName) -> Result<Option<User>, EngineError> {
        if !self.means.own_users {
            return Ok(None);
        }
        self.users.of(app).map(Some).map_err(|error| EngineError::io("choose a user for the app", &error))
    }

    pub(crate) fn forget_user(&self, app: &AppName) -> Result<(), EngineError> {
        self.users.forget(app).map_err(|error| EngineError::io("forget the user of the app", &error))
    }

    /// Where programs of an app are looked for: the server's PATH without what the app's user cannot enter, and the usual
    /// places.
    pub(crate) fn search_path(&self) -> Vec<PathBuf> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let own = std::env::split_paths(&own).filter(|path| path.is_absolute());
        let mut path: Vec<PathBuf> = own.filter(|path| self.can_enter(path)).collect();
        for standard in STANDARD_PATH.map(PathBuf::from) {
            if !path.contains(&standard) {
                path.push(standard);
            }
        }
        path
    }

    /// Whether an app's programs can look into a directory of the machine.
    fn can_enter(&self, path: &Path) -> bool {
        let hidden = self.means.has_mount_namespaces() && PRIVATE.iter().any(|private| path.starts_with(private));
        !hidden && (!self.means.own_users || is_reachable(path))
    }

    /// Whether an app's programs can run a program of the machine, wherever its links lead.
    pub(crate) fn can_run(&self, program: &Path) -> bool {
        program.canonicalize().is_ok_and(|real| real.parent().is_some_and(|place| self.can_enter(place)))
    }

    /// Waits for the turn to change an instance.
    pub(crate) async fn lock(&self, id: &InstanceId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(id.clone()).or_default())
        };
        lock.lock_owned().await
    }

    pub(crate) fn tell(&self, event: InstanceEvent) {
        // Nobody listening is fine.
        self.events.send(event).ok();
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<InstanceEvent> {
        self.events.subscribe()
    }

    /// Tells when a shim ends. The task ends with the shim or with the engine.
    pub(crate) fn watch(&self, id: InstanceId, shim: Shim) {
        let (events, stop) = (self.events.clone(), self.watchers.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    ended = shim.ended() => if ended.is_ok() {
                        events.send(InstanceEvent::Exited(id)).ok();
                    },
                }
            });
        }
    }

    /// Removes the groups of an instance or a build, with all that is in them.
    pub(crate) fn remove_group(&self, name: &str) -> Result<(), EngineError> {
        let Some(group) = self.means.hierarchy.find(&format!("{}/{name}", groups_of(self.owner.as_str()))) else { return Ok(()) };
        group.kill(Duration::from_secs(5));
        group
            .remove(Duration::from_secs(5))
            .map_err(|error| EngineError::Failed { action: "remove the cgroup".to_owned(), cause: error.to_string() })
    }

    /// Removes the groups whose names begin like that, and then the server's own if nothing is left in them.
    pub(crate) fn remove_groups(&self, begin: &str) -> Result<(), EngineError> {
        let base = groups_of(self.owner.as_str());
        for full in self.means.hierarchy.children(&base) {
            let name = full.strip_prefix(&format!("{base}/")).unwrap_or(&full);
            if name.starts_with(begin) {
                self.remove_group(name)?;
            }
        }
        self.remove_empty_groups();
        Ok(())
    }

    /// Removes the groups above those of instances, if nobody needs them.
    pub(crate) fn remove_empty_groups(&self) {
        let base = groups_of(self.owner.as_str());
        for name in [format!("{base}/supervisors"), base, "coracle".to_owned()] {
            if let Some(group) = self.means.hierarchy.find(&name) {
                group.remove_if_unused();
            }
        }
    }

    /// Kills what no namespace and no cgroup holds.
    pub(crate) async fn kill_strays(&self, id: &InstanceId) {
        if self.means.has_pid_namespaces() {
            return;
        }
        let home = crate::surroundings::text(&self.home.instance(id).join("home"));
        let markers = [format!("HOME={home}"), format!("{}={home}", crate::surroundings::MARKER)];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while kill_marked(&markers) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Releases keep commands that name the program, so it has a name that does not change with its place or version.
fn link_program(program: &Path, name: &Path) -> std::io::Result<()> {
    if std::fs::read_link(name).is_ok_and(|target| target == program) {
        return Ok(());
    }
    let temporary = name.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(program, &temporary)?;
    std::fs::rename(&temporary, name)
}

/// Lets a shim find out what works.
fn probe(program: &Path) -> Result<Support, EngineError> {
    let unavailable = |cause: String| EngineError::Unavailable { engine: EngineKind::Process, cause };
    let mut child = Command::new(program)
        .args(["shim", "--probe"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| unavailable(format!("{}: {error}", program.display())))?;
    let mut text = String::new();
    let answered = child.stdout.as_mut().is_some_and(|pipe| {
        let limit = Timespec { tv_sec: PROBE_SECONDS, tv_nsec: 0 };
        // It writes its answer at once, so what comes is all of it or the end. Children that end meanwhile interrupt the wait.
        let wait = || poll(&mut [PollFd::new(&*pipe, PollFlags::IN)], Some(&limit));
        let ready = rustix::io::retry_on_intr(wait).is_ok_and(|count| count > 0);
        ready && std::io::Read::read_to_string(pipe, &mut text).is_ok()
    });
    if !answered {
        child.kill().ok();
    }
    child.wait().map_err(|error| unavailable(error.to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| unavailable(format!("{} shim --probe gave no answer: {error}", program.display())))
}

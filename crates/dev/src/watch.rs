//! Files that change: a watch on every folder that matters, and changes told together once they have settled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::error::DevError;
use crate::stack::Stack;

/// Programs write a file in several steps, and people save several files at once.
const SETTLES: Duration = Duration::from_millis(100);
/// What keeps changing is told after this time all the same.
const AT_MOST: Duration = Duration::from_secs(1);

/// A running watch; dropping it ends it.
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// Watches what the rules of a stack are about, and the files that it was read from. `told` makes an event of paths that
    /// have changed. Returns when everything is watched that is there.
    pub(crate) async fn start<E: Send + 'static>(
        stack: &Stack,
        events: UnboundedSender<E>,
        told: impl Fn(BTreeSet<PathBuf>) -> E + Send + 'static,
    ) -> Result<Self, DevError> {
        let (send, changes) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The receiver is gone when the watch is.
            send.send(event).ok();
        });
        let watcher = watcher.map_err(|error| DevError::Watch(error.to_string()))?;
        let stack = Arc::new(stack.clone());
        let mut places = Places { watcher, stack, own: own_output(), known: BTreeSet::new() };
        let begun = tokio::task::spawn_blocking(move || places.begin().map(|()| places));
        let places = begun.await.map_err(|error| DevError::Watch(error.to_string()))??;
        Ok(Self(tokio::spawn(collect(places, changes, events, told))))
    }
}

/// The folders that are watched.
struct Places {
    watcher: RecommendedWatcher,
    /// Where this program's own output goes, if that is a file: told as a change, it would change again, without end.
    own: Vec<PathBuf>,
    stack: Arc<Stack>,
    known: BTreeSet<PathBuf>,
}

impl Places {
    fn begin(&mut self) -> Result<(), DevError> {
        let stack = Arc::clone(&self.stack);
        // Editors replace files, so it is the folder around a file that is watched.
        let parents = stack.files.iter().filter_map(|file| file.parent());
        let files = stack.rules().filter(|(_, rule)| !rule.path.is_dir()).filter_map(|(_, rule)| rule.path.parent());
        for folder in parents.chain(files) {
            self.add(folder)?;
        }
        for (_, rule) in stack.rules().filter(|(_, rule)| rule.path.is_dir()) {
            self.add_below(&rule.path, &mut BTreeSet::new())?;
        }
        Ok(())
    }

    fn add(&mut self, folder: &Path) -> Result<(), DevError> {
        if self.known.contains(folder) || !folder.is_dir() {
            return Ok(());
        }
        let added = self.watcher.watch(folder, RecursiveMode::NonRecursive);
        match added {
            Err(error) if !folder.is_dir() => tracing::debug!(%error, "a folder went before it was watched"),
            other => other.map_err(|error| DevError::Watch(error.to_string()))?,
        }
        self.known.insert(folder.to_owned());
        Ok(())
    }

    /// Watches a folder and those below it; what is in them is added to `found`.
    fn add_below(&mut self, folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), DevError> {
        if !self.stack.rules().any(|(_, rule)| rule.looks_into(folder)) {
            return Ok(());
        }
        self.add(folder)?;
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_below(&path, found)?;
            } else {
                found.insert(path);
            }
        }
        Ok(())
    }

    /// What is worth telling of an event. Folders that are new are watched, and what is in them is new too.
    fn take(&mut self, event: notify::Event, changed: &mut BTreeSet<PathBuf>) -> Result<(), DevError> {
        if matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_))) && !event.need_rescan() {
            return Ok(());
        }
        for path in event.paths {
            let is_folder = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
            if is_folder {
                self.add_below(&path, changed)?;
            } else if !path.exists() && self.known.remove(&path) {
                // A folder that is gone takes everything below it along.
                self.known.retain(|known| !known.starts_with(&path));
            }
            changed.insert(path);
        }
        let (stack, own) = (&self.stack, &self.own);
        changed.retain(|path| !own.contains(path));
        changed.retain(|path| stack.files.contains(path) || stack.rules().any(|(_, rule)| rule.covers(path).is_some()));
        Ok(())
    }
}

fn own_output() -> Vec<PathBuf> {
    ["/proc/self/fd/1", "/proc/self/fd/2"].iter().filter_map(|output| std::fs::read_link(output).ok()).collect()
}

async fn collect<E>(
    mut places: Places,
    mut changes: UnboundedReceiver<notify::Result<notify::Event>>,
    events: UnboundedSender<E>,
    told: impl Fn(BTreeSet<PathBuf>) -> E,
) {
    let mut changed = BTreeSet::new();
    let mut latest = tokio::time::Instant::now();
    loop {
        let quiet = tokio::time::sleep_until((tokio::time::Instant::now() + SETTLES).min(latest));
        tokio::select! {
            change = changes.recv() => {
                let Some(change) = change else { return };
                let was_empty = changed.is_empty();
                let taken = match change {
                    Ok(event) => places.take(event, &mut changed),
                    Err(error) => Err(DevError::Watch(error.to_string())),
                };
                if let Err(error) = taken {
                    tracing::warn!(%error, "a change may be missed");
                }
                if was_empty {
                    latest = tokio::time::Instant::now() + AT_MOST;
                }
            }
            () = quiet, if !changed.is_empty() => {
                if events.send(told(std::mem::take(&mut changed))).is_err() {
                    return;
                }
            }
        }
    }
}

//! A session: from a stack to what runs, for as long as somebody develops, and back to nothing.

mod changes;
mod copies;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use coracle_engine::{Engine, EngineError, Exit};
use coracle_model::{Artifact, EngineKind, InstanceId, ProcessName, ProcessSpec, ReleaseNumber};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::DevError;
use crate::folder::{Folder, take_down};
use crate::front::Front;
use crate::making::{Workshop, first};
use crate::news::Tell;
use crate::ports;
use crate::stack::{Source, Stack};
use crate::starting::has_door;
use crate::watch::Watch;
use copies::{Copy, State};

/// The port of the door, unless somebody says another one.
const DOOR: u16 = 5000;
/// How many ports after it are tried if it is taken.
const DOORS: u16 = 20;
/// How long an instance may take to end, unless its own settings say so.
const GRACE: Duration = Duration::from_secs(10);

/// What is asked of a session beyond its stack.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The port at which the part that receives requests is reached, where it has none of its own. `None`: 5000, or the next
    /// one that is free.
    pub port: Option<u16>,
}

/// Reads the stack again after its files have changed; an error is told, and what runs stays.
pub type Reload = Arc<dyn Fn() -> Result<Stack, String> + Send + Sync>;

/// How a session is told to end.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// It ends, and everything in it may take its time to.
    pub stop: CancellationToken,
    /// What still runs is killed.
    pub kill: CancellationToken,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to.
    Stopped,
    /// Everything in it had ended by itself, and nothing could have started it again; so the first of those that failed
    /// ended, else all succeeded.
    Ended(Option<Exit>),
}

/// Something that the loop has to look at.
enum Event {
    Changed(BTreeSet<PathBuf>),
    Ended { id: InstanceId, start: u64, exit: Exit },
    Again { id: InstanceId, start: u64 },
}

/// A folder being developed.
pub struct Session {
    folder: Folder,
    engine: Engine,
    stack: Stack,
    reload: Reload,
    tell: Tell,
    stops: Stops,
    options: Options,
    artifacts: BTreeMap<ProcessName, Artifact>,
    /// The release that new instances belong to: it grows where old and new run beside each other.
    generation: ReleaseNumber,
    copies: BTreeMap<InstanceId, Copy>,
    fronts: BTreeMap<ProcessName, Front>,
    starts: AtomicU64,
    first_failure: Option<Exit>,
    timers: JoinSet<()>,
    send: UnboundedSender<Event>,
    receive: UnboundedReceiver<Event>,
}

impl Session {
    /// A session that has not begun. The caller holds the folder.
    pub fn new(folder: Folder, engine: Engine, stack: Stack, reload: Reload, tell: Tell, stops: Stops, options: Options) -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        Self {
            folder,
            engine,
            stack,
            reload,
            tell,
            stops,
            options,
            artifacts: BTreeMap::new(),
            generation: first(),
            copies: BTreeMap::new(),
            fronts: BTreeMap::new(),
            starts: AtomicU64::new(0),
            first_failure: None,
            timers: JoinSet::new(),
            send,
            receive,
        }
    }

    /// Brings the stack up, keeps it in step with the files, and takes everything down again but volumes and images, however
    /// it ends.
    ///
    /// # Errors
    /// It did not come up, or the engine failed.
    pub async fn run(mut self) -> Result<Outcome, DevError> {
        self.check()?;
        if take_down(&self.folder, &self.engine, false).await? > 0 {
            self.tell.note("took down what an earlier session had left");
        }
        ports::check(&self.stack)?;
        self.folder.remember(&self.stack.spec.app)?;
        let lived = self.live().await;
        let down = self.down().await;
        match lived {
            Err(DevError::Stopped) => down.map(|()| Outcome::Stopped),
            Err(error) => Err(error),
            Ok(outcome) => down.map(|()| outcome),
        }
    }

    async fn live(&mut self) -> Result<Outcome, DevError> {
        let all: BTreeSet<_> = self.stack.spec.processes.keys().cloned().collect();
        self.make(&all).await?;
        for group in self.stack.spec.start_order()? {
            self.up(&group).await?;
        }
        let mut watch = self.watch().await?;
        self.tell_ready();
        if let Some(outcome) = self.outcome() {
            return Ok(outcome);
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.stops.stop.cancelled() => return Ok(Outcome::Stopped),
                event = self.receive.recv() => event,
            };
            match event {
                // We hold a sender ourselves.
                None => return Ok(Outcome::Stopped),
                Some(Event::Changed(paths)) => {
                    if self.take_changes(paths).await? {
                        watch = self.watch().await?;
                    }
                    continue;
                }
                Some(Event::Ended { id, start, exit }) => self.ended(&id, start, exit),
                Some(Event::Again { id, start }) => self.start_again(&id, start).await?,
            }
            if let Some(outcome) = self.outcome() {
                drop(watch);
                return Ok(outcome);
            }
        }
    }

    async fn watch(&self) -> Result<Watch, DevError> {
        Watch::start(&self.stack, self.send.clone(), Event::Changed).await
    }

    /// What can be said against the stack without starting anything.
    fn check(&self) -> Result<(), DevError> {
        self.stack.spec.check_stack()?;
        for (name, part) in &self.stack.spec.processes {
            let settings = self.engine.runtime.cannot_honour(part);
            if !settings.is_empty() {
                return Err(DevError::CannotHonour { part: self.stack.title(name), engine: self.engine.kind, settings });
            }
        }
        Ok(())
    }

    /// Makes parts; what a build found in the source tree becomes a part as well.
    async fn make(&mut self, parts: &BTreeSet<ProcessName>) -> Result<(), DevError> {
        let scratch = self.folder.state().join("source");
        let workshop = Workshop {
            engine: &self.engine,
            stack: &self.stack,
            tell: &self.tell,
            release: self.generation,
            scratch: &scratch,
            cancel: &self.stops.stop,
        };
        let made = workshop.make(parts, &self.artifacts).await?;
        self.artifacts.extend(made);
        Ok(())
    }

    /// How the session ends by itself: nothing runs, and nothing would be started again.
    fn outcome(&self) -> Option<Outcome> {
        let over = self.copies.values().all(|copy| matches!(copy.state, State::Ended));
        (over && self.stack.rules().next().is_none()).then_some(Outcome::Ended(self.first_failure))
    }

    fn tell_ready(&self) {
        for (name, part) in &self.stack.spec.processes {
            for port in &part.container.ports {
                if port.host.is_some() {
                    self.tell.note(format!(
                        "{} is at {} (port {} inside)",
                        self.stack.title(name),
                        ports::said(port),
                        port.target
                    ));
                }
            }
        }
        for (name, front) in &self.fronts {
            self.tell.note(format!("{} is at http://{}", self.stack.title(name), front.address()));
        }
        let watched = self.stack.rules().next().is_some();
        self.tell.note(if watched {
            "everything is up; watching for changes (Ctrl-C stops)"
        } else {
            "everything is up (Ctrl-C stops)"
        });
    }

    /// Opens the door of a part if it has one and none is open.
    async fn open_door(&mut self, name: &ProcessName) -> Result<(), DevError> {
        if !has_door(&self.stack, name, self.engine.kind) || self.fronts.contains_key(name) {
            return Ok(());
        }
        let candidates = match self.options.port {
            Some(port) => port..=port,
            None => DOOR..=DOOR + DOORS,
        };
        for port in candidates {
            if let Ok(front) = Front::open(port).await {
                self.fronts.insert(name.clone(), front);
                return Ok(());
            }
        }
        let port = format!("127.0.0.1:{}", self.options.port.unwrap_or(DOOR));
        Err(DevError::PortTaken { port, part: self.stack.title(name) })
    }

    /// How long a part may take to end.
    fn grace(&self, name: &ProcessName) -> Duration {
        let own = self.stack.process(name).and_then(|part: &ProcessSpec| part.container.stop_grace_period);
        own.map_or(GRACE, |span| span.duration())
    }

    /// Stops everything, those first that others do not need, and removes what belongs to the session. The word to kill
    /// leaves nobody any time.
    async fn down(&mut self) -> Result<(), DevError> {
        self.timers.abort_all();
        self.fronts.clear();
        if !self.copies.is_empty() {
            self.tell.note("stopping");
        }
        let mut groups = self.stack.spec.start_order().unwrap_or_default();
        groups.reverse();
        // What a changed file no longer names.
        groups.push(self.copies.keys().map(|id| id.process.clone()).collect());
        // One that cannot be stopped is no reason to leave the others running.
        let mut first_trouble: Option<EngineError> = None;
        for group in groups {
            let ids = self.copies.keys().filter(|id| group.contains(&id.process));
            let ended = futures::future::join_all(ids.map(|id| self.stop_one(id))).await;
            first_trouble = first_trouble.or_else(|| ended.into_iter().find_map(Result::err));
        }
        for (_, copy) in std::mem::take(&mut self.copies) {
            copy.follower.finish().await;
        }
        // Networks, and what was started and not yet counted when the session broke off.
        take_down(&self.folder, &self.engine, false).await?;
        let app = self.stack.spec.app.clone();
        self.engine.runtime.remove_release(&app, self.generation).await?;
        let keep: Vec<_> = self.artifacts.values().map(|artifact| artifact.id.clone()).collect();
        // A build takes its layers from the engine's cache the next time, but a slug would only lie about.
        let keep = if self.engine.kind == EngineKind::Docker { keep } else { Vec::new() };
        self.engine.builder.prune(&app, &keep).await?;
        // What was taken down after all is gone all the same.
        if let Some(error) = first_trouble {
            tracing::debug!(%error, "stopped at the second attempt");
        }
        Ok(())
    }

    fn is_tree(&self, name: &ProcessName) -> bool {
        *self.stack.source(name) == Source::Tree
    }
}

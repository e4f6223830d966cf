//! What exists on the machine of a fake engine, and the tasks that stand for running programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{AppName, ArtifactId, EngineKind, ImageFacts, InstanceId, OwnerId, ReleaseNumber, VolumeName};
use jiff::Timestamp;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{broadcast, watch};

use super::Inventory;
use super::program::Process;
use super::script::{BuildScript, Script, Which};
use crate::error::EngineError;
use crate::runtime::{Exit, Health, Instance, InstanceEvent, InstanceSpec, InstanceState, LogLine, Stream};

type Program = Arc<dyn Fn(&[String], &[(String, String)]) -> Option<Script> + Send + Sync>;

/// The machine. Its tasks run on a thread of its own, so that they outlive the runtime of the test's server.
pub(super) struct Machine {
    pub(super) kind: EngineKind,
    state: Mutex<State>,
    runtime: Option<Runtime>,
}

/// What exists and what is scripted.
pub(super) struct State {
    pub(super) available: bool,
    pub(super) scripts: Vec<(Which, Script)>,
    pub(super) builds: BTreeMap<u32, BuildScript>,
    pub(super) program: Option<Program>,
    /// What every image says of itself.
    pub(super) image: ImageFacts,
    pub(super) generation: u64,
    worlds: BTreeMap<OwnerId, World>,
}

/// What exists of one owner.
pub(super) struct World {
    pub(super) instances: BTreeMap<InstanceId, Record>,
    pub(super) releases: BTreeSet<(AppName, ReleaseNumber)>,
    pub(super) volumes: BTreeSet<(AppName, VolumeName)>,
    pub(super) artifacts: BTreeMap<ArtifactId, AppName>,
    pub(super) build_remains: Vec<AppName>,
    pub(super) started: Vec<InstanceId>,
    pub(super) built: Vec<(AppName, ReleaseNumber)>,
    pub(super) events: broadcast::Sender<InstanceEvent>,
}

/// An instance that exists.
pub(super) struct Record {
    pub(super) spec: InstanceSpec,
    pub(super) state: InstanceState,
    pub(super) log: Arc<Log>,
    pub(super) traffic: Arc<Counters>,
    pub(super) ignores_term: bool,
    /// Tells two instances of one id apart.
    pub(super) generation: u64,
    /// The program, while it runs.
    pub(super) process: Option<Process>,
}

/// What an instance's responder shares with the test.
#[derive(Default)]
pub(super) struct Counters {
    /// Requests answered.
    pub(super) requests: AtomicU64,
    /// The status to answer with whatever the script says; 0: as scripted.
    pub(super) status: AtomicU16,
}

impl Machine {
    pub(super) fn start(kind: EngineKind) -> Arc<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("fake-engine").enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| unreachable!("a test machine that cannot start a thread: {error}"));
        let state = State {
            available: true,
            scripts: Vec::new(),
            builds: BTreeMap::new(),
            program: None,
            image: ImageFacts { user: "app".to_owned(), ..ImageFacts::default() },
            generation: 0,
            worlds: BTreeMap::new(),
        };
        Arc::new(Self { kind, state: Mutex::new(state), runtime: Some(runtime) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the engine is scripted not to answer.
    pub(super) fn reach(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.state();
        if state.available {
            Ok(state)
        } else {
            Err(EngineError::Unavailable { engine: self.kind, cause: "scripted to be unavailable".to_owned() })
        }
    }

    pub(super) fn tasks(&self) -> &Handle {
        self.runtime.as_ref().unwrap_or_else(|| unreachable!("it is taken on drop only")).handle()
    }

    /// Ends a program, if it runs. Its log stays.
    pub(super) fn end(&self, owner: &OwnerId, id: &InstanceId, exit: Exit) -> bool {
        let process = self.state().world(owner).instances.get_mut(id).and_then(|record| record.process.take());
        let Some(process) = process else { return false };
        // Not under the lock: the program may just be ending by itself.
        process.kill();
        let mut state = self.state();
        let world = state.world(owner);
        if let Some(record) = world.instances.get_mut(id).filter(|record| record.process.is_none()) {
            record.state = InstanceState::Exited(exit);
            record.log.end();
            // Nobody needs to listen.
            world.events.send(InstanceEvent::Exited(id.clone())).ok();
        }
        true
    }

    /// Writes down that a program has ended by itself.
    pub(super) fn note_end(&self, owner: &OwnerId, id: &InstanceId, generation: u64, exit: Exit) {
        let mut state = self.state();
        let world = state.world(owner);
        let record = world.instances.get_mut(id).filter(|record| record.generation == generation);
        let Some(record) = record else { return };
        // Whoever has taken the process is ending it, and writes that down.
        if record.process.take().is_some() {
            record.state = InstanceState::Exited(exit);
            record.log.end();
            world.events.send(InstanceEvent::Exited(id.clone())).ok();
        }
    }

    pub(super) fn set_status(&self, owner: &OwnerId, id: &InstanceId, status: u16) -> bool {
        let mut state = self.state();
        let running = state.world(owner).instances.get(id).filter(|record| record.process.is_some());
        running.inspect(|record| record.traffic.status.store(status, Ordering::SeqCst)).is_some()
    }

    pub(super) fn set_health(&self, owner: &OwnerId, id: &InstanceId, new: Health) -> bool {
        let mut state = self.state();
        let world = state.world(owner);
        let Some(InstanceState::Running { health, .. }) = world.instances.get_mut(id).map(|record| &mut record.state) else {
            return false;
        };
        *health = new;
        world.events.send(InstanceEvent::Health(id.clone(), new)).ok();
        true
    }

    pub(super) fn requests(&self, owner: &OwnerId, id: &InstanceId) -> u64 {
        let mut state = self.state();
        state.world(owner).instances.get(id).map_or(0, |record| record.traffic.requests.load(Ordering::SeqCst))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The machine may be dropped inside another runtime, where waiting for threads is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl State {
    pub(super) fn world(&mut self, owner: &OwnerId) -> &mut World {
        self.worlds.entry(owner.clone()).or_insert_with(|| World {
            instances: BTreeMap::new(),
            releases: BTreeSet::new(),
            volumes: BTreeSet::new(),
            artifacts: BTreeMap::new(),
            build_remains: Vec::new(),
            started: Vec::new(),
            built: Vec::new(),
            events: broadcast::channel(1024).0,
        })
    }

    /// What the instance does: the last script that matches, else what its program says.
    pub(super) fn script_for(
        &self,
        id: &InstanceId,
        invocation: impl FnOnce() -> (Vec<String>, Vec<(String, String)>),
    ) -> Option<Script> {
        let scripted = self.scripts.iter().rev().find(|(which, _)| which.matches(id)).map(|(_, script)| script.clone());
        scripted.or_else(|| {
            let program = self.program.as_ref()?;
            let (argv, env) = invocation();
            program(&argv, &env)
        })
    }
}

impl World {
    pub(super) fn inventory(&self) -> Inventory {
        Inventory {
            instances: self.instances.keys().cloned().collect(),
            releases: self.releases.iter().cloned().collect(),
            volumes: self.volumes.iter().cloned().collect(),
            artifacts: self.artifacts.keys().cloned().collect(),
            build_remains: self.build_remains.clone(),
        }
    }
}

impl Record {
    pub(super) fn instance(&self) -> Instance {
        Instance { id: self.spec.id.clone(), state: self.state.clone() }
    }
}

/// What an instance has written. Whoever follows it keeps it after the instance is removed.
pub(super) struct Log {
    lines: Mutex<Vec<LogLine>>,
    /// Changes with every line; the value tells whether the program has ended.
    changed: watch::Sender<bool>,
}

impl Log {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { lines: Mutex::new(Vec::new()), changed: watch::Sender::new(false) })
    }

    pub(super) fn write(&self, stream: Stream, text: &str) {
        let line = LogLine { at: Timestamp::now(), stream, text: text.to_owned() };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.changed.send_modify(|_| ());
    }

    pub(super) fn end(&self) {
        self.changed.send_replace(true);
    }

    pub(super) fn all(&self) -> Vec<LogLine> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes with every line and when the program ends.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.changed.subscribe()
    }
}

//! An engine without processes, for tests of whatever stands above the engine traits.
//!
//! It keeps the contract of [`Builder`](crate::Builder) and [`Runtime`](crate::Runtime) (the conformance suite runs over
//! it too), and its instances really listen on loopback ports, so probes and proxies need no stand-in of their own. What
//! it runs is not a program but a [`Script`]: what the instance prints, whether it listens, what it answers, how it ends.
//! It enforces no limits and isolates nothing.
//!
//! A [`FakeEngine`] is the machine: whatever runs on it outlives the engines and the runtimes that started it.

mod builder;
mod http;
mod machine;
mod program;
mod runtime;
mod script;

use std::sync::Arc;

use coracle_model::{AppName, ArtifactId, EngineKind, ImageFacts, InstanceId, OwnerId, ReleaseNumber, VolumeName};

use crate::runtime::{Exit, Health, InstanceSpec};
use crate::{Engine, LogLine};

use builder::FakeBuilder;
use machine::Machine;
use runtime::FakeRuntime;

pub use script::{BuildScript, Script, Which};

/// A machine on which nothing is real but the ports. Cheap to clone; clones are the same machine.
#[derive(Clone)]
pub struct FakeEngine {
    machine: Arc<Machine>,
}

/// Everything of one owner that exists on the machine, for tests that assert that nothing is left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Instances, running or exited.
    pub instances: Vec<InstanceId>,
    /// Releases that own something beside their instances (a network, directories).
    pub releases: Vec<(AppName, ReleaseNumber)>,
    /// Volumes.
    pub volumes: Vec<(AppName, VolumeName)>,
    /// Artifacts.
    pub artifacts: Vec<ArtifactId>,
    /// Apps for which an interrupted build has left something behind.
    pub build_remains: Vec<AppName>,
}

impl Inventory {
    /// Whether nothing exists.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FakeEngine {
    /// An empty machine whose engine claims to be `kind`.
    pub fn new(kind: EngineKind) -> Self {
        Self { machine: Machine::start(kind) }
    }

    /// The engine of the owner [`FakeEngine::owner`]. May be called again: engines are handles, the machine stays.
    pub fn engine(&self) -> Engine {
        self.engine_of(Self::owner())
    }

    /// The engine of another owner on the same machine.
    pub fn engine_of(&self, owner: OwnerId) -> Engine {
        Engine {
            kind: self.machine.kind,
            builder: Arc::new(FakeBuilder { machine: self.machine.clone(), owner: owner.clone() }),
            runtime: Arc::new(FakeRuntime { machine: self.machine.clone(), owner }),
        }
    }

    /// The owner that [`FakeEngine::engine`], and every method that names none, stands for.
    pub fn owner() -> OwnerId {
        "fa4ee11e".parse().unwrap_or_else(|_| unreachable!("eight hexadecimal digits"))
    }

    /// What these instances do from their next start on. Of several scripts that match, the last one given counts;
    /// without any, an instance serves and a one-off process exits with 0.
    pub fn script(&self, which: Which, script: Script) {
        self.machine.state().scripts.push((which, script));
    }

    /// What the build of this release does.
    pub fn script_build(&self, release: u32, script: BuildScript) {
        self.machine.state().builds.insert(release, script);
    }

    /// What images say of themselves from now on. Until then: that they run as `app`, and nothing else.
    pub fn set_image(&self, facts: ImageFacts) {
        self.machine.state().image = facts;
    }

    /// What a program does, given its argument vector and its environment, where no [`FakeEngine::script`] matches. It
    /// also answers for [`Runtime::exec`](crate::Runtime::exec). Without one, or where it says `None`, the default holds.
    pub fn install(&self, program: impl Fn(&[String], &[(String, String)]) -> Option<Script> + Send + Sync + 'static) {
        self.machine.state().program = Some(Arc::new(program));
    }

    /// Whether the engine answers. What runs goes on either way, as it does when Docker is stopped under live-restore.
    pub fn set_available(&self, available: bool) {
        self.machine.state().available = available;
    }

    /// Ends a running instance as SIGKILL would. Whether it ran.
    pub fn crash(&self, id: &InstanceId) -> bool {
        self.end(id, Exit { signal: Some(9), ..Exit::default() })
    }

    /// Ends a running instance in this way. Whether it ran.
    pub fn end(&self, id: &InstanceId, exit: Exit) -> bool {
        self.machine.end(&Self::owner(), id, exit)
    }

    /// Ends every running instance unseen, as a restart of the machine does.
    pub fn reboot(&self) {
        for id in self.inventory().instances {
            self.end(&id, Exit::default());
        }
    }

    /// From the next request on, a running instance answers every path with this status. Whether it runs.
    pub fn set_status(&self, id: &InstanceId, status: u16) -> bool {
        self.machine.set_status(&Self::owner(), id, status)
    }

    /// What the instance's own HEALTHCHECK says from now on. Whether it runs.
    pub fn set_health(&self, id: &InstanceId, health: Health) -> bool {
        self.machine.set_health(&Self::owner(), id, health)
    }

    /// How many requests an existing instance has answered.
    pub fn requests(&self, id: &InstanceId) -> u64 {
        self.machine.requests(&Self::owner(), id)
    }

    /// What an existing instance was started with.
    pub fn spec(&self, id: &InstanceId) -> Option<InstanceSpec> {
        self.machine.state().world(&Self::owner()).instances.get(id).map(|record| record.spec.clone())
    }

    /// What an existing instance has written.
    pub fn log(&self, id: &InstanceId) -> Vec<LogLine> {
        let log = self.machine.state().world(&Self::owner()).instances.get(id).map(|record| record.log.clone());
        log.map(|log| log.all()).unwrap_or_default()
    }

    /// Every instance and one-off process that was ever started, in the order of the starts.
    pub fn started(&self) -> Vec<InstanceId> {
        self.machine.state().world(&Self::owner()).started.clone()
    }

    /// Every release that was ever built, or whose build was begun.
    pub fn built(&self) -> Vec<(AppName, ReleaseNumber)> {
        self.machine.state().world(&Self::owner()).built.clone()
    }

    /// What exists.
    pub fn inventory(&self) -> Inventory {
        self.inventory_of(&Self::owner())
    }

    /// What exists of this owner.
    pub fn inventory_of(&self, owner: &OwnerId) -> Inventory {
        self.machine.state().world(owner).inventory()
    }
}

//! Instances that are a task and, if they listen, a port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_model::{AppName, InstanceId, OwnerId, ProcessSpec, ReleaseNumber, Span};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use super::http::{Port, Responder};
use super::machine::{Counters, Log, Machine, Record};
use super::program::Program;
use super::script::Script;
use crate::builder::OutputSink;
use crate::error::EngineError;
use crate::runtime::{
    Exit, Instance, InstanceEvent, InstanceSpec, InstanceState, Isolation, LogLine, LogQuery, Missing, PortRequest, Runtime,
    Stats,
};

#[derive(Clone)]
pub(super) struct FakeRuntime {
    pub(super) machine: Arc<Machine>,
    pub(super) owner: OwnerId,
}

const KILLED: Exit = Exit { code: None, signal: Some(9), out_of_memory: false };

#[async_trait]
impl Runtime for FakeRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        self.start_as(spec, Script::serves()).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let stubborn = {
            let mut state = self.machine.reach()?;
            let record = state.world(&self.owner).instances.get(id);
            record.filter(|record| record.process.is_some() && record.ignores_term).map(|record| record.log.clone())
        };
        if let Some(log) = stubborn {
            let mut ended = log.watch();
            // Either it ends by itself meanwhile, or it is killed now.
            tokio::time::timeout(grace, ended.wait_for(|ended| *ended)).await.ok();
        }
        self.machine.end(&self.owner, id, KILLED);
        self.machine.reach()?.world(&self.owner).instances.remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, EngineError> {
        Ok(self.machine.reach()?.world(&self.owner).instances.values().map(Record::instance).collect())
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<Instance>, EngineError> {
        Ok(self.machine.reach()?.world(&self.owner).instances.get(id).map(Record::instance))
    }

    async fn logs(
        &self,
        id: &InstanceId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let log = self.existing(id, |record| record.log.clone())?;
        let present = log.all();
        let wanted: Vec<_> = present.iter().filter(|line| query.since.is_none_or(|since| line.at >= since)).cloned().collect();
        let skipped = wanted.len().saturating_sub(query.tail.unwrap_or(usize::MAX));
        let old = futures::stream::iter(wanted.into_iter().skip(skipped));
        let new = if query.follow { following(log, present.len()).boxed() } else { futures::stream::empty().boxed() };
        Ok(old.chain(new).map(Ok).boxed())
    }

    async fn stats(&self, id: &InstanceId) -> Result<Stats, EngineError> {
        self.running(id)?;
        Ok(Stats { memory_bytes: 1 << 20, cpu_us: 1_000, pids: 1 })
    }

    async fn exec(
        &self,
        id: &InstanceId,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.running(id)?;
        let spec = self.existing(id, |record| record.spec.clone())?;
        let program = self.machine.reach()?.program.clone();
        let script = program.and_then(|program| program(argv, &environment(&spec, None)));
        let script = script.unwrap_or_else(|| Script::ends(Exit { code: Some(0), ..Exit::default() }));
        if let Some(cause) = script.refuses {
            return Err(EngineError::CannotStart { id: id.clone(), cause });
        }
        for (stream, line) in &script.lines {
            output.line(*stream, line);
        }
        let ended = async {
            match script.exit {
                Some((after, exit)) => {
                    tokio::time::sleep(after).await;
                    exit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            exit = ended => Ok(exit),
        }
    }

    async fn run(
        &self,
        spec: &InstanceSpec,
        output: &OutputSink,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.start_as(spec, Script::ends(Exit { code: Some(0), ..Exit::default() })).await?;
        spec.surroundings.started.now();
        let log = self.existing(&spec.id, |record| record.log.clone())?;
        let told = following(log, 0).for_each(|line| {
            output.line(line.stream, line.text);
            std::future::ready(())
        });
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            () = told => self.existing(&spec.id, |record| record.state.clone()),
            () = tokio::time::sleep(deadline) => {
                Err(EngineError::TimedOut { action: format!("run {}", spec.id), limit: Span::millis(deadline.as_millis() as u64) })
            }
        };
        self.stop(&spec.id, Duration::ZERO).await?;
        match result? {
            InstanceState::Exited(exit) => Ok(exit),
            InstanceState::Running { .. } => unreachable!("its log has ended"),
        }
    }

    fn events(&self) -> BoxStream<'static, InstanceEvent> {
        let events = self.machine.state().world(&self.owner).events.subscribe();
        // A listener that is too slow misses some, as the contract allows.
        BroadcastStream::new(events).filter_map(|event| std::future::ready(event.ok())).boxed()
    }

    async fn join(&self, id: &InstanceId, release: ReleaseNumber, _aliases: &[String]) -> Result<(), EngineError> {
        let mut state = self.machine.reach()?;
        let world = state.world(&self.owner);
        let record = world.instances.get_mut(id).ok_or_else(|| EngineError::NoSuchInstance(id.clone()))?;
        if !record.spec.surroundings.joins.contains(&release) {
            record.spec.surroundings.joins.push(release);
        }
        world.releases.insert((id.app.clone(), release));
        Ok(())
    }

    async fn put(&self, id: &InstanceId, _: Vec<u8>) -> Result<(), EngineError> {
        Err(EngineError::Failed { action: format!("copy files into {id}"), cause: "fake instances have no files".to_owned() })
    }

    async fn restart(&self, id: &InstanceId, _: Duration) -> Result<(), EngineError> {
        Err(EngineError::Failed { action: format!("restart {id}"), cause: "fake instances are not restarted".to_owned() })
    }

    fn cannot_honour(&self, part: &ProcessSpec) -> Vec<&'static str> {
        part.limits.delegate_cgroup.then_some("delegate_cgroup").into_iter().collect()
    }

    /// There is nothing of others on a fake machine.
    async fn missing(&self, part: &ProcessSpec) -> Result<Vec<Missing>, EngineError> {
        let networks = part.container.networks.iter().map(|network| format!("network {}", network.name));
        let missing = networks.map(|what| Missing { next: format!("make the {what}"), what });
        Ok(missing.collect())
    }

    async fn remove_apart(&self, _: &AppName, _: ReleaseNumber, _: &str) -> Result<(), EngineError> {
        self.machine.reach().map(drop)
    }

    async fn prepare_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.machine.reach()?.world(&self.owner).releases.insert((app.clone(), release));
        Ok(())
    }

    async fn remove_release(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        let mut state = self.machine.reach()?;
        let world = state.world(&self.owner);
        // A network that still has members cannot be removed: whoever asks has forgotten to stop them.
        let of_release = |record: &&Record| {
            let id = &record.spec.id;
            id.app == *app && id.release == release && !record.spec.surroundings.lives_with_app
        };
        if let Some(id) = world.instances.values().find(of_release).map(|record| &record.spec.id) {
            return Err(EngineError::Failed {
                action: format!("remove release {release} of {app}"),
                cause: format!("{id} still exists"),
            });
        }
        for record in world.instances.values_mut().filter(|record| record.spec.id.app == *app) {
            record.spec.surroundings.joins.retain(|joined| *joined != release);
        }
        world.releases.remove(&(app.clone(), release));
        Ok(())
    }

    async fn remove_app(&self, app: &AppName) -> Result<(), EngineError> {
        let ids: Vec<_> =
            self.machine.reach()?.world(&self.owner).instances.keys().filter(|id| id.app == *app).cloned().collect();
        for id in ids {
            self.stop(&id, Duration::ZERO).await?;
        }
        let mut state = self.machine.reach()?;
        let world = state.world(&self.owner);
        world.releases.retain(|(of, _)| of != app);
        world.volumes.retain(|(of, _)| of != app);
        Ok(())
    }

    fn isolation(&self) -> Isolation {
        Isolation { enforced: Vec::new(), missing: vec!["everything: the fake engine runs no programs".to_owned()] }
    }
}

impl FakeRuntime {
    /// Starts what is scripted, or else `default`.
    async fn start_as(&self, spec: &InstanceSpec, default: Script) -> Result<Instance, EngineError> {
        let cannot = |cause: String| EngineError::CannotStart { id: spec.id.clone(), cause };
        let port = match spec.port {
            PortRequest::None => None,
            PortRequest::Listen(_) | PortRequest::Neighbours(_) => Some(Port::take().map_err(|error| cannot(error.to_string()))?),
        };
        let address = port.as_ref().map(|port| port.address);
        let script = {
            let mut state = self.machine.reach()?;
            let invocation = || invocation(spec, address.map(|address| address.port()));
            let script = state.script_for(&spec.id, invocation).unwrap_or(default);
            let world = state.world(&self.owner);
            if let Some(record) = world.instances.get(&spec.id).filter(|record| record.process.is_some()) {
                return Ok(record.instance());
            }
            if !world.artifacts.contains_key(&spec.artifact) {
                return Err(EngineError::NoSuchArtifact(spec.artifact.clone()));
            }
            script
        };
        if script.start_hangs {
            std::future::pending::<()>().await;
        }
        if let Some(cause) = script.refuses {
            return Err(cannot(cause));
        }
        self.put_to_run(spec, script, port)
    }

    fn put_to_run(&self, spec: &InstanceSpec, script: Script, port: Option<Port>) -> Result<Instance, EngineError> {
        let mut state = self.machine.reach()?;
        state.generation += 1;
        let generation = state.generation;
        let world = state.world(&self.owner);
        // Somebody else may have started it while no lock was held.
        if let Some(record) = world.instances.get(&spec.id).filter(|record| record.process.is_some()) {
            return Ok(record.instance());
        }
        let (log, traffic) = (Log::new(), Arc::new(Counters::default()));
        for (stream, line) in &script.lines {
            log.write(*stream, line);
        }
        let running = InstanceState::Running {
            address: port.as_ref().map(|port| port.address),
            health: script.health,
            since: Timestamp::now(),
        };
        let runtime = self.machine.tasks();
        let (listener, held) = Program::listen(port, script.listens, runtime);
        let default_body = format!("{} {}.{}", spec.id.release, spec.id.process, spec.id.index);
        let program = Program {
            listener,
            held,
            responder: Responder::new(&script, default_body, traffic.clone()),
            ticks: script.ticks,
            log: log.clone(),
            exit: script.exit,
            machine: Arc::downgrade(&self.machine),
            owner: self.owner.clone(),
            id: spec.id.clone(),
            generation,
        };
        let (spec, ignores_term, process) = (spec.clone(), script.ignores_term, Some(program.spawn(runtime)));
        let record = Record { spec: spec.clone(), state: running, log, traffic, ignores_term, generation, process };
        let instance = record.instance();
        world.instances.insert(spec.id.clone(), record);
        let releases = match spec.surroundings.lives_with_app {
            true => spec.surroundings.joins.clone(),
            false => vec![spec.id.release],
        };
        world.releases.extend(releases.into_iter().map(|release| (spec.id.app.clone(), release)));
        world.volumes.extend(spec.volumes.iter().map(|volume| (spec.id.app.clone(), volume.name.clone())));
        world.started.push(spec.id.clone());
        // Nobody needs to listen.
        world.events.send(InstanceEvent::Started(spec.id.clone())).ok();
        Ok(instance)
    }

    fn existing<T>(&self, id: &InstanceId, take: impl FnOnce(&Record) -> T) -> Result<T, EngineError> {
        let mut state = self.machine.reach()?;
        let record = state.world(&self.owner).instances.get(id);
        record.map(take).ok_or_else(|| EngineError::NoSuchInstance(id.clone()))
    }

    fn running(&self, id: &InstanceId) -> Result<(), EngineError> {
        if self.existing(id, |record| record.process.is_some())? {
            Ok(())
        } else {
            Err(EngineError::Failed { action: format!("look into {id}"), cause: "it has exited".to_owned() })
        }
    }
}

/// Lines from number `from` on, until the program has ended.
fn following(log: Arc<Log>, from: usize) -> impl futures::Stream<Item = LogLine> + Send {
    let changed = log.watch();
    let lines = futures::stream::unfold((log, changed, from), |(log, mut changed, from)| async move {
        loop {
            // Read before the lines: what is written after the end is known cannot exist.
            let ended = *changed.borrow_and_update();
            let new: Vec<_> = log.all().into_iter().skip(from).collect();
            if !new.is_empty() {
                let next = from + new.len();
                return Some((futures::stream::iter(new), (log, changed, next)));
            }
            if ended || changed.changed().await.is_err() {
                return None;
            }
        }
    });
    lines.flatten()
}

/// What the program sees.
fn environment(spec: &InstanceSpec, port: Option<u16>) -> Vec<(String, String)> {
    let given = spec.env.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned()));
    given.chain(port.map(|port| ("PORT".to_owned(), port.to_string()))).collect()
}

/// Its argument vector and the whole environment it sees; the vector is empty where the image's own command runs.
fn invocation(spec: &InstanceSpec, port: Option<u16>) -> (Vec<String>, Vec<(String, String)>) {
    let mut env = environment(spec, port);
    let Some(command) = &spec.command else { return (Vec::new(), env) };
    let value = |name: &str| env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let (assignments, argv) = command.expand(&value);
    env.extend(assignments.into_iter().map(|(name, value)| (name.to_string(), value)));
    (argv, env)
}

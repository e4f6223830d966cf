//! The copies of parts that run: started, ended, started again, replaced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coracle_engine::{EngineError, Exit, Instance, InstanceState};
use coracle_model::container::RestartPolicy;
use coracle_model::{ArtifactId, EngineKind, InstanceId, ProcessName};
use tokio::net::TcpStream;

use super::{Event, GRACE, Session};
use crate::dependents;
use crate::error::DevError;
use crate::follower::Follower;
use crate::news::Voice;
use crate::starting::{self, has_door};

/// The longest pause before something that crashes is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Whoever has run this long is taken for one that works.
const STEADY: Duration = Duration::from_secs(10);
/// How long a new copy may take until it takes connections.
const READY: Duration = Duration::from_secs(60);
/// How often it is tried.
const INTERVAL: Duration = Duration::from_millis(50);

/// An instance that the session has started.
pub(super) struct Copy {
    pub(super) follower: Follower,
    pub(super) start: u64,
    pub(super) state: State,
    pub(super) artifact: ArtifactId,
    failures: u32,
    since: Instant,
}

/// How a copy stands.
pub(super) enum State {
    Running,
    /// It ended and will be started again.
    Waiting,
    /// It ended, and only a change starts it again.
    Ended,
}

/// How long something waits that has failed so often.
fn pause_after(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(10)).min(LONGEST_PAUSE)
}

impl Session {
    /// Starts the parts of a group side by side, each when what it waits for is there.
    pub(super) async fn up(&mut self, group: &[ProcessName]) -> Result<(), DevError> {
        for name in group {
            self.open_door(name).await?;
        }
        let starts = group.iter().map(|name| self.start_part(name));
        let started = futures::future::join_all(starts).await;
        let mut failed = None;
        for (name, started) in group.iter().zip(started) {
            match started {
                Ok(copies) => {
                    self.copies.extend(copies);
                    self.lead(name).await?;
                    self.copy_first_files(name).await;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts every copy of a part.
    async fn start_part(&self, name: &ProcessName) -> Result<BTreeMap<InstanceId, Copy>, DevError> {
        let instances = |on: &ProcessName| self.ids_of(on);
        dependents::wait(&self.stack, &self.engine, name, instances, &self.stops.stop).await?;
        let replicas = self.stack.process(name).map_or(0, |part| part.replicas);
        let mut copies = BTreeMap::new();
        for index in 1..=replicas {
            if self.stops.stop.is_cancelled() {
                return Err(DevError::Stopped);
            }
            let (app, process) = (self.stack.spec.app.clone(), name.clone());
            let id = InstanceId { app, release: self.generation, process, index };
            let copy = self.start(&id, 0).await?;
            copies.insert(id, copy);
        }
        Ok(copies)
    }

    pub(super) fn ids_of(&self, name: &ProcessName) -> Vec<InstanceId> {
        self.copies.keys().filter(|id| id.process == *name).cloned().collect()
    }

    async fn start(&self, id: &InstanceId, failures: u32) -> Result<Copy, DevError> {
        let Some(artifact) = self.artifacts.get(&id.process) else {
            return Err(DevError::NoPlan { message: format!("nothing was built for {}", id.process), hint: String::new() });
        };
        let spec = starting::instance(&self.stack, &self.folder, id.clone(), artifact, self.engine.kind);
        self.engine.runtime.start(&spec).await?;
        Ok(self.copy(id, artifact.id.clone(), failures))
    }

    fn copy(&self, id: &InstanceId, artifact: ArtifactId, failures: u32) -> Copy {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let ended = {
            let id = id.clone();
            move |exit| Event::Ended { id, start, exit }
        };
        let shown = self.stack.parts.get(&id.process).is_none_or(|part| part.shown);
        let voice = shown.then(|| self.voice(id));
        let runtime = Arc::clone(&self.engine.runtime);
        let follower = Follower::start(runtime, id.clone(), voice, self.tell.clone(), self.send.clone(), ended);
        Copy { follower, start, state: State::Running, artifact, failures, since: Instant::now() }
    }

    pub(super) fn voice(&self, id: &InstanceId) -> Voice {
        let title = self.stack.title(&id.process);
        let several = self.stack.process(&id.process).is_some_and(|part| part.replicas > 1);
        let place = self.stack.spec.processes.keys().position(|name| *name == id.process).unwrap_or(0);
        Voice { name: if several { format!("{title}.{}", id.index) } else { title }, place }
    }

    /// Lets the door of a part lead to its copy.
    async fn lead(&self, name: &ProcessName) -> Result<(), EngineError> {
        let Some(front) = self.fronts.get(name) else { return Ok(()) };
        let newest = self.ids_of(name).into_iter().max_by_key(|id| id.release);
        let Some(id) = newest else { return Ok(()) };
        front.lead_to(self.engine.runtime.inspect(&id).await?.as_ref().and_then(Instance::address));
        Ok(())
    }

    /// An instance has ended by itself.
    pub(super) fn ended(&mut self, id: &InstanceId, start: u64, exit: Exit) {
        let policy = self.stack.process(&id.process).map_or(RestartPolicy::Never, |part| part.container.restart);
        let name = self.voice(id).name;
        let watched = self.stack.rules().any(|(part, _)| *part == id.process);
        let Some(copy) = self.copies.get_mut(id).filter(|copy| copy.start == start) else { return };
        if copy.since.elapsed() >= STEADY {
            copy.failures = 0;
        }
        let again = match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure(most) => !exit.success() && most.is_none_or(|most| copy.failures < most),
            RestartPolicy::Never => false,
        };
        if again {
            copy.state = State::Waiting;
            let pause = pause_after(copy.failures);
            self.tell.trouble(format!("{name} has ended: {exit}; it is started again in {:.1} s", pause.as_secs_f32()));
            self.call_again(id, start, pause);
        } else {
            copy.state = State::Ended;
            let then = if watched { "; waiting for a change" } else { "" };
            match exit.success() {
                true => self.tell.note(format!("{name} has ended: {exit}{then}")),
                false => {
                    self.first_failure.get_or_insert(exit);
                    self.tell.trouble(format!("{name} has crashed: {exit}{then}"));
                }
            }
        }
        if let Some(front) = self.fronts.get(&id.process) {
            front.lead_to(None);
        }
        while self.timers.try_join_next().is_some() {}
    }

    /// Starts a copy that has ended, as its restart policy wants it.
    pub(super) async fn start_again(&mut self, id: &InstanceId, start: u64) -> Result<(), DevError> {
        let Some(copy) = self.copies.get(id).filter(|copy| copy.start == start) else { return Ok(()) };
        let failures = copy.failures.saturating_add(1);
        let copy = match self.restart(id, failures).await {
            Ok(copy) => copy,
            Err(DevError::Engine(error)) => {
                self.failed_again(id, start, failures, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.copies.insert(id.clone(), copy);
        self.lead(&id.process).await?;
        Ok(())
    }

    /// A copy that the engine did not start again is tried once more after a longer pause, as often as its restart policy
    /// allows; after that only a change starts it.
    fn failed_again(&mut self, id: &InstanceId, start: u64, failures: u32, error: &EngineError) {
        let policy = self.stack.process(&id.process).map_or(RestartPolicy::Never, |part| part.container.restart);
        let name = self.voice(id).name;
        let Some(copy) = self.copies.get_mut(id).filter(|copy| copy.start == start) else { return };
        copy.failures = failures;
        let again = match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure(most) => most.is_none_or(|most| failures < most),
            RestartPolicy::Never => false,
        };
        if again {
            let pause = pause_after(failures);
            self.tell.trouble(format!("{name} cannot be started again: {error}; it is tried in {:.1} s", pause.as_secs_f32()));
            self.call_again(id, start, pause);
        } else {
            copy.state = State::Ended;
            self.first_failure.get_or_insert(Exit::default());
            self.tell.trouble(format!("{name} cannot be started again: {error}; waiting for a change"));
        }
    }

    /// Has a copy started again after a pause.
    fn call_again(&mut self, id: &InstanceId, start: u64, pause: Duration) {
        let (send, id) = (self.send.clone(), id.clone());
        self.timers.spawn(async move {
            tokio::time::sleep(pause).await;
            // Nobody waits for it when the session is over.
            send.send(Event::Again { id, start }).ok();
        });
    }

    /// Restarts an instance: in place where that can be, so that files which were copied into it stay.
    async fn restart(&self, id: &InstanceId, failures: u32) -> Result<Copy, DevError> {
        let artifact = self.copies.get(id).map(|copy| copy.artifact.clone());
        if let (EngineKind::Docker, Some(artifact)) = (self.engine.kind, artifact) {
            self.engine.runtime.restart(id, self.grace(&id.process)).await?;
            return Ok(self.copy(id, artifact, failures));
        }
        self.engine.runtime.stop(id, self.grace(&id.process)).await?;
        self.start(id, failures).await
    }

    /// Restarts every copy of a part, and then those that want to be restarted with it.
    pub(super) async fn restart_part(&mut self, name: &ProcessName) -> Result<(), DevError> {
        for id in self.ids_of(name) {
            let restarted = self.restart(&id, 0).await;
            match restarted {
                Ok(copy) => drop(self.copies.insert(id, copy)),
                Err(error) => self.tell.trouble(format!("{} cannot be restarted: {error}", self.voice(&id).name)),
            }
        }
        self.lead(name).await?;
        Ok(())
    }

    /// The parts that want to be restarted after one of these was.
    pub(super) fn restarted_with(&self, parts: &[ProcessName]) -> Vec<ProcessName> {
        let with = |part: &coracle_model::ProcessSpec| part.depends_on.iter().any(|(on, how)| how.restart && parts.contains(on));
        let all = self.stack.spec.processes.iter();
        all.filter(|(name, part)| with(part) && !parts.contains(name)).map(|(name, _)| name.clone()).collect()
    }

    /// Replaces the copies of a part by new ones, and answers whether that could be done. Where old and new can run beside
    /// each other, the old ones stay until the new ones take connections, and stay for good if these do not.
    pub(super) async fn replace(&mut self, name: &ProcessName) -> Result<bool, DevError> {
        let old = self.ids_of(name);
        if !has_door(&self.stack, name, self.engine.kind) || old.iter().any(|id| id.release == self.generation) {
            self.stop(&old).await?;
            return match self.up(std::slice::from_ref(name)).await {
                Ok(()) => Ok(true),
                Err(DevError::Stopped) => Err(DevError::Stopped),
                Err(error) => {
                    self.tell.trouble(format!("{} is down: {error}", self.stack.title(name)));
                    Ok(false)
                }
            };
        }
        self.open_door(name).await?;
        let started = self.start_part(name).await?;
        let new: Vec<_> = started.keys().cloned().collect();
        self.copies.extend(started);
        match self.wait_until_ready(&new).await {
            Ok(()) => {
                self.lead(name).await?;
                self.stop(&old).await?;
                Ok(true)
            }
            Err(DevError::Stopped) => Err(DevError::Stopped),
            Err(error) => {
                let stays = if old.is_empty() { "" } else { "; the old one stays" };
                self.stop(&new).await?;
                self.tell.trouble(format!("{error}{stays}"));
                Ok(false)
            }
        }
    }

    /// Stops and removes copies.
    pub(super) async fn stop(&mut self, ids: &[InstanceId]) -> Result<(), DevError> {
        let stops = ids.iter().map(|id| self.stop_one(id));
        let stopped: Result<Vec<()>, EngineError> = futures::future::join_all(stops).await.into_iter().collect();
        for id in ids {
            if let Some(copy) = self.copies.remove(id) {
                copy.follower.finish().await;
            }
        }
        stopped?;
        Ok(())
    }

    pub(super) async fn stop_one(&self, id: &InstanceId) -> Result<(), EngineError> {
        tokio::select! {
            stopped = self.engine.runtime.stop(id, self.grace(&id.process)) => stopped,
            () = self.stops.kill.cancelled() => self.engine.runtime.stop(id, Duration::ZERO).await,
        }
    }

    /// Waits until instances take connections.
    async fn wait_until_ready(&self, ids: &[InstanceId]) -> Result<(), DevError> {
        for id in ids {
            self.wait_until_one_is_ready(id).await?;
        }
        Ok(())
    }

    async fn wait_until_one_is_ready(&self, id: &InstanceId) -> Result<(), DevError> {
        let deadline = Instant::now() + READY;
        loop {
            let part = || self.voice(id).name;
            let seen = self.engine.runtime.inspect(id).await?;
            let address = match seen.map(|instance| instance.state) {
                None => return Err(DevError::EndedEarly { part: part(), exit: Exit::default() }),
                Some(InstanceState::Exited(exit)) => return Err(DevError::EndedEarly { part: part(), exit }),
                Some(InstanceState::Running { address, .. }) => address,
            };
            let Some(address) = address else { return Ok(()) };
            if tokio::time::timeout(GRACE, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(DevError::NotReady { part: part(), address: address.to_string(), seconds: READY.as_secs() });
            }
            tokio::select! {
                () = self.stops.stop.cancelled() => return Err(DevError::Stopped),
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

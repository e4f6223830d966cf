//! Running instances: [`Runtime`] over shims.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::{
    EngineError, Exit, Instance, InstanceEvent, InstanceSpec, Isolation, LogLine, LogQuery, Missing, OutputSink, Runtime, Stats,
};
use coracle_model::{AppName, CommandLine, InstanceId, ProcessSpec, ReleaseNumber, Span};
use futures::StreamExt;
use futures::stream::BoxStream;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::attached::{self, AttachedError};
use crate::files::{give_to, make_directory, remove_tree};
use crate::instance::{Shim, Standing, stats_of_descendants};
use crate::kept_task;
use crate::logs;
use crate::site::Site;
use crate::slug::SlugName;
use crate::surroundings::{hand_over, task_of};
use crate::task::{Answer, PortChoice, Task, TaskGroup};

/// How long a shim may take to start a program or to say why it cannot.
const START_LIMIT: Span = Span::seconds(20);

/// How long a shim may take to kill everything and to end.
const KILL_DEADLINE: Duration = Duration::from_secs(8);

/// How long an `exec` may run: its caller cancels it, this only bounds what nobody waits for.
const EXEC_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Runs instances under shims.
pub(crate) struct ProcessRuntime {
    site: Arc<Site>,
}

impl ProcessRuntime {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        let runtime = Self { site };
        runtime.take_over();
        runtime
    }

    /// Watches the instances that run from before, and removes what starts that were cut off left behind.
    fn take_over(&self) {
        for id in self.ids() {
            let directory = self.site.home.instance(&id);
            match Standing::of(&directory) {
                Ok(Standing::Running(_, shim)) => self.site.watch(id, shim),
                Ok(Standing::Abandoned) => {
                    if let Err(error) = remove_tree(&directory) {
                        tracing::warn!(%id, %error, "what a start that was cut off left behind cannot be removed");
                    }
                }
                _ => {}
            }
        }
    }

    fn ids(&self) -> Vec<InstanceId> {
        let entries = std::fs::read_dir(self.site.home.instances()).into_iter().flatten().filter_map(Result::ok);
        let mut ids: Vec<InstanceId> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort();
        ids
    }

    fn standing(&self, id: &InstanceId) -> Result<Standing, EngineError> {
        Standing::of(&self.site.home.instance(id)).map_err(|error| EngineError::io(format!("look at {id}"), &error))
    }

    /// The same, after a start by somebody else has come to its end.
    async fn settled(&self, id: &InstanceId) -> Result<Standing, EngineError> {
        let deadline = tokio::time::Instant::now() + START_LIMIT.duration();
        loop {
            match self.standing(id)? {
                Standing::Starting if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                standing => return Ok(standing),
            }
        }
    }

    /// Starts a new instance in a directory of its own.
    async fn launch(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        let site = &self.site;
        let no_artifact = || EngineError::NoSuchArtifact(spec.artifact.clone());
        let slug = SlugName::parse(&spec.artifact).ok_or_else(no_artifact)?;
        let record = slug.read(&site.home)?.ok_or_else(no_artifact)?;
        if let Some(handed) = spec.surroundings.handed.clone() {
            let tree = slug.tree(&site.home);
            in_background(move || hand_over(&tree, &handed)).await?;
        }
        let task = task_of(site, spec, &slug, &record)?;
        let directory = site.home.instance(&spec.id);
        prepare(&directory, &task).map_err(|error| EngineError::io(format!("write {}", directory.display()), &error))?;
        if let Err(cause) = start_shim(&site.program, &directory, &task).await {
            self.discard(&spec.id).await?;
            return Err(EngineError::CannotStart { id: spec.id.clone(), cause });
        }
        site.tell(InstanceEvent::Started(spec.id.clone()));
        let standing = self.standing(&spec.id)?;
        match &standing {
            Standing::Running(record, _) => match Shim::find(record) {
                Some(shim) => site.watch(spec.id.clone(), shim),
                None => site.tell(InstanceEvent::Exited(spec.id.clone())),
            },
            _ => site.tell(InstanceEvent::Exited(spec.id.clone())),
        }
        let no_trace = || EngineError::CannotStart { id: spec.id.clone(), cause: "its shim left no trace".to_owned() };
        standing.into_instance(spec.id.clone()).ok_or_else(no_trace)
    }

    /// Ends a shim and all it has started: asks, insists, kills.
    async fn end(&self, shim: &Shim, grace: Duration) {
        shim.signal(Signal::TERM);
        if shim.ended_within(grace).await {
            return;
        }
        shim.signal(Signal::TERM);
        if shim.ended_within(KILL_DEADLINE).await {
            return;
        }
        shim.signal(Signal::KILL);
        shim.ended_within(KILL_DEADLINE).await;
    }

    /// Removes what is left of an instance that does not run.
    async fn discard(&self, id: &InstanceId) -> Result<(), EngineError> {
        self.site.kill_strays(id).await;
        let (site, id) = (Arc::clone(&self.site), id.clone());
        in_background(move || {
            site.remove_group(&id.to_string())?;
            let directory = site.home.instance(&id);
            remove_tree(&directory).map_err(|error| EngineError::io(format!("remove {}", directory.display()), &error))
        })
        .await
    }

    /// Ends and removes an instance whose lock the caller holds.
    async fn stop_locked(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        match self.settled(id).await? {
            Standing::Absent => return Ok(()),
            Standing::Running(_, shim) => self.end(&shim, grace).await,
            Standing::Starting | Standing::Abandoned | Standing::Exited(_) => {}
        }
        self.discard(id).await
    }

    /// Hands on what an instance writes until it ends, and how it ended.
    async fn follow(&self, id: &InstanceId, output: &OutputSink) -> Result<Exit, EngineError> {
        let query = LogQuery { tail: None, since: None, follow: true };
        let mut lines = self.logs(id, &query).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            output.line(line.stream, line.text);
        }
        match self.standing(id)? {
            Standing::Exited(exit) => Ok(exit),
            _ => Ok(Exit::default()),
        }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn start(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        let _turn = self.site.lock(&spec.id).await;
        match self.settled(&spec.id).await? {
            Standing::Absent => {}
            standing @ Standing::Running(..) => {
                return standing.into_instance(spec.id.clone()).ok_or_else(|| EngineError::NoSuchInstance(spec.id.clone()));
            }
            Standing::Exited(_) | Standing::Abandoned | Standing::Starting => self.discard(&spec.id).await?,
        }
        self.launch(spec).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let _turn = self.site.lock(id).await;
        self.stop_locked(id, grace).await
    }

    async fn list(&self) -> Result<Vec<Instance>, EngineError> {
        let mut all = Vec::new();
        for id in self.ids() {
            all.extend(self.standing(&id)?.into_instance(id));
        }
        Ok(all)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<Instance>, EngineError> {
        Ok(self.standing(id)?.into_instance(id.clone()))
    }

    async fn logs(
        &self,
        id: &InstanceId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let directory = self.site.home.instance(id);
        if !directory.is_dir() {
            return Err(EngineError::NoSuchInstance(id.clone()));
        }
        logs::lines(&directory, query)
    }

    async fn stats(&self, id: &InstanceId) -> Result<Stats, EngineError> {
        let record = match self.standing(id)? {
            Standing::Running(record, _) => record,
            Standing::Exited(_) => return Ok(Stats { memory_bytes: 0, cpu_us: 0, pids: 0 }),
            _ => return Err(EngineError::NoSuchInstance(id.clone())),
        };
        let name = format!("{}/{id}", crate::confine::groups_of(self.site.owner.as_str()));
        Ok(match self.site.means.hierarchy.find(&name).map(|group| group.stats()) {
            Some(used) => Stats { memory_bytes: used.memory_bytes, cpu_us: used.cpu_us, pids: used.pids },
            None => stats_of_descendants(record.pid),
        })
    }

    async fn exec(
        &self,
        id: &InstanceId,
        argv: &[String],
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let Standing::Running(record, _) = self.standing(id)? else {
            return Err(EngineError::NoSuchInstance(id.clone()));
        };
        let cannot = |cause: String| EngineError::CannotStart { id: id.clone(), cause };
        let task = kept_task::of_shim(&record).map_err(|error| EngineError::io(format!("read the task of {id}"), &error))?;
        let task = Task {
            command: CommandLine::literal(argv.to_vec()).map_err(|error| cannot(error.to_string()))?,
            port: record.port.map_or(PortChoice::None, PortChoice::Same),
            group: task.group.map(|group| TaskGroup { name: group.name, limits: None, delegated: false, supervisors: None }),
            join: Some(record.pid),
            file_system: None,
            ..task
        };
        attached::run(&self.site.program, &task, output, EXEC_DEADLINE, cancel).await.map_err(|error| match error {
            AttachedError::Cancelled => EngineError::Cancelled,
            AttachedError::CannotStart(cause) => cannot(cause),
            AttachedError::TimedOut => EngineError::TimedOut { action: format!("exec in {id}"), limit: Span::seconds(24 * 3600) },
            AttachedError::Shim(cause) => EngineError::Failed { action: format!("exec in {id}"), cause },
        })
    }

    async fn run(
        &self,
        spec: &InstanceSpec,
        output: &OutputSink,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let id = &spec.id;
        let timed_out = || {
            let limit = Span::millis(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
            EngineError::TimedOut { action: format!("run {id}"), limit }
        };
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.start(spec).await?;
        spec.surroundings.started.now();
        let outcome = tokio::select! {
            outcome = self.follow(id, output) => outcome,
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            () = tokio::time::sleep(deadline) => Err(timed_out()),
        };
        self.stop(id, Duration::ZERO).await?;
        outcome
    }

    fn events(&self) -> BoxStream<'static, InstanceEvent> {
        // One that is too far behind has missed some, which events may be.
        Box::pin(BroadcastStream::new(self.site.listen()).filter_map(|event| async { event.ok() }))
    }

    async fn prepare_release(&self, _app: &AppName, _release: ReleaseNumber) -> Result<(), EngineError> {
        Ok(())
    }

    async fn remove_release(&self, _app: &AppName, _release: ReleaseNumber) -> Result<(), EngineError> {
        // A release owns nothing here but its instances; its slug is an artifact.
        Ok(())
    }

    /// Instances share the machine's network.
    async fn remove_apart(&self, _: &AppName, _: ReleaseNumber, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn remove_app(&self, app: &AppName) -> Result<(), EngineError> {
        for id in self.ids().into_iter().filter(|id| id.app == *app) {
            self.stop(&id, Duration::ZERO).await?;
        }
        let (site, app) = (Arc::clone(&self.site), app.clone());
        in_background(move || {
            site.remove_groups(&format!("{app}."))?;
            let volumes = site.home.volumes(&app);
            remove_tree(&volumes).map_err(|error| EngineError::io(format!("remove {}", volumes.display()), &error))?;
            site.forget_user(&app)
        })
        .await
    }

    /// Instances share the machine's network, so they reach each other anyway.
    async fn join(&self, _: &InstanceId, _: ReleaseNumber, _: &[String]) -> Result<(), EngineError> {
        Ok(())
    }

    async fn put(&self, id: &InstanceId, _: Vec<u8>) -> Result<(), EngineError> {
        Err(not_done_here(format!("copy files into {id}")))
    }

    async fn restart(&self, id: &InstanceId, _: Duration) -> Result<(), EngineError> {
        Err(not_done_here(format!("restart {id}")))
    }

    fn cannot_honour(&self, part: &ProcessSpec) -> Vec<&'static str> {
        crate::surroundings::cannot_honour(part)
    }

    async fn missing(&self, _: &ProcessSpec) -> Result<Vec<Missing>, EngineError> {
        Ok(Vec::new())
    }

    fn isolation(&self) -> Isolation {
        self.site.means.report()
    }
}

fn not_done_here(action: String) -> EngineError {
    EngineError::Failed { action, cause: "the process engine does not do that: deploy the change".to_owned() }
}

/// Makes the directory of an instance.
fn prepare(directory: &Path, task: &Task) -> std::io::Result<()> {
    let home = directory.join("home");
    make_directory(directory, 0o700)?;
    make_directory(&home, 0o700)?;
    give_to(&home, task.confinement.user)
}

/// Starts the shim of an instance and waits for its word that the program runs. The error is the cause, in words.
async fn start_shim(program: &Path, directory: &Path, task: &Task) -> Result<(), String> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| error.to_string())?;
    let mut child = tokio::process::Command::new(program)
        .arg("shim")
        .arg(directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let answer = async {
        ours.set_nonblocking(true).map_err(|error| error.to_string())?;
        let socket = tokio::net::UnixStream::from_std(ours).map_err(|error| error.to_string())?;
        let (reader, mut writer) = socket.into_split();
        // A shim that ends before it has read the task says why in its answer.
        attached::send(&mut writer, task).await.ok();
        let line = BufReader::new(reader).lines().next_line().await.map_err(|error| error.to_string())?;
        match line.map(|line| serde_json::from_str(&line)) {
            Some(Ok(Answer::Started { .. })) => Ok(()),
            Some(Ok(Answer::Failed { cause })) => Err(cause),
            Some(Ok(Answer::Exited { .. })) => Err("the shim spoke out of turn".to_owned()),
            Some(Err(error)) => Err(format!("the shim said nonsense: {error}")),
            None => {
                let mut why = String::new();
                if let Some(pipe) = &mut child.stderr {
                    tokio::io::AsyncReadExt::read_to_string(pipe, &mut why).await.ok();
                }
                Err(format!("the shim ended without an answer: {}", why.trim()))
            }
        }
    };
    let answer = tokio::time::timeout(START_LIMIT.duration(), answer).await;
    // The process that was started has forked the shim and ended.
    if tokio::time::timeout(KILL_DEADLINE, child.wait()).await.is_err() {
        child.kill().await.ok();
    }
    answer.unwrap_or_else(|_| Err(format!("not started within {START_LIMIT}")))
}

/// Runs file work where it may block.
pub(crate) async fn in_background<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<EngineError> + Send + 'static,
{
    let lost = |error: tokio::task::JoinError| EngineError::Failed { action: "file work".to_owned(), cause: error.to_string() };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(error).into()))
}

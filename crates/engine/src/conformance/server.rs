//! What a server does with its engine, in the words of the checks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_model::{
    AppName, Artifact, ArtifactId, ByteSize, CommandLine, Cpus, EnvName, InstanceId, Limits, ProcessName, ReleaseNumber, Secret,
    Span, VolumeMount,
};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::trees::Tree;
use super::waiting::{eventually, get, soon};
use super::{Fixture, app};
use crate::builder::{BuildLimits, BuildRequest, OutputLine, OutputSink};
use crate::error::{BuildError, EngineError};
use crate::runtime::{Exit, Instance, InstanceSpec, InstanceState, LogQuery, PortRequest, Stream};
use crate::{Builder, Engine, Runtime};

/// A server as the checks see it.
pub struct Server {
    engine: Engine,
    artifact: Option<Artifact>,
}

/// Long enough for whatever should end by itself.
pub(super) const GRACE: Duration = Duration::from_secs(10);

impl Server {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, artifact: None }
    }

    /// Its runtime.
    pub fn runtime(&self) -> &dyn Runtime {
        self.engine.runtime.as_ref()
    }

    /// Its builder.
    pub fn builder(&self) -> &dyn Builder {
        self.engine.builder.as_ref()
    }

    /// Gets an artifact of the test program.
    pub(super) async fn build_program(&mut self, fixture: &dyn Fixture) {
        let built = self.build(fixture, 1, Tree::Program(1), &OutputSink::discard(), &CancellationToken::new()).await;
        self.artifact = Some(built.expect("every engine builds the test program").unwrap());
    }

    /// What was built.
    pub(super) fn artifact(&self) -> &Artifact {
        self.artifact.as_ref().unwrap()
    }

    /// Builds a tree for the app `shop`; `None` if the engine has no such build.
    pub(super) async fn build(
        &self,
        fixture: &dyn Fixture,
        release: u32,
        tree: Tree,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Option<Result<Artifact, BuildError>> {
        self.build_within(fixture, release, tree, Span::seconds(150), output, cancel).await
    }

    /// Builds a tree within a deadline.
    pub(super) async fn build_within(
        &self,
        fixture: &dyn Fixture,
        release: u32,
        tree: Tree,
        deadline: Span,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Option<Result<Artifact, BuildError>> {
        let source = tempfile::tempdir().unwrap();
        let plan = fixture.tree(tree, source.path()).await?;
        let request = BuildRequest {
            app: app("shop"),
            release: ReleaseNumber::new(release).unwrap(),
            part: None,
            contexts: Default::default(),
            source: source.path().to_owned(),
            plan,
            limits: BuildLimits { memory: ByteSize::mib(512), cpus: Cpus::milli(1000), deadline },
            logins: Default::default(),
        };
        let before = contents(source.path());
        let built = self.builder().build(&request, output, cancel).await;
        assert_eq!(contents(source.path()), before, "the builder only reads the source");
        Some(built)
    }

    /// An instance that runs the test program with these arguments.
    pub(super) fn spec(&self, id: &str, arguments: &[&str]) -> InstanceSpec {
        let id: InstanceId = id.parse().unwrap();
        let port = if id.process == ProcessName::web() { PortRequest::Listen(8080) } else { PortRequest::None };
        InstanceSpec {
            id,
            artifact: self.artifact().id.clone(),
            command: Some(CommandLine::literal(argv(arguments)).unwrap()),
            env: Vec::new(),
            port,
            limits: Limits::default(),
            volumes: Vec::new(),
            surroundings: Default::default(),
        }
    }

    /// Starts an instance and has it running.
    pub(super) async fn start(&self, spec: &InstanceSpec) -> Instance {
        soon("a start", self.runtime().start(spec)).await.unwrap()
    }

    /// Starts a web instance and has its first answer.
    pub(super) async fn serve(&self, id: &str, greeting: &str) -> SocketAddr {
        let address = self.start(&self.spec(id, &["serve"]).with_env("GREETING", greeting)).await.address().unwrap();
        assert_eq!(get(address).await, greeting);
        address
    }

    /// Stops an instance that goes willingly.
    pub(super) async fn stop(&self, id: &str) {
        soon("a stop", self.runtime().stop(&id.parse().unwrap(), GRACE)).await.unwrap();
    }

    /// How an instance stands.
    pub(super) async fn inspect(&self, id: &str) -> Option<Instance> {
        self.runtime().inspect(&id.parse().unwrap()).await.unwrap()
    }

    /// The ids of everything there is.
    pub(super) async fn ids(&self) -> Vec<String> {
        self.runtime().list().await.unwrap().into_iter().map(|instance| instance.id.to_string()).collect()
    }

    /// How an instance ends.
    pub(super) async fn exit_of(&self, id: &str) -> Exit {
        eventually(&format!("the end of {id}"), || async {
            match self.inspect(id).await.expect("an exited instance stays").state {
                InstanceState::Exited(exit) => Some(exit),
                InstanceState::Running { .. } => None,
            }
        })
        .await
    }

    /// What an instance has written so far, as far as the query wants it.
    pub(super) async fn log(&self, id: &str, query: LogQuery) -> Vec<crate::LogLine> {
        let lines = soon("a log", self.runtime().logs(&id.parse().unwrap(), &query)).await.unwrap();
        soon("the end of a log", lines.try_collect()).await.unwrap()
    }

    /// What an instance has written to one stream.
    pub(super) async fn written(&self, id: &str, stream: Stream) -> Vec<String> {
        let lines = self.log(id, LogQuery::default()).await;
        lines.into_iter().filter(|line| line.stream == stream).map(|line| line.text).collect()
    }

    /// Waits until an instance has written a line.
    pub(super) async fn until_written(&self, id: &str, line: &str) {
        eventually(&format!("{line:?} from {id}"), || async {
            self.written(id, Stream::Stdout).await.iter().any(|written| written == line).then_some(())
        })
        .await;
    }

    /// Runs a one-off process to its end.
    pub(super) async fn run(&self, spec: &InstanceSpec) -> (Result<Exit, EngineError>, Vec<OutputLine>) {
        let heard = Heard::default();
        let (sink, never) = (heard.sink(), CancellationToken::new());
        let run = self.runtime().run(spec, &sink, Duration::from_secs(15), &never);
        (soon("a one-off process", run).await, heard.lines())
    }

    /// Whether an artifact is there.
    pub(super) async fn has(&self, artifact: &ArtifactId) -> bool {
        self.builder().has(artifact).await.unwrap()
    }

    /// Removes what the app `shop` has built, but for these.
    pub(super) async fn prune(&self, keep: &[ArtifactId]) {
        self.builder().prune(&app("shop"), keep).await.unwrap();
    }

    /// Removes an app.
    pub(super) async fn remove_app(&self, app: &AppName) {
        soon("the removal of an app", self.runtime().remove_app(app)).await.unwrap();
    }
}

/// The test program with these arguments.
pub(super) fn argv(arguments: &[&str]) -> Vec<String> {
    ["python3", "program.py"].iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

impl InstanceSpec {
    pub(super) fn with_env(mut self, name: &str, value: &str) -> Self {
        let name: EnvName = name.parse().unwrap();
        self.env.push((name, Secret::from(value)));
        self
    }

    pub(super) fn with_volume(mut self, volume: &str) -> Self {
        let volume: VolumeMount = volume.parse().unwrap();
        self.volumes.push(volume);
        self
    }
}

/// Keeps the lines that a sink is told.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<OutputLine>>>);

impl Heard {
    pub(super) fn sink(&self) -> OutputSink {
        let lines = self.0.clone();
        OutputSink::new(move |line| lines.lock().unwrap().push(line))
    }

    pub(super) fn lines(&self) -> Vec<OutputLine> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn text(&self) -> String {
        self.lines().into_iter().map(|line| line.text + "\n").collect()
    }

    /// Fires the token when a line that contains this has been told.
    pub(super) fn cancel_after(&self, text: &'static str, cancel: &CancellationToken) -> OutputSink {
        let (sink, cancel) = (self.sink(), cancel.clone());
        OutputSink::new(move |line| {
            let now = line.text.contains(text);
            sink.line(line.stream, line.text);
            if now {
                cancel.cancel();
            }
        })
    }
}

/// The names and contents of the files in a directory.
fn contents(directory: &std::path::Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap_or_default())).collect();
    files.sort();
    files
}

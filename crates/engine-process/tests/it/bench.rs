//! A place to work at: an engine in a directory of its own, and the shortest ways to build and start something.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use coracle_engine::{
    BuildError, BuildLimits, BuildRequest, Engine, EngineError, Exit, Instance, InstanceSpec, LogQuery, OutputLine, OutputSink,
    PortRequest,
};
use coracle_engine_process::{IsolationMode, ProcessEngine, ProcessOptions};
use coracle_model::plan::Recipe;
use coracle_model::{
    AppName, Artifact, ArtifactId, BuildPlan, ByteSize, CommandLine, Cpus, InstanceId, Limits, ReleaseNumber, Secret, Span,
};
use futures::StreamExt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How long anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engine: Engine,
    pub(crate) app: AppName,
    mode: IsolationMode,
}

pub(crate) fn helper() -> PathBuf {
    let copied = std::env::var_os("CORACLE_TEST_HELPER").map(PathBuf::from);
    copied.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_coracle-process-helper")))
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn owner(dir: &Path) -> String {
    blake3::hash(dir.to_str().unwrap().as_bytes()).to_hex().chars().take(12).collect()
}

fn open(dir: &Path, mode: IsolationMode) -> Engine {
    let options =
        ProcessOptions { owner: owner(dir).parse().unwrap(), dir: dir.join("engine"), program: helper(), isolation: mode };
    ProcessEngine::open(options).unwrap().engine()
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(IsolationMode::Auto)
    }

    pub(crate) fn with(mode: IsolationMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), mode);
        Self { engine, dir, app: "shop".parse().unwrap(), mode }
    }

    /// As if the server had been killed and started again.
    pub(crate) fn reopen(&mut self) {
        self.engine = open(self.dir.path(), self.mode);
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    pub(crate) fn id(&self, text: &str) -> InstanceId {
        format!("{}.{text}", self.app).parse().unwrap()
    }

    /// Writes files into a new source directory.
    pub(crate) fn source(&self, files: &[(&str, &str)]) -> PathBuf {
        let source = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        for (name, text) in files {
            let file = source.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        source
    }

    pub(crate) fn request(&self, source: &Path, recipe: Recipe) -> BuildRequest {
        BuildRequest {
            app: self.app.clone(),
            release: ReleaseNumber::new(1).unwrap(),
            part: None,
            contexts: Default::default(),
            source: source.to_owned(),
            plan: BuildPlan {
                recipe,
                processes: [].into(),
                release_command: None,
                reason: "a test".to_owned(),
                serving: Default::default(),
            },
            limits: BuildLimits { memory: ByteSize::mib(512), cpus: Cpus::milli(2000), deadline: Span::seconds(180) },
            logins: Default::default(),
        }
    }

    pub(crate) async fn try_build(&self, request: &BuildRequest) -> (Result<Artifact, BuildError>, Vec<String>) {
        let (sink, lines) = collector();
        let outcome = self.engine.builder.build(request, &sink, &CancellationToken::new()).await;
        (outcome, lines.lock().unwrap().iter().map(|line| line.text.clone()).collect())
    }

    pub(crate) async fn build(&self, source: &Path, recipe: Recipe) -> Artifact {
        let (outcome, lines) = self.try_build(&self.request(source, recipe)).await;
        outcome.unwrap_or_else(|error| panic!("{error}\n{}", lines.join("\n")))
    }

    /// A slug with one Python program.
    pub(crate) async fn python(&self, program: &str) -> ArtifactId {
        let source = self.source(&[("app.py", program)]);
        self.build(&source, Recipe::Plain).await.id
    }

    pub(crate) fn spec(&self, id: &str, artifact: &ArtifactId, argv: &[&str]) -> InstanceSpec {
        InstanceSpec {
            id: self.id(id),
            artifact: artifact.clone(),
            command: Some(CommandLine::literal(argv.iter().map(|word| (*word).to_owned()).collect()).unwrap()),
            env: vec![("GREETING".parse().unwrap(), Secret::from("hello"))],
            port: PortRequest::None,
            limits: Limits::default(),
            volumes: Vec::new(),
            surroundings: Default::default(),
        }
    }

    pub(crate) async fn start(&self, spec: &InstanceSpec) -> Instance {
        self.engine.runtime.start(spec).await.unwrap()
    }

    /// The control groups of its instances, and those below them.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let of_the_app = format!("{}/{}", owner(self.dir.path()), self.app);
        let places = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(5).into_iter().filter_map(Result::ok);
        places.map(walkdir::DirEntry::into_path).filter(|place| place.to_string_lossy().contains(&of_the_app)).collect()
    }

    pub(crate) async fn stop(&self, id: &InstanceId) {
        self.engine.runtime.stop(id, Duration::from_secs(5)).await.unwrap();
    }

    /// Runs a Python program to its end.
    pub(crate) async fn run(&self, id: &str, program: &str) -> (Result<Exit, EngineError>, String) {
        let artifact = self.python(program).await;
        self.run_spec(&self.spec(id, &artifact, &["/usr/bin/python3", "-u", "app.py"])).await
    }

    pub(crate) async fn run_spec(&self, spec: &InstanceSpec) -> (Result<Exit, EngineError>, String) {
        let (sink, lines) = collector();
        let outcome = self.engine.runtime.run(spec, &sink, SOON, &CancellationToken::new()).await;
        let text: Vec<String> = lines.lock().unwrap().iter().map(|line| line.text.clone()).collect();
        (outcome, text.join("\n"))
    }

    pub(crate) async fn log(&self, id: &InstanceId) -> Vec<String> {
        let lines = self.engine.runtime.logs(id, &LogQuery::default()).await.unwrap();
        lines.map(|line| line.unwrap().text).collect().await
    }

    /// Waits until the instance has written this line.
    pub(crate) async fn wrote(&self, id: &InstanceId, wanted: &str) {
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut lines = self.engine.runtime.logs(id, &query).await.unwrap();
        let found = tokio::time::timeout(SOON, async {
            while let Some(line) = lines.next().await {
                if line.unwrap().text == wanted {
                    return true;
                }
            }
            false
        });
        assert!(found.await.is_ok_and(|found| found), "{id} never wrote {wanted:?}: {:?}", self.log(id).await);
    }
}

impl Drop for Bench {
    /// A test that failed leaves no instance behind.
    fn drop(&mut self) {
        let instances = std::fs::read_dir(self.home().join("instances")).into_iter().flatten().filter_map(Result::ok);
        for instance in instances {
            if let Ok(text) = std::fs::read_to_string(instance.path().join("pid.json"))
                && let Some(pid) = serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64()
                && !instance.path().join("exit.json").exists()
            {
                rustix::process::kill_process(
                    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
                    rustix::process::Signal::KILL,
                )
                .ok();
            }
        }
        remove_groups(&owner(self.dir.path()));
        // Sealed directories of an ordinary user do not let themselves be removed otherwise.
        for entry in walkdir::WalkDir::new(self.dir.path()).into_iter().filter_map(Result::ok) {
            if entry.file_type().is_dir() {
                std::fs::set_permissions(entry.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).ok();
            }
        }
    }
}

/// Removes the control groups of a server, which no instance is in any more.
pub(crate) fn remove_groups(owner: &str) {
    let hierarchy = coracle_jail::Hierarchy::detect();
    let base = format!("coracle/{owner}");
    for name in hierarchy.children(&base).into_iter().chain([base.clone()]) {
        if let Some(group) = hierarchy.find(&name) {
            group.kill(Duration::from_secs(2));
            group.remove(Duration::from_secs(2)).ok();
        }
    }
}

pub(crate) fn collector() -> (OutputSink, Arc<Mutex<Vec<OutputLine>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let lines = Arc::clone(&lines);
        OutputSink::new(move |line| lines.lock().unwrap().push(line))
    };
    (sink, lines)
}

/// Says loudly that a test did not run.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
pub(crate) fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Polls until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

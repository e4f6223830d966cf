//! An engine with an owner of its own, so that tests do not see each other, and a look from outside.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use coracle_engine::{BuildError, BuildLimits, BuildRequest, Engine, InstanceSpec, OutputLine, OutputSink, PortRequest};
use coracle_engine_docker::{DockerEngine, DockerOptions};
use coracle_model::plan::Recipe;
use coracle_model::stack::PullPolicy;
use coracle_model::{AppName, Artifact, ArtifactId, BuildPlan, ByteSize, CommandLine, Cpus, InstanceId, Limits, OwnerId, Span};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const PYTHON: &str = "python:3.11-slim";
pub(crate) const DEBIAN: &str = "debian:bookworm-slim";

pub(crate) struct Rig {
    pub(crate) docker: Docker,
    pub(crate) handle: DockerEngine,
    pub(crate) engine: Engine,
    pub(crate) owner: OwnerId,
    pub(crate) app: AppName,
    pub(crate) dir: TempDir,
}

/// The lines a build or a program wrote.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<OutputLine>>>);

impl Told {
    pub(crate) fn sink(&self) -> OutputSink {
        let lines = self.0.clone();
        OutputSink::new(move |line| lines.lock().unwrap().push(line))
    }

    pub(crate) fn lines(&self) -> Vec<OutputLine> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().iter().map(|line| format!("{}\n", line.text)).collect()
    }
}

impl Rig {
    /// `None` where there is no engine and that may be.
    pub(crate) async fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let owner = unique_owner();
        let handle = connect(&owner, dir.path(), DEBIAN).await?;
        let docker = Docker::connect_with_defaults().unwrap();
        let rig = Self { docker, engine: handle.engine(), handle, owner, app: "shop".parse().unwrap(), dir };
        // Different for every test, so that a build that copies it finds nothing of another test in the cache.
        rig.file("owner", rig.owner.as_str());
        Some(rig)
    }

    /// Writes a file of the source tree.
    pub(crate) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.path().join("source").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn request(&self, recipe: Recipe, release: u32) -> BuildRequest {
        BuildRequest {
            app: self.app.clone(),
            release: release.to_string().parse().unwrap(),
            part: None,
            contexts: Default::default(),
            source: self.dir.path().join("source"),
            plan: BuildPlan {
                recipe,
                processes: Default::default(),
                release_command: None,
                reason: "test".into(),
                serving: Default::default(),
            },
            limits: BuildLimits { memory: ByteSize::mib(512), cpus: Cpus::milli(1000), deadline: Span::seconds(120) },
            logins: Default::default(),
        }
    }

    /// Builds the Dockerfile as the given release.
    pub(crate) async fn try_build(&self, release: u32, told: &Told) -> Result<Artifact, BuildError> {
        let request = self.request(dockerfile(), release);
        self.engine.builder.build(&request, &told.sink(), &CancellationToken::new()).await
    }

    pub(crate) async fn build(&self, release: u32) -> Artifact {
        let told = Told::default();
        self.try_build(release, &told).await.unwrap_or_else(|error| panic!("{error}\n{}", told.text()))
    }

    /// Debian as an artifact, without a build.
    pub(crate) async fn debian(&self) -> ArtifactId {
        let request = self.request(Recipe::Image { reference: DEBIAN.into(), pull: PullPolicy::Missing }, 1);
        let built = self.engine.builder.build(&request, &OutputSink::discard(), &CancellationToken::new()).await;
        built.unwrap().id
    }

    pub(crate) fn spec(&self, id: &str, artifact: &ArtifactId, argv: &[&str]) -> InstanceSpec {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        InstanceSpec {
            id: id.parse().unwrap(),
            artifact: artifact.clone(),
            command: Some(CommandLine::literal(argv).unwrap()),
            env: Vec::new(),
            port: PortRequest::None,
            limits: Limits::default(),
            volumes: Vec::new(),
            surroundings: Default::default(),
        }
    }

    /// The name of the container of an instance.
    pub(crate) fn container(&self, id: &InstanceId) -> String {
        format!("coracle-{}.{id}", self.owner)
    }

    /// Runs the `docker` program and answers what it printed, line by line.
    pub(crate) fn seen_by_docker(&self, arguments: &[&str]) -> Vec<String> {
        see(arguments)
    }

    /// Removes everything, and checks that it is gone.
    pub(crate) async fn clean(self) {
        self.engine.runtime.remove_app(&self.app).await.unwrap();
        self.engine.builder.prune(&self.app, &[]).await.unwrap();
        assert_eq!(things_of(&self.owner), Vec::<String>::new());
    }
}

pub(crate) fn dockerfile() -> Recipe {
    Recipe::Dockerfile { path: "Dockerfile".into(), target: None, args: Default::default(), extras: Box::default() }
}

/// Waits for something to become true.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Connects to the engine and sees to the base image; `None` where there is no engine and that may be.
pub(crate) async fn connect(owner: &OwnerId, dir: &Path, image: &str) -> Option<DockerEngine> {
    let options = DockerOptions { owner: owner.clone(), socket: None, state_dir: dir.join("state") };
    let handle = match DockerEngine::connect(options).await {
        Ok(handle) => handle,
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("no container engine: {error}"),
        Err(error) => {
            eprintln!("SKIPPED, NOT TESTED: no container engine: {error}");
            return None;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/base-images");
    assert!(Command::new(script).arg(image).status().unwrap().success(), "no base image");
    Some(handle)
}

/// Runs the `docker` program and answers what it printed, line by line.
pub(crate) fn see(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Everything of an owner that the machine has.
pub(crate) fn things_of(owner: &OwnerId) -> Vec<String> {
    let label = format!("label=dev.coracle.owner={owner}");
    let mut things = see(&["ps", "-a", "--format", "container {{.Names}} {{.Status}}", "--filter", &label]);
    things.extend(see(&["network", "ls", "--format", "network {{.Name}}", "--filter", &label]));
    things.extend(see(&["volume", "ls", "--format", "volume {{.Name}}", "--filter", &label]));
    let images = see(&["images", "-a", "--format", "image {{.Repository}}:{{.Tag}}"]);
    things.extend(images.into_iter().filter(|image| image.contains(owner.as_str())));
    things
}

pub(crate) fn unique_owner() -> OwnerId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:05x}{:03x}{nanos:08x}", std::process::id() & 0xf_ffff, count & 0xfff).parse().unwrap()
}

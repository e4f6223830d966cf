//! One machine with a server on it, as far as the orchestrator sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::fake::{FakeEngine, Inventory};
use coracle_model::{AppName, AppSpec, EngineKind, EnvName, Outcome, Phase, Secret, Span};
use coracle_orchestrator::{
    DeployRequest, Deployed, Drained, Event, HostOrchestrator, OrchestratorError, Progress, Settings, StatefulChanges, Traffic,
    TrafficError,
};
use coracle_pipeline::{Pipeline, Trigger};
use coracle_proxy_table::{Admission, ServiceId, Table, TargetId};
use coracle_store::{ConfigChange, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// How long anything may take here before the test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the tables it was told, as the proxy does.
#[derive(Default)]
pub(crate) struct Proxy {
    pub(crate) tables: Mutex<Vec<Table>>,
    pub(crate) drained: Mutex<Vec<TargetId>>,
    pub(crate) is_down: AtomicBool,
}

#[async_trait]
impl Traffic for Proxy {
    async fn publish(&self, table: Table) -> Result<(), TrafficError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(TrafficError("it is down".to_owned()));
        }
        table.check().map_err(|error| TrafficError(error.to_string()))?;
        let mut tables = self.tables.lock().unwrap();
        assert!(tables.last().is_none_or(|last| last.generation < table.generation), "generations must grow");
        tables.push(table);
        Ok(())
    }

    async fn current(&self) -> Result<Table, TrafficError> {
        Ok(self.tables.lock().unwrap().last().cloned().unwrap_or_default())
    }

    async fn drain(&self, targets: &[TargetId], _deadline: Duration) -> Result<Drained, TrafficError> {
        let current = self.tables.lock().unwrap().last().cloned().unwrap_or_default();
        let routed =
            |id: &TargetId| current.services.values().any(|service| service.targets.iter().any(|target| target.id == *id));
        assert!(!targets.iter().any(routed), "a target that still gets requests was drained: {targets:?}");
        self.drained.lock().unwrap().extend(targets.iter().cloned());
        Ok(Drained { cut_off: 0 })
    }
}

pub(crate) struct World {
    pub(crate) machine: FakeEngine,
    /// The other engine, on which nothing runs.
    pub(crate) docker: FakeEngine,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) store: Store,
    pub(crate) orchestrator: HostOrchestrator,
    /// What deployments run.
    pub(crate) pipeline: Mutex<Pipeline>,
    reconcile: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

pub(crate) fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

pub(crate) fn env_name(name: &str) -> EnvName {
    name.parse().unwrap()
}

/// An app whose every deadline is short.
pub(crate) fn spec(name: &str) -> AppSpec {
    let mut spec = AppSpec::named(app(name));
    spec.http.health = Some("/up".to_owned());
    spec.deploy.timeout = Span::seconds(3);
    spec.deploy.watch = Span::millis(0);
    spec.deploy.drain = Span::seconds(1);
    spec.deploy.grace = Span::seconds(1);
    spec
}

impl World {
    pub(crate) async fn new() -> Self {
        // What the orchestrator logs belongs to a failing test's output.
        tracing_subscriber::fmt().with_test_writer().try_init().ok();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let store = Store::open(&dir.path().join("state")).await.unwrap();
        let machine = FakeEngine::new(EngineKind::Process);
        let proxy = Arc::new(Proxy::default());
        let docker = FakeEngine::new(EngineKind::Docker);
        let (orchestrator, reconcile) = start(&store, [&machine, &docker], &proxy, &dir.path().join("mounts")).await;
        let world = Self { machine, docker, proxy, store, orchestrator, pipeline: Mutex::default(), reconcile, dir };
        world.procfile("web: serve\n");
        world
    }

    /// What the tree's Procfile says from now on.
    pub(crate) fn procfile(&self, text: &str) {
        self.write("Procfile", text);
    }

    /// Writes a file of the tree.
    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join("tree").join(file), text).unwrap();
    }

    /// What deployments run from now on: the text of the steps.
    pub(crate) fn runs(&self, text: &str) {
        *self.pipeline.lock().unwrap() = Pipeline::parse(text).unwrap();
    }

    /// The server is gone from one moment to the next, and another one starts.
    pub(crate) async fn restart_server(&mut self) {
        self.reconcile.abort();
        (self.orchestrator, self.reconcile) =
            start(&self.store, [&self.machine, &self.docker], &self.proxy, &self.dir.path().join("mounts")).await;
    }

    pub(crate) fn request(&self, spec: AppSpec) -> DeployRequest {
        DeployRequest {
            spec,
            source: self.dir.path().join("tree"),
            commit: None,
            stateful: StatefulChanges::None,
            notes: Vec::new(),
            sent: None,
            pipeline: self.pipeline.lock().unwrap().clone(),
            policy: coracle_policy::Policy::default(),
            trigger: Trigger::Tree,
            by: None,
            fresh: false,
            force: false,
            incumbent: None,
            image: None,
            manifest: None,
        }
    }

    pub(crate) async fn deploy(&self, spec: AppSpec) -> Result<Deployed, OrchestratorError> {
        self.orchestrator.deploy(self.request(spec), &Progress::silent(), &CancellationToken::new()).await
    }

    pub(crate) async fn set_config(&self, name: &str, value: Option<&str>) -> Result<Option<Deployed>, OrchestratorError> {
        let change = ConfigChange { name: env_name(name), value: value.map(Secret::from), secret: false };
        self.orchestrator.set_config(&app("shop"), vec![change], &Progress::silent(), &CancellationToken::new()).await
    }

    pub(crate) async fn rollback(&self, to: Option<u32>) -> Result<Deployed, OrchestratorError> {
        let to = to.and_then(coracle_model::ReleaseNumber::new);
        self.orchestrator.rollback(&app("shop"), to, StatefulChanges::None, &Progress::silent(), &CancellationToken::new()).await
    }

    /// Deploys, and dies as a killed server does at the moment when `phase` is told: not another line of it runs.
    pub(crate) async fn deploy_and_die_in(&self, spec: AppSpec, phase: Phase) {
        let reconcile = self.reconcile.abort_handle();
        let progress = Progress::new(move |event| {
            if matches!(event, Event::Phase(now) if now == phase) {
                reconcile.abort();
                std::panic::resume_unwind(Box::new("killed"));
            }
        });
        let (orchestrator, request) = (self.orchestrator.clone(), self.request(spec));
        let task = tokio::spawn(async move { orchestrator.deploy(request, &progress, &CancellationToken::new()).await });
        let ended = tokio::time::timeout(PATIENCE, task).await.expect("the deployment neither ended nor died");
        assert!(ended.is_err_and(|error| error.is_panic()), "the phase was not reached");
    }

    /// What a request to the app is answered with, or why there is no answer.
    pub(crate) async fn get(&self, name: &str) -> Result<String, String> {
        let table = self.proxy.tables.lock().unwrap().last().cloned().unwrap_or_default();
        let service = table.services.get(&ServiceId(name.to_owned())).ok_or("no such service")?;
        let target = service.targets.first().ok_or_else(|| format!("{:?}", service.admission))?;
        let mut stream = tokio::net::TcpStream::connect(target.address).await.map_err(|error| error.to_string())?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
    }

    pub(crate) fn admission(&self, name: &str) -> Option<Admission> {
        let tables = self.proxy.tables.lock().unwrap();
        Some(tables.last()?.services.get(&ServiceId(name.to_owned()))?.admission.clone())
    }

    /// Whether requests for a service have been held, from table to table, each change once.
    pub(crate) fn holds(&self, name: &str) -> Vec<bool> {
        let tables = self.proxy.tables.lock().unwrap();
        let services = tables.iter().filter_map(|table| table.services.get(&ServiceId(name.to_owned())));
        let mut holds: Vec<bool> = services.map(|service| matches!(service.admission, Admission::Hold { .. })).collect();
        holds.dedup();
        holds
    }

    /// Waits until `holds`.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{what}: did not happen; {:?}", self.machine.inventory()));
    }

    pub(crate) async fn until_answers(&self, name: &str, body: &str) {
        self.until(&format!("{name} answers {body:?}"), async || self.get(name).await.as_deref() == Ok(body)).await;
    }

    pub(crate) async fn last_outcome(&self, name: &str) -> Outcome {
        self.store.deployments(&app(name), 1).await.unwrap().remove(0).outcome.expect("it has not ended")
    }

    /// What exists on the machine, instances as text.
    pub(crate) fn instances(&self) -> Vec<String> {
        let Inventory { instances, .. } = self.machine.inventory();
        instances.iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn releases(&self, name: &str) -> Vec<u32> {
        self.store.releases(&app(name)).await.unwrap().iter().map(|release| release.number.get()).collect()
    }

    pub(crate) async fn config(&self, name: &str) -> Option<String> {
        let entries = self.store.config(&app("shop")).await.unwrap();
        entries.iter().find(|entry| entry.name.as_str() == name).map(|entry| entry.value.expose().to_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.reconcile.abort();
    }
}

async fn start(
    store: &Store,
    machines: [&FakeEngine; 2],
    proxy: &Arc<Proxy>,
    mounts: &std::path::Path,
) -> (HostOrchestrator, tokio::task::JoinHandle<()>) {
    let settings = Settings {
        default_engine: EngineKind::Process,
        build_memory: coracle_model::ByteSize::mib(512),
        build_cpus: coracle_model::Cpus::milli(1000),
        tls: coracle_orchestrator::TlsOffer::default(),
        policy: coracle_policy::ServerPolicy::default(),
        mounts: mounts.to_owned(),
    };
    let orchestrator = HostOrchestrator::new(store.clone(), machines.map(FakeEngine::engine).into(), proxy.clone(), settings);
    orchestrator.recover().await.unwrap();
    let looping = orchestrator.clone();
    let reconcile = tokio::spawn(async move { looping.reconcile_forever(CancellationToken::new()).await });
    (orchestrator, reconcile)
}

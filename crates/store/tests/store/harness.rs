//! A state directory of its own for each test, and releases to put into it.

use std::path::PathBuf;

use coracle_model::{
    AppName, AppSpec, Artifact, ArtifactId, Deployment, DeploymentKind, EngineKind, EnvName, Origin, Outcome, ProcessName,
    ReleaseNumber, Secret,
};
use coracle_store::{NewRelease, Store};
use tempfile::TempDir;

pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.path()).await.unwrap()
    }

    /// A store with an app in it.
    pub(crate) async fn with_shop(&self) -> Store {
        let store = self.open().await;
        store.ensure_app(&shop()).await.unwrap();
        store
    }

    /// Every byte of every file that SQLite made.
    pub(crate) fn raw_bytes(&self) -> Vec<u8> {
        let files = ["coracle.db", "coracle.db-wal", "coracle.db-shm"].map(|name| self.file(name));
        let present: Vec<_> = files.iter().filter(|file| file.exists()).collect();
        assert!(!present.is_empty());
        present.into_iter().flat_map(|file| std::fs::read(file).unwrap()).collect()
    }
}

pub(crate) fn shop() -> AppName {
    "shop".parse().unwrap()
}

pub(crate) fn name(name: &str) -> EnvName {
    name.parse().unwrap()
}

pub(crate) fn v(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).unwrap()
}

pub(crate) fn new_release(app: &AppName, number: ReleaseNumber, env: &[(&str, &str)]) -> NewRelease {
    NewRelease {
        app: app.clone(),
        number,
        artifact: Artifact {
            engine: EngineKind::Docker,
            id: ArtifactId::new(format!("sha256:{number}")),
            processes: [(ProcessName::web(), None)].into(),
            port: Some(8000),
            has_healthcheck: true,
            fingerprint: None,
            registry: None,
        },
        artifacts: Default::default(),
        spec: AppSpec::named(app.clone()),
        origin: Origin::Deploy { commit: Some("0123abc".to_owned()) },
        env: env.iter().map(|(key, value)| (name(key), Secret::from(*value))).collect(),
    }
}

/// A deployment that has got as far as its release being written.
pub(crate) async fn begun(store: &Store, app: &AppName) -> Deployment {
    let deployment = store.begin_deployment(app, DeploymentKind::Deploy).await.unwrap();
    store.create_release(new_release(app, deployment.to, &[])).await.unwrap();
    deployment
}

/// A deployment from beginning to end.
pub(crate) async fn deployed(store: &Store, app: &AppName) -> Deployment {
    let deployment = begun(store, app).await;
    store.activate(deployment.id, &[]).await.unwrap();
    store.finish_deployment(deployment.id, &Outcome::Succeeded).await.unwrap();
    deployment
}

//! Which engines this machine has. Chosen once, at the start; above this module an engine is an engine.

mod late;
mod late_neighbours;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_engine::{Engine, EngineError, Neighbours};
use coracle_engine_docker::{DockerEngine, DockerOptions};
use coracle_engine_process::{IsolationMode, ProcessEngine, ProcessOptions};
use coracle_model::{EngineKind, OwnerId};
use coracle_store::{Store, StoreError};

/// Which engine runs apps whose manifest names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// Docker if it answers, else plain processes.
    #[default]
    Auto,
    /// Docker; without it, the server does not start.
    Docker,
    /// Plain processes; Docker is not even looked for.
    Process,
}

/// How long a start waits for a Docker that is needed: after a reboot, both start at the same time.
const DOCKER_DEADLINE: Duration = Duration::from_secs(10);

/// How often it looks.
const DOCKER_INTERVAL: Duration = Duration::from_secs(1);

/// How long one attempt to reach Docker may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What was found.
pub(crate) struct Engines {
    pub all: Vec<Engine>,
    pub default: EngineKind,
    /// The connection behind the docker engine, for those who examine the machine.
    pub docker: Option<DockerEngine>,
    /// What else runs on Docker, now or when it answers; nothing if Docker is not to be used.
    pub neighbours: Option<Arc<dyn Neighbours>>,
}

/// What is needed to look for them.
pub(crate) struct Search<'a> {
    pub choice: EngineChoice,
    pub owner: OwnerId,
    pub state_dir: &'a Path,
    pub program: &'a Path,
    pub docker_socket: Option<String>,
}

/// Why no engine could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of looking for Docker.
enum Found {
    Nothing,
    Docker(DockerEngine),
    /// It is needed and will come.
    Late(Engine),
}

impl Search<'_> {
    /// Finds the engines of this machine.
    pub(crate) async fn run(self, store: &Store) -> Result<Engines, SearchError> {
        let found = match self.choice {
            EngineChoice::Process => Found::Nothing,
            EngineChoice::Docker => Found::Docker(self.docker(DOCKER_DEADLINE).await?),
            EngineChoice::Auto => self.docker_if_any(needs_docker(store).await?).await,
        };
        let process = ProcessEngine::open(ProcessOptions {
            owner: self.owner.clone(),
            dir: self.state_dir.join("process"),
            program: self.program.to_owned(),
            isolation: IsolationMode::Auto,
        })?
        .engine();
        let late: Arc<dyn Neighbours> = Arc::new(late_neighbours::LateNeighbours::new(self.docker_options()));
        let neighbours = Some(late).filter(|_| self.choice != EngineChoice::Process);
        Ok(match found {
            Found::Nothing => Engines { all: vec![process], default: EngineKind::Process, docker: None, neighbours },
            Found::Late(late) => Engines { all: vec![late, process], default: EngineKind::Docker, docker: None, neighbours },
            Found::Docker(docker) => {
                let (all, neighbours) = (vec![docker.engine(), process], Some(docker.neighbours()));
                Engines { all, default: EngineKind::Docker, docker: Some(docker), neighbours }
            }
        })
    }

    /// Docker, if it answers. If apps run on it already, it is waited for, and the server goes on without it only until it
    /// does: everything else must not have to wait.
    async fn docker_if_any(&self, needed: bool) -> Found {
        let patience = if needed { DOCKER_DEADLINE } else { Duration::ZERO };
        match self.docker(patience).await {
            Ok(docker) => Found::Docker(docker),
            Err(error) if needed => {
                tracing::warn!(%error, "apps need docker, and it does not answer yet");
                Found::Late(late::engine(self.docker_options()))
            }
            Err(error) => {
                tracing::info!(%error, "going on without the docker engine");
                Found::Nothing
            }
        }
    }

    fn docker_options(&self) -> DockerOptions {
        docker_options(self.owner.clone(), self.docker_socket.clone(), self.state_dir.join("docker"))
    }

    async fn docker(&self, patience: Duration) -> Result<DockerEngine, EngineError> {
        let give_up = tokio::time::Instant::now() + patience;
        loop {
            match connect(self.docker_options()).await {
                Err(error) if tokio::time::Instant::now() < give_up => {
                    tracing::info!(%error, "waiting for docker");
                    tokio::time::sleep(DOCKER_INTERVAL).await;
                }
                decided => return decided,
            }
        }
    }
}

pub(crate) fn docker_options(owner: OwnerId, socket: Option<String>, state_dir: PathBuf) -> DockerOptions {
    DockerOptions { owner, socket, state_dir }
}

/// Connects, within a deadline.
pub(crate) async fn connect(options: DockerOptions) -> Result<DockerEngine, EngineError> {
    tokio::time::timeout(CONNECT_DEADLINE, DockerEngine::connect(options)).await.unwrap_or_else(|_| {
        Err(EngineError::Unavailable { engine: EngineKind::Docker, cause: format!("no answer within {CONNECT_DEADLINE:?}") })
    })
}

async fn needs_docker(store: &Store) -> Result<bool, StoreError> {
    Ok(store.active_releases().await?.iter().any(|release| release.artifact.engine == EngineKind::Docker))
}

//! Which engines this machine has. Chosen once, at the start; above this module an engine is an engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_engine::{Engine, EngineError};
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

/// How long a start waits for a Docker that active releases need: after a reboot, both start at the same time.
const DOCKER_DEADLINE: Duration = Duration::from_secs(30);

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

impl Search<'_> {
    /// Finds the engines of this machine.
    pub(crate) async fn run(self, store: &Store) -> Result<Engines, SearchError> {
        let docker = match self.choice {
            EngineChoice::Process => None,
            EngineChoice::Docker => Some(self.docker(DOCKER_DEADLINE).await?),
            EngineChoice::Auto => {
                let patience = if needs_docker(store).await? { DOCKER_DEADLINE } else { Duration::ZERO };
                match self.docker(patience).await {
                    Ok(docker) => Some(docker),
                    Err(error) => {
                        tracing::info!(%error, "going on without the docker engine");
                        None
                    }
                }
            }
        };
        let process = ProcessEngine::open(ProcessOptions {
            owner: self.owner.clone(),
            dir: self.state_dir.join("process"),
            program: self.program.to_owned(),
            isolation: IsolationMode::Auto,
        })?;
        let default = if docker.is_some() { EngineKind::Docker } else { EngineKind::Process };
        let all = docker.iter().map(DockerEngine::engine).chain([process.engine()]).collect();
        Ok(Engines { all, default, docker })
    }

    async fn docker(&self, patience: Duration) -> Result<DockerEngine, EngineError> {
        let give_up = tokio::time::Instant::now() + patience;
        loop {
            let options = docker_options(self.owner.clone(), self.docker_socket.clone(), self.state_dir.join("docker"));
            match connect(options).await {
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
    for record in store.apps().await? {
        if let Some(active) = record.active
            && store.release(&record.name, active).await?.artifact.engine == EngineKind::Docker
        {
            return Ok(true);
        }
    }
    Ok(false)
}

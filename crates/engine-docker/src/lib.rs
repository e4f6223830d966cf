//! Builds images and runs instances in Docker Engine 20.10 or newer, or in Podman behind the same interface.
//!
//! The only crate that knows the container API. It keeps no desired state and restarts nothing: an instance that ends
//! stays ended until the caller starts it again. It touches nothing without the label or the name of its owner, and it
//! never asks the engine to prune, since the engine would prune what is not ours.

mod build;
mod client;
mod facts;
mod image;
mod inspect;
mod labels;
mod lines;
mod neighbours;
mod predecessors;
mod runtime;
mod socket;
mod turns;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use coracle_engine::{Engine, EngineError, Neighbours, Predecessors};
use coracle_model::{EngineKind, OwnerId};

use crate::build::ImageBuilder;
use crate::client::Client;
use crate::runtime::ContainerRuntime;

pub use crate::facts::{Facts, Flavour};

/// How to reach the engine, and on whose behalf.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Whose images, containers, networks and volumes these are.
    pub owner: OwnerId,
    /// Where the engine listens: `unix:///run/docker.sock`, a bare path, or `tcp://127.0.0.1:2375`. `None`: `DOCKER_HOST`,
    /// else the first of the usual sockets that answers.
    pub socket: Option<String>,
    /// A directory of the server's own for notes about builds; made if it is missing.
    pub state_dir: PathBuf,
}

/// A connection to a container engine. Cheap to clone.
#[derive(Clone)]
pub struct DockerEngine {
    client: Arc<Client>,
}

impl DockerEngine {
    /// Finds the engine, asks what it is and agrees on a version of the interface.
    pub async fn connect(options: DockerOptions) -> Result<Self, EngineError> {
        Ok(Self { client: Arc::new(Client::connect(options).await?) })
    }

    /// The builder and the runtime.
    pub fn engine(&self) -> Engine {
        Engine {
            kind: EngineKind::Docker,
            builder: Arc::new(ImageBuilder::new(self.client.clone())),
            runtime: Arc::new(ContainerRuntime::new(self.client.clone())),
        }
    }

    /// What else runs on it.
    pub fn neighbours(&self) -> Arc<dyn Neighbours> {
        Arc::new(neighbours::Others::new(self.client.clone()))
    }

    /// Containers of compose projects on it.
    pub fn predecessors(&self) -> Arc<dyn Predecessors> {
        Arc::new(predecessors::Projects::new(self.client.clone()))
    }

    /// What the engine said about itself when it was connected to.
    pub fn facts(&self) -> &Facts {
        &self.client.facts
    }

    /// Asks the engine again; an error if it does not answer any more.
    pub async fn probe(&self) -> Result<Facts, EngineError> {
        self.client.probe().await
    }
}

impl std::fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerEngine").field("facts", &self.client.facts).finish_non_exhaustive()
    }
}

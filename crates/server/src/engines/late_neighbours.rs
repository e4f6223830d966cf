//! What else runs on a Docker that does not answer yet, or is not there yet: it is looked for each time somebody asks.

use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::{Change, EngineError, Neighbour, Neighbours};
use coracle_engine_docker::{DockerEngine, DockerOptions};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// How often whoever listens for changes looks whether Docker answers.
const INTERVAL: Duration = Duration::from_secs(5);

/// Neighbours, as soon as Docker answers.
#[derive(Clone)]
pub(super) struct LateNeighbours {
    options: DockerOptions,
    docker: Arc<OnceCell<DockerEngine>>,
}

impl LateNeighbours {
    pub(super) fn new(options: DockerOptions) -> Self {
        Self { options, docker: Arc::default() }
    }

    async fn get(&self) -> Result<Arc<dyn Neighbours>, EngineError> {
        let docker = self.docker.get_or_try_init(|| super::connect(self.options.clone())).await?;
        Ok(docker.neighbours())
    }
}

#[async_trait]
impl Neighbours for LateNeighbours {
    async fn list(&self, label_prefix: Option<&str>) -> Result<Vec<Neighbour>, EngineError> {
        self.get().await?.list(label_prefix).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let late = self.clone();
        let connected = async move {
            loop {
                if let Ok(neighbours) = late.get().await {
                    // That it is there now is a change, too.
                    return futures::stream::once(async { Change::Other }).chain(neighbours.changes());
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        futures::stream::once(connected).flatten().boxed()
    }

    fn are_reachable(&self) -> bool {
        self.docker.get().is_none_or(|docker| docker.facts().containers_reachable)
    }
}

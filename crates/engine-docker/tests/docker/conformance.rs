//! The suite that every engine passes.

use std::path::Path;

use async_trait::async_trait;
use coracle_engine::conformance::{Capabilities, Fixture, Tree, dockerfile_tree};
use coracle_engine::{Engine, conformance_tests};
use coracle_engine_docker::{DockerEngine, DockerOptions};
use coracle_model::{BuildPlan, InstanceId, OwnerId};
use tempfile::TempDir;

use crate::rig::{PYTHON, connect, see, things_of, unique_owner};

struct DockerFixture {
    owner: OwnerId,
    stranger: OwnerId,
    memory_limit: bool,
    dir: TempDir,
}

impl DockerFixture {
    /// `None` where there is no engine and that may be.
    async fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (owner, stranger) = (unique_owner(), unique_owner());
        let handle = connect(&owner, dir.path(), PYTHON).await?;
        Some(Self { owner, stranger, memory_limit: handle.facts().limits.memory, dir })
    }

    async fn engine_of(&self, owner: &OwnerId) -> Engine {
        let state_dir = self.dir.path().join(owner.as_str());
        let options = DockerOptions { owner: owner.clone(), socket: None, state_dir };
        DockerEngine::connect(options).await.unwrap().engine()
    }
}

#[async_trait]
impl Fixture for DockerFixture {
    async fn open(&self) -> Engine {
        self.engine_of(&self.owner).await
    }

    async fn stranger(&self) -> Engine {
        self.engine_of(&self.stranger).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { programs: true, memory_limit: self.memory_limit, volumes: true, descendants: true }
    }

    async fn tree(&self, tree: Tree, directory: &Path) -> Option<BuildPlan> {
        Some(dockerfile_tree(tree, directory))
    }

    async fn leftovers(&self) -> Vec<String> {
        [things_of(&self.owner), things_of(&self.stranger)].concat()
    }

    async fn readable_by_others(&self, id: &InstanceId) -> String {
        let name = format!("coracle-{}.{id}", self.owner);
        see(&["inspect", "--format", "{{.Name}} {{.Path}} {{.Args}} {{json .Config.Labels}} {{.Config.Cmd}}", &name]).join("\n")
    }
}

conformance_tests!(DockerFixture::new());

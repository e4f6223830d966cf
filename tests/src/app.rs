//! An app in the hands of its developer: change a line, deploy, look, roll back.

use std::time::Duration;

use coracle_api::{AppStatus, Deployment, InstanceState, InstanceStatus, Release};
use coracle_model::{AppName, ProcessName};
use http::Method;
use tokio::process::Command;

use crate::browser::{self, Answer};
use crate::deploying::{Deployed, Deploying};
use crate::env::{Env, eventually};
use crate::load::Load;
use crate::program::Ran;
use crate::tree::{Breakage, Tree};

/// A developer's copy of an example, and the server it is deployed to.
#[derive(Debug)]
pub struct App {
    env: Env,
    /// The name in the manifest.
    pub name: AppName,
    /// The source.
    pub tree: Tree,
}

impl App {
    pub(crate) fn new(env: Env, example: &str) -> Self {
        let tree = Tree::example(example, env.path(example));
        // Without a manifest it is called as its folder is.
        let called = match tree.path().join("coracle.toml").exists() {
            true => {
                tree.read("coracle.toml").lines().find_map(|line| Some(line.strip_prefix("app = ")?.trim_matches('"').to_owned()))
            }
            false => tree.path().file_name().and_then(|name| name.to_str()).map(str::to_owned),
        };
        let name = called.and_then(|name| name.parse().ok());
        Self { name: name.expect("the manifest or the folder names the app"), tree, env }
    }

    /// A client of the server that it is deployed to.
    pub(crate) fn env_client(&self) -> coracle_api::Client {
        self.env.client()
    }

    /// The host it is reached at.
    pub fn host(&self) -> String {
        format!("{}.localhost", self.name)
    }

    /// `coracle` with these words, typed in the app's directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.env.command(words);
        command.current_dir(self.tree.path());
        command
    }

    /// Runs `coracle` with these words in the app's directory.
    pub async fn coracle(&self, words: &[&str]) -> Ran {
        Ran::to_its_end(self.command(words)).await
    }

    /// Types `coracle deploy`.
    pub fn begin_deploy(&self) -> Deploying {
        Deploying::begin(self.command(&["deploy"]))
    }

    /// Deploys the tree as it is, to the end.
    pub async fn deploy_as_it_is(&self) -> Deployed {
        self.begin_deploy().end().await
    }

    /// Changes the one line and deploys; it must succeed.
    #[track_caller]
    pub fn deploy(&self, version: &str) -> impl Future<Output = Deployed> {
        self.tree.version(version);
        async {
            let deployed = self.deploy_as_it_is().await;
            deployed.succeeds();
            deployed
        }
    }

    /// Deploys a broken version; it must fail, and say why and what next. The tree is sound again afterwards.
    pub async fn deploy_broken(&self, version: &str, breakage: Breakage) -> Deployed {
        let sound = self.tree.snapshot();
        self.tree.version(version).breaks(breakage);
        let deployed = self.deploy_as_it_is().await;
        deployed.fails().shows(breakage.evidence());
        assert!(deployed.hint().is_some_and(|hint| hint.contains("coracle")), "{breakage:?} leaves one helpless: {deployed}");
        self.tree.restore(sound);
        deployed
    }

    /// Deploys the tree as it is, with these words after `coracle deploy`.
    pub async fn deploy_with(&self, words: &[&str]) -> Deployed {
        let words: Vec<&str> = ["deploy"].iter().chain(words).copied().collect();
        Deploying::begin(self.command(&words)).end().await
    }

    /// Looks at a page of it.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    /// Sends something to it.
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        let answer = browser::ask(self.env.address(), &self.host(), method, path, body.to_owned()).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error:#}\n{}", self.env.server_log()))
    }

    /// A load on it, to be started.
    pub fn load(&self, per_second: u32) -> Load {
        Load::on(self.env.address(), self.host(), per_second)
    }

    /// How it stands.
    pub async fn status(&self) -> AppStatus {
        self.env.client().app(&self.name).await.unwrap_or_else(|error| panic!("{error}\n{}", self.env.server_log()))
    }

    /// Its releases, oldest first.
    pub async fn releases(&self) -> Vec<Release> {
        self.env.client().releases(&self.name).await.unwrap()
    }

    /// The number of the active release.
    pub async fn active(&self) -> Option<u32> {
        self.status().await.release.map(|release| release.number.get())
    }

    /// Its deployments, newest first.
    pub async fn deployments(&self) -> Vec<Deployment> {
        self.env.client().deployments(&self.name).await.unwrap()
    }

    /// Waits until no deployment runs, as many instances run as should, all of the active release, and none else exists.
    pub async fn settles(&self) {
        eventually("only the active release runs", Duration::from_secs(40), async || {
            let status = self.env.client().app(&self.name).await.map_err(|error| error.to_string())?;
            let active = status.release.as_ref().map(|release| release.number);
            let wanted: u32 = status.processes.iter().map(|process| process.wanted).sum();
            // What keeps data is no process, and bears the number of the release that described it.
            let is_process = |name: &ProcessName| status.processes.iter().any(|process| process.name == *name);
            let (processes, services): (Vec<_>, Vec<_>) =
                status.instances.iter().partition(|instance| is_process(&instance.process));
            let runs = |instance: &&InstanceStatus| matches!(instance.state, InstanceState::Running { .. });
            let sound =
                processes.iter().all(|instance| Some(instance.release) == active && runs(instance)) && services.iter().all(runs);
            let count = processes.len();
            if sound && count == wanted as usize && status.deployment.is_none() {
                Ok(())
            } else {
                Err(format!("{status:#?}\n{}", self.env.server_log()))
            }
        })
        .await;
    }
}

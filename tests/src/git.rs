//! Git in the hands of the developer of an app: commits, pushes, and what the remote says to them.

use std::path::Path;

use tokio::process::Command;

use crate::app::App;
use crate::env::{Env, Settings};
use crate::program::{self, Ran};
use coracle_model::EngineKind;

impl Env {
    /// A running server on this engine that takes pushes.
    pub async fn start_for_pushes(engine: EngineKind) -> Self {
        let arguments = ["--api-tcp", "127.0.0.1:0"].map(str::to_owned).to_vec();
        let env = Self::prepare(Settings { arguments, ..Settings::of(engine) });
        env.start_server().await;
        env
    }

    /// The server's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("token")).unwrap().trim().to_owned()
    }

    /// The address that an app is pushed to with this token.
    pub async fn git_url(&self, app: &str, token: &str) -> String {
        let address = self.client().version().await.unwrap().api_tcp.expect("the server takes pushes");
        format!("http://coracle:{token}@{address}/git/{app}.git")
    }

    /// Git in this directory, with a home of the story's own.
    pub fn git_command(&self, directory: &Path, words: &[&str]) -> Command {
        let mut command = program::command(Path::new("git"), &self.path("home"));
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ana").env(format!("GIT_{who}_EMAIL"), "ana@localhost");
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1").current_dir(directory).args(words);
        command
    }

    /// Runs git in this directory.
    pub async fn git(&self, directory: &Path, words: &[&str]) -> Ran {
        Ran::to_its_end(self.git_command(directory, words)).await
    }
}

impl App {
    /// Makes a repository of the tree, with one commit and `coracle git remote`.
    pub async fn becomes_a_repository(&self, env: &Env) {
        self.git(env, &["init", "-q", "-b", "main"]).await.succeeds();
        self.commits(env, "first").await;
        self.coracle(&["git", "remote"]).await.succeeds();
    }

    /// Runs git in the tree.
    pub async fn git(&self, env: &Env, words: &[&str]) -> Ran {
        env.git(self.tree.path(), words).await
    }

    /// Commits the tree as it is.
    pub async fn commits(&self, env: &Env, message: &str) {
        self.git(env, &["add", "-A"]).await.succeeds();
        self.git(env, &["commit", "-q", "--allow-empty", "-m", message]).await.succeeds();
    }

    /// `git push coracle` with these words.
    pub async fn push(&self, env: &Env, words: &[&str]) -> Ran {
        let words: Vec<&str> = ["push", "coracle"].iter().chain(words).copied().collect();
        self.git(env, &words).await
    }

    /// The commit that the working tree stands at.
    pub async fn head(&self, env: &Env) -> String {
        self.git(env, &["rev-parse", "HEAD"]).await.succeeds().stdout.trim().to_owned()
    }

    /// What a ref of the server's repository names, asked as anybody would.
    pub async fn remote_ref(&self, env: &Env, reference: &str) -> Option<String> {
        let listed = self.git(env, &["ls-remote", "coracle", reference]).await;
        listed.succeeds().stdout.split_whitespace().next().map(str::to_owned)
    }
}

//! SSH in the hands of people with keys: OpenSSH's own client, which knows the server by its host key and nothing of this machine's.

use std::path::{Path, PathBuf};

use coracle_model::EngineKind;
use tokio::process::Command;

use crate::app::App;
use crate::env::{Env, Settings};
use crate::program::{self, Ran};

/// Somebody with a key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The private half; the public one lies beside it.
    pub path: PathBuf,
}

impl Key {
    /// The file with the public half.
    pub fn public(&self) -> String {
        format!("{}.pub", self.path.display())
    }
}

impl Env {
    /// A running server on this engine that takes pushes over SSH alone.
    pub async fn start_for_ssh(engine: EngineKind) -> Self {
        let arguments = ["--ssh", "127.0.0.1:0"].map(str::to_owned).to_vec();
        let env = Self::prepare(Settings { arguments, ..Settings::of(engine) });
        env.start_server().await;
        env
    }

    /// A new key of this kind, which the server does not know yet.
    pub async fn key(&self, name: &str, kind: &str) -> Key {
        let path = self.path(&format!("key-{name}"));
        let mut command = program::command(Path::new("ssh-keygen"), &self.path("home"));
        command.args(["-q", "-t", kind, "-N", "", "-C", name, "-f"]).arg(&path);
        Ran::to_its_end(command).await.succeeds();
        Key { path }
    }

    /// Somebody with a key and a role in an app.
    pub async fn person(&self, name: &str, role: &str, app: &str) -> Key {
        let key = self.key(name, "ed25519").await;
        self.knows(name, role, app, &key).await;
        key
    }

    /// From now on somebody is known by this key.
    pub async fn knows(&self, name: &str, role: &str, app: &str, key: &Key) {
        self.coracle(&["people", "add", name, "--role", role, "-a", app, "--key", &key.public()]).await.succeeds();
    }

    /// The words of `ssh` with this key, up to the host.
    async fn ssh_words(&self, key: &Key) -> (Vec<String>, String) {
        let ssh = self.client().version().await.unwrap().ssh.expect("the server listens for SSH");
        let (host, port) = ssh.address.rsplit_once(':').unwrap();
        let known = self.path("known_hosts");
        std::fs::write(&known, format!("[{host}]:{port} {}\n", ssh.host_key)).unwrap();
        let words = [
            "-F".to_owned(),
            "/dev/null".to_owned(),
            "-i".to_owned(),
            key.path.display().to_string(),
            "-o".to_owned(),
            format!("UserKnownHostsFile={}", known.display()),
        ];
        let options =
            ["IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=yes", "BatchMode=yes", "LogLevel=ERROR"];
        let options = options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        (words.into_iter().chain(options).chain(["-o".to_owned(), format!("Port={port}")]).collect(), host.to_owned())
    }

    /// One of OpenSSH's programs with this key: options, the host, and what is behind it.
    pub async fn ssh_command(&self, program: &str, key: &Key, options: &[&str], behind: &[&str]) -> Command {
        let (words, host) = self.ssh_words(key).await;
        let mut command = program::command(Path::new(program), &self.path("home"));
        command.env_remove("SSH_AUTH_SOCK").args(words).args(options).arg(host).args(behind);
        command
    }

    /// Runs `ssh` with this key and these words behind the host.
    pub async fn ssh(&self, key: &Key, words: &[&str]) -> Ran {
        Ran::to_its_end(self.ssh_command("ssh", key, &[], words).await).await
    }

    /// The address of an app over SSH.
    pub async fn ssh_url(&self, app: &str) -> String {
        let ssh = self.client().version().await.unwrap().ssh.expect("the server listens for SSH");
        format!("ssh://git@{}/{app}.git", ssh.address)
    }

    /// What git is to call for `ssh` with this key: no word of it needs quoting.
    pub async fn ssh_for_git(&self, key: &Key) -> String {
        format!("ssh {}", self.ssh_words(key).await.0.join(" "))
    }
}

impl App {
    /// Makes a repository of the tree that is pushed over SSH with this key.
    pub async fn becomes_a_repository_over_ssh(&self, env: &Env, key: &Key) {
        self.git(env, &["init", "-q", "-b", "main"]).await.succeeds();
        self.commits(env, "first").await;
        self.coracle(&["git", "remote", "--ssh"]).await.succeeds();
        self.uses_key(env, key).await;
    }

    /// From now on the tree is pushed with this key.
    pub async fn uses_key(&self, env: &Env, key: &Key) {
        self.git(env, &["config", "core.sshCommand", &env.ssh_for_git(key).await]).await.succeeds();
    }
}

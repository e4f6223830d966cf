//! The floor: what the same change costs when a person does by hand just what cannot be left out. No health gate, no old
//! version that serves meanwhile, no draining, no record.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_tests::belongings::signal;
use coracle_tests::browser;
use coracle_tests::program::PATH;
use coracle_tests::tree::Tree;
use rustix::process::{Pid, Signal};
use tokio::time::sleep;

/// Waits until the app answers with this text.
pub async fn answers(address: SocketAddr, host: &str, text: &str) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !browser::get(address, host, "/").await.is_ok_and(|answer| answer.status.is_success() && answer.body.contains(text)) {
        assert!(Instant::now() < give_up, "{host} at {address} does not come to say {text:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn quietly(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `docker build`, `docker run`, first answer.
#[derive(Debug)]
pub struct PlainDocker {
    tree: Tree,
    tag: String,
    container: Option<String>,
    /// How long the parts of the last change took.
    pub last: String,
}

impl PlainDocker {
    /// With a copy of the Flask example of its own.
    pub fn new(directory: PathBuf) -> Self {
        let tag = format!("coracle-bench-{}:latest", std::process::id());
        Self { tree: Tree::example("flask", directory), tag, container: None, last: String::new() }
    }

    /// From the changed line to the first answer of the new version.
    pub async fn change(&mut self, version: &str) -> Duration {
        self.tree.version(version);
        let begun = Instant::now();
        quietly(Command::new("docker").args(["build", "--quiet", "--tag", &self.tag]).arg(self.tree.path()));
        let built = begun.elapsed();
        let run = ["run", "--detach", "--publish", "127.0.0.1::8080", "--env", "PORT=8080", &self.tag];
        let container = quietly(Command::new("docker").args(run));
        let ran = begun.elapsed() - built;
        let address = quietly(Command::new("docker").args(["port", &container, "8080"]));
        answers(address.parse().unwrap(), "localhost", version).await;
        let took = begun.elapsed();
        self.last = format!("build {built:.2?} · run {ran:.2?} · answer {:.2?}", took - built - ran);
        self.end();
        self.container = Some(container);
        took
    }

    fn end(&mut self) {
        if let Some(container) = self.container.take() {
            quietly(Command::new("docker").args(["rm", "--force", &container]));
        }
    }
}

impl Drop for PlainDocker {
    fn drop(&mut self) {
        self.end();
        drop(Command::new("docker").args(["rmi", "--force", &self.tag]).output());
    }
}

/// Ending gunicorn and starting it again in a virtual environment that is already there.
#[derive(Debug)]
pub struct PlainGunicorn {
    tree: Tree,
    venv: PathBuf,
    running: Option<Child>,
}

impl PlainGunicorn {
    /// With a copy of the Flask example and a virtual environment of its own.
    pub fn new(directory: &Path) -> Self {
        let tree = Tree::example("flask", directory.join("plain"));
        let venv = directory.join("venv");
        quietly(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
        let mut install = Command::new(venv.join("bin/pip"));
        quietly(install.args(["install", "--quiet", "--requirement"]).arg(tree.path().join("requirements.txt")));
        Self { tree, venv, running: None }
    }

    /// From the changed line to the first answer of the new version.
    pub async fn change(&mut self, version: &str) -> Duration {
        self.tree.version(version);
        let begun = Instant::now();
        self.end();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut gunicorn = Command::new(self.venv.join("bin/gunicorn"));
        gunicorn.args(["--bind", &port.to_string(), "--threads", "8", "shop:app"]).current_dir(self.tree.path());
        gunicorn.env("PATH", PATH).env("HOME", self.venv.as_path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(gunicorn.spawn().unwrap());
        answers(port, "localhost", version).await;
        begun.elapsed()
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            signal(Pid::from_raw(running.id().cast_signed()).unwrap(), Signal::TERM);
            running.wait().unwrap();
        }
    }
}

impl Drop for PlainGunicorn {
    fn drop(&mut self) {
        self.end();
    }
}

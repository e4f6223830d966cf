//! A `coracle proxy` that runs alone, told its table over its control socket as any control plane would.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use rustix::process::{Pid, Signal};
use serde::Serialize;
use tokio::time::sleep;

use crate::belongings::signal;
use crate::{browser, program};

/// How long it may take to start, and to end once it was asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy of its own, which ends with this value.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    directory: PathBuf,
}

/// The proxy does not take the table; it goes on with the one it has.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The status of the control socket's answer.
    pub status: u16,
    /// Why, in the proxy's words.
    pub why: String,
}

impl Proxy {
    /// Starts one that keeps everything in `directory` (which it makes), with these arguments beside those for the control
    /// socket and the state, and waits until it answers on its control socket. `before` is put before the command, such as
    /// `taskset -c 0`.
    pub async fn start(directory: &Path, before: &[&str], arguments: &[String]) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let program = program::path();
        let mut command = match before.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(["proxy", "--control-socket"]).arg(directory.join("control.sock"));
        command.arg("--state-dir").arg(directory.join("state")).args(arguments);
        let log = File::create(directory.join("proxy.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{}", program.display()))?;
        let mut proxy = Self { child, directory: directory.to_owned() };
        proxy.answers().await?;
        Ok(proxy)
    }

    async fn answers(&mut self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.status().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > give_up => bail!("the proxy does not answer: {error:#}\n{}", self.log()),
                Err(_) => {}
            }
            if let Some(end) = self.child.try_wait()? {
                bail!("the proxy ended ({end}):\n{}", self.log());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Replaces the whole table. When it returns, every later request goes by it. The outer error is that of a proxy that
    /// does not answer.
    pub async fn publish(&self, table: &impl Serialize) -> Result<Result<(), Refused>> {
        self.publish_json(serde_json::to_vec(table)?).await
    }

    /// The same for a table that has been written as JSON already.
    pub async fn publish_json(&self, table: Vec<u8>) -> Result<Result<(), Refused>> {
        let answer = browser::ask_socket(&self.socket(), Method::PUT, "/v1/table", table).await?;
        if answer.status.is_success() {
            return Ok(Ok(()));
        }
        Ok(Err(Refused { status: answer.status.as_u16(), why: answer.body }))
    }

    /// What it answers to `GET /v1/status`.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let answer = browser::ask_socket(&self.socket(), Method::GET, "/v1/status", "").await?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// What it has written to its standard output and error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("proxy.log")).unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process id is not zero")
    }

    /// Whether it is still there.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.runs() {
            signal(self.pid(), Signal::KILL);
        }
        drop(self.child.wait());
    }
}

/// An address on the loopback interface that nobody listened on a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("there are free ports")
}

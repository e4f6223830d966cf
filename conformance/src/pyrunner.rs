//! A PyRunner that is asked: started as anybody would, on a port of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::wire::{self, Answer};

/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take: the usual limit of an execution, and a good deal more.
const ANSWER: Duration = Duration::from_secs(30);
/// How long what an execution leaves may take to be gone.
const QUIET: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The users on the machine that sandboxes have: so many for each port, from the first one on.
const FIRST_USER: u32 = 2_000_000_000;
const USERS: u32 = 4096;

/// A server that runs.
#[derive(Debug)]
pub(crate) struct PyRunner {
    child: Child,
    address: std::net::SocketAddr,
}

impl PyRunner {
    /// Starts one that keeps its state in this directory and counts no calls.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let program = coracle_tests::program::pyrunner();
        let mut command = Command::new(&program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--rate", "0", "--state"]).arg(directory.join("pyrunner"));
        command.env_remove("DATABASE_URL").env_remove("PORT").kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().with_context(|| program.display().to_string())?;
        let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let listening = async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once("listens on http://") {
                    return Ok(address.trim().parse()?);
                }
                said += &format!("\n  {line}");
            }
            bail!("pyrunner ended at once:{said}")
        };
        let address = timeout(PATIENCE, listening).await.context("pyrunner does not listen")??;
        // What it goes on saying is for nobody, but somebody has to take it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let server = Self { child, address };
        server.is_ready().await?;
        Ok(server)
    }

    async fn is_ready(&self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask("GET", "/ready", None, &[]).await;
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) if Instant::now() > give_up => bail!("pyrunner is not ready: {}", answer.body),
                Err(error) if Instant::now() > give_up => return Err(error),
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Sends a request with a body of this type, if it has one.
    pub(crate) async fn ask(&self, method: &str, path: &str, media_type: Option<&str>, body: &[u8]) -> Result<Answer> {
        let media_type = media_type.map(|media_type| format!("Content-Type: {media_type}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{media_type}Content-Length: {length}\r\n\r\n",
            self.address
        );
        let request = [head.as_bytes(), body].concat();
        timeout(ANSWER, wire::ask(self.address, &request)).await.with_context(|| format!("no answer within {ANSWER:?}"))?
    }

    /// How many processes of sandboxes there are on the machine, waiting ones included. What they say is not asked.
    fn processes(&self) -> usize {
        let first = FIRST_USER + u32::from(self.address.port()) * USERS;
        let is_one = |entry: std::fs::DirEntry| {
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let user: u32 = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()?;
            (first..first + USERS).contains(&user).then_some(())
        };
        std::fs::read_dir("/proc").map(|all| all.flatten().filter_map(is_one).count()).unwrap_or(0)
    }

    /// Waits until all sandboxes that should wait ready are there, and counts the processes then.
    pub(crate) async fn settled(&self) -> Result<usize> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let runtimes: serde_json::Value = serde_json::from_str(&self.ask("GET", "/runtimes", None, &[]).await?.body)?;
            let images = runtimes["runtimes"].as_array().context("no list of runtimes")?;
            if images.iter().all(|image| image["ready"] == image["slots"]) {
                return Ok(self.processes());
            }
            ensure!(Instant::now() < give_up, "sandboxes are not made again: {runtimes}");
            sleep(PAUSE).await;
        }
    }

    /// Waits until there are no more processes again than there were.
    pub(crate) async fn quiet(&self, before: usize) -> Result<()> {
        let give_up = Instant::now() + QUIET;
        loop {
            let now = self.processes();
            if now <= before {
                return Ok(());
            }
            ensure!(Instant::now() < give_up, "{now} processes of sandboxes are there, {before} were before");
            sleep(PAUSE).await;
        }
    }

    /// Asks it to end, and tells whether nothing of it is left.
    pub(crate) async fn end(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        kill_process(id, Signal::TERM)?;
        let ended = timeout(PATIENCE, self.child.wait()).await.context("pyrunner does not end")??;
        ensure!(ended.success(), "pyrunner ended with {ended}");
        self.quiet(0).await
    }
}

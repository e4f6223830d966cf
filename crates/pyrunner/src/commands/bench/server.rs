//! A server of the measurement's own: with its history, without a rate, in a directory that goes with it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::uri::Authority;

use super::super::child;
use super::{BenchError, Question};
use crate::output;

/// How long it may take until it can execute.
pub(super) const READY: Duration = Duration::from_secs(30);

/// How long it may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// A server that ends with this value.
#[derive(Debug)]
pub(super) struct OwnServer {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl OwnServer {
    /// Starts it on a port that is free; it listens when this returns.
    pub(super) fn start() -> Result<Self, BenchError> {
        let directory = std::env::temp_dir().join(format!("pyrunner-bench-{}", std::process::id()));
        // The API is another user, who has to pass through; nobody else can make it, or write to it.
        std::fs::DirBuilder::new().mode(0o711).create(&directory).map_err(BenchError::Start)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pyrunner").args(["serve", "--listen", "127.0.0.1:0", "--rate", "0", "--anonymous", "true", "--state"]);
        command.arg(directory.join("state")).env_remove("DATABASE_URL").stdin(Stdio::null()).stderr(Stdio::piped());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        // Ctrl-C is for this process, which ends the server afterwards.
        let mut child = match command.process_group(0).spawn() {
            Ok(child) => child,
            Err(error) => {
                std::fs::remove_dir_all(&directory).ok();
                return Err(BenchError::Start(error));
            }
        };
        let log = child.stderr.take();
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), directory };
        let mut lines = log.into_iter().flat_map(|log| BufReader::new(log).lines().map_while(Result::ok));
        // It says so at once, or it ends and with it its log.
        server.address = loop {
            let line = lines.next().ok_or(BenchError::Ended)?;
            match line.strip_prefix("pyrunner listens on http://").and_then(|address| address.parse().ok()) {
                Some(address) => break address,
                None => output::note(line),
            }
        };
        let telling = std::thread::Builder::new().name("log".to_owned()).spawn(move || lines.for_each(output::note));
        telling.map_err(BenchError::Start)?;
        Ok(server)
    }

    pub(super) fn authority(&self) -> Authority {
        Authority::try_from(self.address.to_string()).unwrap_or(Authority::from_static("127.0.0.1"))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        child::end(&mut self.child, ENDING);
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// Waits until the server can execute.
pub(super) async fn until_ready(question: &Question) -> Result<(), BenchError> {
    let give_up = Instant::now() + READY;
    while let Err(error) = question.ready().await {
        if Instant::now() >= give_up {
            return Err(BenchError::NotReady(error));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

//! Starting a proxy as a process of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use coracle_proxy::control::{Client, ControlError, Status};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{ProxyOptions, answering, listening_arguments};
use crate::state_dir;

/// How long a proxy may take to take requests, taking over from a predecessor included.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often it is asked whether it does.
const START_INTERVAL: Duration = Duration::from_millis(10);

/// A log that is longer begins anew at the next start.
const LONGEST_LOG: u64 = 16 << 20;

/// How much of the log an error shows.
const LOG_LINES: usize = 10;

/// Variables that the proxy gets of the server's environment; others may hold secrets.
const PASSED_ON: [&str; 4] = ["PATH", "RUST_LOG", "RUST_BACKTRACE", "TZ"];

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended at once.
    #[error("the proxy ended at once ({status}): {}", log.join("; "))]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// It does not answer.
    #[error("the proxy did not take requests within {START_DEADLINE:?}")]
    Silent,
    /// One that was asked to stop does not.
    #[error("the proxy (process {pid}) does not end")]
    DoesNotEnd {
        /// The process.
        pid: u32,
    },
    /// It does not do what it was asked for.
    #[error(transparent)]
    Control(ControlError),
}

impl ProxyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        let says = |text: &str| matches!(self, Self::Ended { log, .. } if log.iter().any(|line| line.contains(text)));
        if says("in use") {
            "another program listens on that port (`ss -ltnp` shows which); stop it, or choose another with `--http`"
        } else if says("ermission denied") {
            "only root may listen on ports below 1024; run the server as root, or choose another with `--http`"
        } else {
            "its messages are in proxy.log in the state directory"
        }
    }
}

/// Starts a proxy and waits until it answers on the control socket. It takes over from one that is there.
pub(super) async fn launch(options: &ProxyOptions, client: &Client) -> Result<Status, ProxyError> {
    let failed = |source| ProxyError::Start { program: options.program.clone(), source };
    state_dir::create(&options.state_dir).map_err(|error| failed(error.source))?;
    let log = open_log(&options.log).map_err(failed)?;
    let log_begins = log.metadata().map_err(failed)?.len();
    let mut child = spawn(options, log).map_err(failed)?;
    let give_up = Instant::now() + START_DEADLINE;
    loop {
        if let Some(status) = answering(client).await.filter(|status| Some(status.pid) == child.id()) {
            return Ok(status);
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Err(ProxyError::Ended { status, log: last_lines(&options.log, log_begins) });
        }
        if Instant::now() >= give_up {
            end(&mut child).await;
            return Err(ProxyError::Silent);
        }
        tokio::time::sleep(START_INTERVAL).await;
    }
}

/// Ends one that never came to serve.
async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a proxy that does not answer cannot be ended");
    }
}

fn spawn(options: &ProxyOptions, log: File) -> std::io::Result<Child> {
    let mut command = Command::new(&options.program);
    command.arg("proxy");
    command.args(listening_arguments(&options.http, &options.https, options.acme.as_ref()));
    for entrance in &options.entrances {
        command.arg("--listen").arg(format!("{}={}", entrance.name, entrance.address));
    }
    command.arg("--control-socket").arg(&options.control_socket).arg("--state-dir").arg(&options.state_dir);
    command.env_clear().envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Ctrl-C at the server's terminal is not meant for it.
    command.process_group(0);
    command.spawn()
}

fn open_log(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|facts| facts.len() > LONGEST_LOG) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The last lines that were written after `begins`.
fn last_lines(path: &Path, begins: u64) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let new = usize::try_from(begins).ok().and_then(|begins| bytes.get(begins..)).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| line.chars().take(500).collect()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_proxy_that_ends_at_once_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("coracle");
        std::fs::write(
            &program,
            "#!/bin/sh\necho \"$*\" | grep -q -- '--http 127.0.0.1:80' || exit 9\necho 'Address already in use' >&2\nexit 3\n",
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = ProxyOptions::new(program, vec!["127.0.0.1:80".parse().unwrap()], dir.path());
        std::fs::write(&options.log, "old words\n").unwrap();
        let error = launch(&options, &Client::new(&options.control_socket)).await.unwrap_err();
        let ProxyError::Ended { status, log } = &error else { panic!("{error:?}") };
        assert_eq!((status.code(), log.as_slice()), (Some(3), &["Address already in use".to_owned()][..]));
        assert!(error.hint().contains("--http"));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let options = ProxyOptions::new(dir.path().join("nothing"), Vec::new(), dir.path());
        let error = launch(&options, &Client::new(&options.control_socket)).await.unwrap_err();
        assert!(matches!(error, ProxyError::Start { .. }) && error.to_string().contains("nothing"), "{error}");
    }
}

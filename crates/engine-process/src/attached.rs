//! Programs that end with whoever waits for them: build steps and `exec`. The shim holds the other end of a socket; when
//! this end is let go, deliberately or because the server died, it kills all that it started.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use coracle_engine::{Exit, OutputSink, Stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::lines::forward;
use crate::task::{Answer, Task};

/// How long a shim may take to kill everything before it is killed itself.
const KILL_DEADLINE: Duration = Duration::from_secs(8);

/// How long output may still come after the end of all that could write it.
const OUTPUT_DEADLINE: Duration = Duration::from_secs(2);

/// Why an attached program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachedError {
    /// It could not be started.
    #[error("{0}")]
    CannotStart(String),
    /// The caller called it off; everything is killed.
    #[error("cancelled")]
    Cancelled,
    /// The deadline passed; everything is killed.
    #[error("timed out")]
    TimedOut,
    /// The shim failed.
    #[error("{0}")]
    Shim(String),
}

/// Runs a task to its end under `program` as its shim.
pub(crate) async fn run(
    program: &Path,
    task: &Task,
    output: &OutputSink,
    deadline: Duration,
    cancel: &CancellationToken,
) -> Result<Exit, AttachedError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| AttachedError::Shim(format!("{what}: {error}"))
    };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(io("make a socket"))?;
    let mut child = Command::new(program)
        .args(["shim", "--attached"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(io("start the shim"))?;
    ours.set_nonblocking(true).map_err(io("make a socket"))?;
    let control = UnixStream::from_std(ours).map_err(io("make a socket"))?;
    let pump = futures::future::join(
        hand_on(child.stdout.take(), Stream::Stdout, output),
        hand_on(child.stderr.take(), Stream::Stderr, output),
    );
    tokio::pin!(pump);
    let outcome = {
        // Dropping this lets go of the socket.
        let talk = async {
            tokio::select! {
                outcome = talk(control, task) => outcome,
                () = cancel.cancelled() => Err(AttachedError::Cancelled),
                () = tokio::time::sleep(deadline) => Err(AttachedError::TimedOut),
            }
        };
        tokio::pin!(talk);
        let mut pumping = true;
        loop {
            tokio::select! {
                outcome = &mut talk => break (outcome, pumping),
                _ = &mut pump, if pumping => pumping = false,
            }
        }
    };
    let (outcome, pumping) = outcome;
    if pumping {
        // Output that nobody takes would keep the shim from ending.
        tokio::time::timeout(KILL_DEADLINE + OUTPUT_DEADLINE, pump).await.ok();
    }
    end(&mut child).await;
    outcome
}

/// Hands on what comes through a pipe, until its end.
async fn hand_on(pipe: Option<impl AsyncRead + Unpin>, stream: Stream, output: &OutputSink) {
    if let Some(pipe) = pipe {
        forward(pipe, stream, output.clone()).await;
    }
}

/// Sends the task and waits for the end of its program.
async fn talk(control: UnixStream, task: &Task) -> Result<Exit, AttachedError> {
    let lost = |error: std::io::Error| AttachedError::Shim(format!("the shim is gone: {error}"));
    let (reader, mut writer) = control.into_split();
    send(&mut writer, task).await.map_err(lost)?;
    let mut answers = BufReader::new(reader).lines();
    while let Some(line) = answers.next_line().await.map_err(lost)? {
        match serde_json::from_str(&line) {
            Ok(Answer::Started { .. }) => {}
            Ok(Answer::Failed { cause }) => return Err(AttachedError::CannotStart(cause)),
            Ok(Answer::Exited { exit }) => return Ok(exit),
            Err(error) => return Err(AttachedError::Shim(format!("the shim said nonsense: {error}"))),
        }
    }
    Err(AttachedError::Shim("the shim ended without an answer".to_owned()))
}

/// Sends a task to its shim: its length on a line of its own, then itself.
pub(crate) async fn send(writer: &mut (impl AsyncWrite + Unpin), task: &Task) -> std::io::Result<()> {
    let text = serde_json::to_vec(task)?;
    writer.write_all(format!("{}\n", text.len()).as_bytes()).await?;
    writer.write_all(&text).await
}

/// Waits for the shim, and kills it if it does not end.
async fn end(child: &mut Child) {
    if tokio::time::timeout(KILL_DEADLINE, child.wait()).await.is_err() {
        child.kill().await.ok();
    }
}

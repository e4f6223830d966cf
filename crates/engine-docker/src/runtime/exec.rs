//! Programs run inside running instances.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecResults};
use coracle_engine::{EngineError, Exit, OutputSink};
use coracle_model::InstanceId;
use futures::StreamExt;
use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use super::{logs, state};
use crate::client::{Client, message, status, timely};
use crate::lines::Interleaved;

/// How long a program may take to be reported as ended after its output has.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    client: &Client,
    id: &InstanceId,
    container: &str,
    argv: &[String],
    output: &OutputSink,
    cancel: &CancellationToken,
) -> Result<Exit, EngineError> {
    let failed = |error: &bollard::errors::Error| match status(error) {
        Some(404 | 409) => EngineError::NoSuchInstance(id.clone()),
        Some(400) => EngineError::CannotStart { id: id.clone(), cause: message(error) },
        _ => client.error(format!("run a program in {id}"), error),
    };
    let options = CreateExecOptions {
        cmd: Some(argv.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..Default::default()
    };
    let exec = timely(client.docker.create_exec(container, options)).await.map_err(|error| failed(&error))?.id;
    let work = async {
        let StartExecResults::Attached { output: mut pieces, .. } =
            timely(client.docker.start_exec(&exec, None)).await.map_err(|error| failed(&error))?
        else {
            return Err(EngineError::Failed { action: format!("run a program in {id}"), cause: "no output".to_owned() });
        };
        let mut lines = Interleaved::new(output);
        while let Some(piece) = pieces.next().await {
            logs::tell(&mut lines, piece.map_err(|error| failed(&error))?);
        }
        lines.finish();
        ended(client, id, &exec).await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            kill(client, id, &exec).await;
            Err(EngineError::Cancelled)
        }
        exit = work => exit,
    }
}

/// The exit of a program whose output has ended. It may have closed its output and gone on, so this waits a little.
async fn ended(client: &Client, id: &InstanceId, exec: &str) -> Result<Exit, EngineError> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    let mut pause = Duration::from_millis(2);
    loop {
        let inspected = timely(client.docker.inspect_exec(exec)).await;
        let inspected = inspected.map_err(|error| client.error(format!("run a program in {id}"), &error))?;
        if inspected.running != Some(true) || tokio::time::Instant::now() > deadline {
            return Ok(state::exit_of_code(inspected.exit_code));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Kills a program that runs inside an instance. The engine has no request for that, so we signal it ourselves, which
/// needs the engine's processes to be ours to signal.
async fn kill(client: &Client, id: &InstanceId, exec: &str) {
    let Ok(inspected) = timely(client.docker.inspect_exec(exec)).await else { return };
    let pid = inspected.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
    let (Some(true), Some(pid), Some(container)) = (inspected.running, pid, inspected.container_id) else { return };
    // A process id means something only on the engine's own machine, and there only if it is in that container.
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if !client.socket.is_local() || !cgroup.contains(&container) {
        tracing::warn!(%id, "cannot kill a cancelled program: it does not run on this machine");
        return;
    }
    for pid in with_descendants(pid) {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
            tracing::debug!(%id, %error, "a cancelled program was gone already");
        }
    }
}

/// A process and all that descend from it, itself first.
fn with_descendants(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<i32> =
            children.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        found.extend(children);
        next += 1;
    }
    found
}

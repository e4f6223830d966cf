//! `coracle server stop`: the control plane ends; what it started goes on, unless that is wished otherwise.

use clap::Args;
use coracle_server::{ServerOptions, stop_everything};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use super::super::{DONE, ExitCode};
use super::run::absolute;
use crate::context::Context;
use crate::failure::Failure;
use crate::peer;

/// How long a server may take to stop: its own deadline for what is going on, and a little.
const STOP_DEADLINE: Timespec = Timespec { tv_sec: 45, tv_nsec: 0 };

/// Stop the server of this machine; apps and proxy go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle server stop            apps stay reachable
  coracle server stop --proxy    nobody can reach them any more")]
pub(super) struct Arguments {
    /// Stop the proxy, too: requests are not taken any more, though the apps' instances go on
    #[arg(long, visible_alias = "all")]
    proxy: bool,
}

/// Does it.
pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    if client.endpoint().is_remote() {
        let endpoint = client.endpoint();
        return Err(
            Failure::usage(format!("the server at {endpoint} cannot be stopped from here")).hint("type it on its machine")
        );
    }
    let server = match peer::process_behind(client.endpoint()) {
        Some(process) => {
            stop(process)?;
            true
        }
        None => false,
    };
    let proxy = arguments.proxy && stop_proxy(context).await?;
    context.output.document(&json!({ "stopped": { "server": server, "proxy": proxy } }));
    context.output.tell(if server { "the server has stopped" } else { "no server was running" });
    if arguments.proxy {
        context.output.tell(if proxy { "the proxy has stopped" } else { "no proxy was running" });
    }
    Ok(DONE)
}

/// Asks a process to stop and waits until it has. The descriptor keeps its number from meaning another one meanwhile.
/// Blocks: nothing else goes on in this process.
fn stop(process: i32) -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::PERM => Failure::failed(format!("the server (process {process}) belongs to another user"))
            .hint("use sudo, or become that user"),
        _ => Failure::failed(format!("the server (process {process}) cannot be stopped: {error}")),
    };
    let id = Pid::from_raw(process).ok_or_else(|| Failure::failed("the server's process is not known"))?;
    let descriptor = pidfd_open(id, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(&descriptor, Signal::TERM).map_err(failed)?;
    // It becomes readable when the process has ended (pidfd_open(2)).
    match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&STOP_DEADLINE)) {
        Ok(0) => {
            Err(Failure::failed(format!("the server (process {process}) has not stopped within {} s", STOP_DEADLINE.tv_sec))
                .hint("look at its log: something it does has not ended"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

async fn stop_proxy(context: &Context) -> Result<bool, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("cannot tell where this program is: {error}")))?;
    let options = ServerOptions::new(absolute(&context.state())?, program).proxy();
    stop_everything(&options)
        .await
        .map_err(|error| Failure::failed(format!("the proxy cannot be stopped: {error}")).hint(error.hint()))
}

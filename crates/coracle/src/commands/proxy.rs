//! `coracle proxy`: the data plane. The server starts it, and it outlives the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use coracle_model::Span;
use coracle_proxy::{AccessLog, ProxyOptions};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::log;

/// Run the proxy, which brings requests to the apps (the server starts it by itself)
///
/// It serves by the last table it was told, whether a server runs or not. A second one takes over the sockets of the first
/// without refusing a connection. SIGTERM lets open requests end and stops it; SIGHUP opens the access log again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle proxy --http 0.0.0.0:80 --control-socket /run/coracle/proxy.sock --state-dir /var/lib/coracle/proxy")]
pub(crate) struct Arguments {
    /// Where to take requests; may be given more than once
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    http: Vec<SocketAddr>,
    /// The Unix socket on which it is told its table
    #[arg(long, value_name = "PATH")]
    control_socket: PathBuf,
    /// Where it keeps its last table
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Write a line of JSON per request to this file; `-` is standard output
    #[arg(long, value_name = "PATH")]
    access_log: Option<PathBuf>,
    /// How long open requests may take to end when it stops or is replaced
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain: Span,
    /// Threads that serve requests
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

/// Does it. Not in a runtime: the proxy makes its own.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    log::to_standard_error(&context.output);
    let mut options = ProxyOptions::new(arguments.http, arguments.control_socket, arguments.state_dir);
    options.drain = arguments.drain.duration();
    options.workers = arguments.workers.into();
    options.access_log = match arguments.access_log {
        None => AccessLog::Off,
        Some(path) if path.as_os_str() == "-" => AccessLog::Stdout,
        Some(path) => AccessLog::File(path),
    };
    coracle_proxy::run(options).map(|()| DONE).map_err(|error| Failure::failed(format!("the proxy does not start: {error}")))
}

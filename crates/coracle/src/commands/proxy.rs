//! `coracle proxy`: the data plane, and what it says about itself.

mod asking;
mod config_file;
mod labels;
mod run;

use clap::{Args, Subcommand};

use super::ExitCode;
use crate::context::Context;
use crate::failure::Failure;

/// Run the proxy, which brings requests to the apps (the server starts it by itself)
///
/// With --config it stands alone: the file says everything, and is watched. Otherwise it serves by the last table it was told
/// on its control socket, whether a server runs or not. A second one takes over the sockets of the first without refusing a
/// connection. SIGTERM lets open requests end and stops it; SIGHUP opens the access log again and reads the file again.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  coracle proxy --config proxy.toml
  coracle proxy --config proxy.toml --check
  coracle proxy routes
  coracle proxy labels
  coracle proxy --http 0.0.0.0:80 --control-socket /run/coracle/proxy.sock --state-dir /var/lib/coracle/proxy")]
pub(crate) struct Arguments {
    #[command(flatten)]
    running: run::Running,
    #[command(subcommand)]
    question: Option<Question>,
}

/// What can be asked of a proxy that runs.
#[derive(Debug, Subcommand)]
enum Question {
    Routes(asking::Routes),
    Targets(asking::Targets),
    Certificates(asking::Certificates),
    Metrics(asking::Metrics),
    Labels(labels::Arguments),
}

/// Does it. Not in a runtime: the proxy makes its own.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let Some(question) = arguments.question else { return run::run(arguments.running, context) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match question {
            Question::Routes(arguments) => asking::routes(arguments, context).await,
            Question::Targets(arguments) => asking::targets(arguments, context).await,
            Question::Certificates(arguments) => asking::certificates(arguments, context).await,
            Question::Metrics(arguments) => asking::metrics(arguments, context).await,
            Question::Labels(arguments) => labels::run(arguments, context).await,
        }
    })
}

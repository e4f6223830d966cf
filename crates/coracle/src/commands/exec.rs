//! `coracle exec`: a program inside a running instance.

use clap::Args;
use coracle_api::ExecRequest;
use coracle_model::InstanceId;

use super::{ExitCode, run::pass_through};
use crate::context::Context;
use crate::failure::Failure;

/// Run a program inside a running instance
///
/// It shares the instance's files, environment and limits. Standard input is not passed on; the exit code is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle exec -- ls -l
  coracle exec -i shop.v3.worker.1 -- cat /proc/self/limits")]
pub(crate) struct Arguments {
    /// Which instance, as `coracle ps` shows it [default: the first of web, else of any process]
    #[arg(short, long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    argv: Vec<String>,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = match (&arguments.instance, &context.global.app) {
        // The instance tells the app, so that it works from any directory.
        (Some(instance), None) => instance.app.clone(),
        _ => context.app()?,
    };
    let request = ExecRequest { argv: arguments.argv, instance: arguments.instance };
    let lines = context.client()?.exec(&app, &request).await?;
    pass_through(context, lines).await
}

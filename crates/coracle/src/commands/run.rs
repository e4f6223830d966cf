//! `coracle run`: a one-off process. Also shows the output of `coracle exec`, which differs only in where it runs.

use clap::Args;
use coracle_api::{RunLine, RunRequest, Stream};

use super::ExitCode;
use crate::context::Context;
use crate::failure::Failure;

/// Run a one-off process of the active release
///
/// It has the release's code and configuration and an instance of its own. The arguments reach the program as they are:
/// no shell comes in between. Standard input is not passed on; the exit code is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle run -- python manage.py migrate
  coracle run -a shop -- flask shell --version")]
pub(crate) struct Arguments {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let lines = context.client()?.run(&app, &RunRequest { argv: arguments.argv }).await?;
    pass_through(context, lines).await
}

/// Shows what a program writes and ends as it ends.
pub(crate) async fn pass_through(context: &Context, mut lines: coracle_api::RunStream) -> Result<ExitCode, Failure> {
    let output = &context.output;
    while let Some(line) = lines.next().await {
        match line? {
            RunLine::Output(line) if line.stream == Stream::Stdout => output.pass_out(format!("{}\n", line.text).as_bytes()),
            RunLine::Output(line) => output.pass_err(format!("{}\n", line.text).as_bytes()),
            RunLine::Problem(problem) => return Err(problem.into()),
            RunLine::Exit(exit) => {
                if exit.code.is_none() {
                    output.remark(exit);
                }
                return Ok(ExitCode::try_from(exit.shell_code()).unwrap_or(ExitCode::MAX));
            }
        }
        if output.reader_gone() {
            // Nobody reads any more: the program is ended, as a pipe would have ended it (128 and SIGPIPE).
            return Ok(141);
        }
    }
    Err(Failure::failed("the connection to the server was lost before the program ended")
        .hint("it was ended with the connection"))
}

//! `coracle completions`: for the shell that is used.

use clap::Args;
use clap_complete::Shell;

use super::{DONE, ExitCode};
use crate::arguments::definition;
use crate::context::Context;
use crate::failure::Failure;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle completions bash > /etc/bash_completion.d/coracle
  coracle completions zsh > ~/.zfunc/_coracle
  coracle completions fish > ~/.config/fish/completions/coracle.fish")]
pub(crate) struct Arguments {
    /// Which shell
    shell: Shell,
}

/// Does it.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "coracle", &mut script);
    context.output.pass_out(&script);
    Ok(DONE)
}

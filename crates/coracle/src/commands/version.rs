//! `coracle version`: this program's. The server's stands in `coracle server status`.

use clap::Args;
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Print the version of this program
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle version --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    context.output.document(&json!({ "version": version }));
    context.output.line(format!("coracle {version}"));
    Ok(DONE)
}

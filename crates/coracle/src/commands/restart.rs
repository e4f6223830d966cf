//! `coracle restart`: fresh instances of the active release.

use clap::Args;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{self, Turn};

/// Replace all instances by fresh ones, without losing a request
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle restart
  coracle restart -a shop --wait")]
pub(crate) struct Arguments {
    #[command(flatten)]
    turn: Turn,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let request = client.restart(&app, arguments.turn.into());
    follow::begin(context, &client, arguments.turn, "asking the server", request).await.map(|()| DONE)
}

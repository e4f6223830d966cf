//! `coracle rollback`: an earlier release again.

use clap::Args;
use coracle_api::RollbackRequest;
use coracle_model::ReleaseNumber;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{self, Turn};

/// Go back to an earlier release
///
/// Takes up its image and its configuration as they were, without building anything. It is a new release, so it can be
/// undone in turn.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle rollback       to the release before the active one
  coracle rollback v3    to the one that `coracle releases` shows as v3")]
pub(crate) struct Arguments {
    /// The release to go back to [default: the one before the active one]
    release: Option<ReleaseNumber>,
    /// Take these services back as well, although they keep data; without this, they stay as they are
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    recreate_services: Vec<String>,
    #[command(flatten)]
    turn: Turn,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let rollback = RollbackRequest {
        to: arguments.release,
        recreate_services: super::deploy::stateful(false, &arguments.recreate_services),
    };
    let request = client.rollback_as(&app, &rollback, arguments.turn.into());
    follow::begin(context, &client, arguments.turn, "asking the server", request).await.map(|()| DONE)
}

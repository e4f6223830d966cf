//! `coracle destroy`: the end of an app.

use clap::Args;
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Stop and forget an app: instances, volumes, releases, configuration
///
/// There is no way back. Asks for the app's name unless -y is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle destroy -a shop
  coracle destroy -a shop -y")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    // A name that was mistyped is told before anything is asked.
    let status = client.app(&app).await?;
    let what = match status.instances.len() {
        0 => format!("This removes {app} with its releases, volumes and configuration."),
        1 => format!("This stops the instance of {app} and removes its releases, volumes and configuration."),
        count => format!("This stops the {count} instances of {app} and removes its releases, volumes and configuration."),
    };
    let previews = client.previews(&app).await?;
    let names: Vec<&str> = previews.iter().map(|preview| preview.app.as_str()).collect();
    let what = match names.as_slice() {
        [] => what,
        names => format!("{what} With it go its previews: {}.", names.join(", ")),
    };
    context.confirm_by_typing(app.as_str(), &format!("destroying {app}"), &what)?;
    client.destroy(&app).await?;
    context.output.document(&json!({ "destroyed": app }));
    context.output.tell(format!("{app} is gone"));
    Ok(DONE)
}

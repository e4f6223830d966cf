//! `coracle apps`: all of them.

use clap::Args;
use coracle_api::AppSummary;

use super::{DONE, ExitCode, status};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style};

/// List all apps of the server
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle apps
  coracle apps --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let apps = context.client()?.apps().await?;
    context.output.list(&apps, "no apps yet; in the directory of one: coracle deploy", table);
    Ok(DONE)
}

fn table(apps: &[AppSummary]) -> Columns {
    let mut columns = Columns::new(&["app", "state", "release", "engine", "instances", "hosts"]);
    for app in apps {
        columns.row([
            Cell::styled(app.name.as_str(), Style::Bold),
            Cell::styled(app.state.as_str(), status::style_of(app.state)),
            app.release.map(|release| release.to_string()).unwrap_or_default().into(),
            app.engine.map(|engine| engine.to_string()).unwrap_or_default().into(),
            format!("{} of {}", app.running, app.wanted).into(),
            app.hosts.join(", ").into(),
        ]);
    }
    columns
}

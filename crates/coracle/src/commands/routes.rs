//! `coracle routes`: what the proxy was told.

use clap::Args;
use coracle_api::Route;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Columns;

/// List which requests go where
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle routes              of all apps
  coracle routes -a shop      of one
  coracle routes --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let mut routes = context.client()?.routes().await?.routes;
    // Only an app that was typed narrows the list; the one of this directory does not.
    if let Some(app) = &context.global.app {
        let below = format!("{app}.");
        let of_app = |service: &String| service == app.as_str() || service.starts_with(&below);
        routes.retain(|route| route.service.as_ref().is_some_and(of_app));
    }
    context.output.list(&routes, "no routes; the first deployment of an app with a web process makes one", table);
    Ok(DONE)
}

fn table(routes: &[Route]) -> Columns {
    let mut columns = Columns::new(&["rule", "on the way", "service", "requests", "targets"]);
    for route in routes {
        let targets: Vec<_> = route.targets.iter().map(|target| format!("{} ({})", target.address, target.id)).collect();
        columns.row([
            route.rule.clone().into(),
            route.middlewares.join(", ").into(),
            route.service.clone().unwrap_or_default().into(),
            route.admission.clone().into(),
            targets.join(", ").into(),
        ]);
    }
    columns
}

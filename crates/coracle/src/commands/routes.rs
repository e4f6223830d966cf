//! `coracle routes`: the live table, as the proxy says it.

use clap::Args;
use coracle_api::{Route, RouteTarget};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style};

/// List which requests go where
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle routes              of all apps
  coracle routes -a shop      of one
  coracle routes --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let list = context.client()?.routes().await?;
    if !list.live {
        context.output.remark("the proxy does not answer; this is what it was told");
    }
    let mut routes = list.routes;
    // Only an app that was typed narrows the list; the one of this directory does not.
    if let Some(app) = &context.global.app {
        routes.retain(|route| route.app.as_ref() == Some(app));
    }
    context.output.list(&routes, "no routes; the first deployment of an app with a web process makes one", table);
    Ok(DONE)
}

fn table(routes: &[Route]) -> Columns {
    let mut columns = Columns::new(&["app", "rule", "on the way", "requests", "targets"]);
    for route in routes {
        // A route that leads to no app is named by who answers.
        let whose = route.app.as_ref().map(ToString::to_string).or_else(|| route.service.clone()).unwrap_or_default();
        let tls = match route.tls {
            Some(true) => " (tls only)",
            Some(false) => " (without tls)",
            None => "",
        };
        columns.row([
            Cell::styled(whose, Style::Bold),
            format!("{}{tls}", route.rule).into(),
            route.middlewares.join(", ").into(),
            route.admission.clone().into(),
            route.targets.iter().map(said).collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    columns
}

/// Where a target listens, whose it is, and what is wrong with it.
fn said(target: &RouteTarget) -> String {
    match target.state.as_deref() {
        None | Some("up") => format!("{} ({})", target.address, target.id),
        Some(state) => format!("{} ({}, {state})", target.address, target.id),
    }
}

//! `coracle domains`: the hosts that apps are reached at.

use clap::Args;
use coracle_api::Domain;

use super::{DONE, ExitCode, certs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style};

/// List the hosts that apps are reached at, and how their certificates stand
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle domains              of all apps
  coracle domains -a shop      of one
  coracle domains --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let mut domains = context.client()?.domains().await?;
    // Only an app that was typed narrows the list; the one of this directory does not.
    if let Some(app) = &context.global.app {
        domains.retain(|domain| domain.app == *app);
    }
    context.output.list(&domains, "no domains; the first deployment of an app with a web process makes one", table);
    Ok(DONE)
}

fn table(domains: &[Domain]) -> Columns {
    let mut columns = Columns::new(&["host", "app", "path", "sent on to", "certificate", "until"]);
    for domain in domains {
        let certificate = match &domain.certificate {
            Some(certificate) => {
                let text = format!("{} ({})", certificate.state.as_str(), certificate.source.as_str());
                Cell::styled(text, certs::style_of(certificate.state))
            }
            None => Cell::styled("none", Style::Dim),
        };
        columns.row([
            Cell::styled(&domain.host, Style::Bold),
            domain.app.as_str().into(),
            domain.path_prefix.clone().into(),
            domain.canonical.clone().unwrap_or_default().into(),
            certificate,
            domain.certificate.as_ref().map(certs::until).unwrap_or_default().into(),
        ]);
    }
    columns
}

//! `coracle certs`: certificates, until when they are good, and what keeps others from being ordered.

use clap::Args;
use coracle_api::{Certificate, CertificateState};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style};

/// List certificates, until when they are good, and what keeps others from being ordered
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle certs                           of all apps
  coracle certs -a shop                   of one
  coracle certs --renew shop.example      try again now
  coracle certs --authority > root.pem    whom to trust for names under localhost
  coracle certs --json")]
pub(crate) struct Arguments {
    /// Try at once to get a certificate for this name, however long the next attempt was to wait
    #[arg(long, value_name = "NAME", conflicts_with = "authority")]
    renew: Option<String>,
    /// Print the certificate of the machine's own authority: whoever trusts it trusts the certificates for localhost
    #[arg(long)]
    authority: bool,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    if arguments.authority {
        context.output.pass_out(client.local_authority().await?.pem.as_bytes());
        return Ok(DONE);
    }
    if let Some(name) = arguments.renew {
        client.renew_certificate(&name).await?;
        context.output.tell(format!("a certificate for {name} is being tried for; `coracle certs` tells how it goes"));
        return Ok(DONE);
    }
    let mut certificates = client.certificates().await?;
    // Only an app that was typed narrows the list; the one of this directory does not.
    if let Some(app) = &context.global.app {
        certificates.retain(|certificate| certificate.apps.contains(app));
    }
    let empty = "no certificates; `coracle server run --https ADDR:PORT` takes requests over TLS, `--acme` orders certificates";
    context.output.list(&certificates, empty, table);
    Ok(DONE)
}

fn table(certificates: &[Certificate]) -> Columns {
    let mut columns = Columns::new(&["name", "app", "from", "state", "until", "remarks"]);
    for certificate in certificates {
        let apps: Vec<_> = certificate.apps.iter().map(|app| app.as_str()).collect();
        let remarks = certificate.reason.clone().unwrap_or_else(|| certificate.remarks.join("; "));
        columns.row([
            Cell::styled(&certificate.name, Style::Bold),
            apps.join(", ").into(),
            certificate.source.as_str().into(),
            Cell::styled(certificate.state.as_str(), style_of(certificate.state)),
            until(certificate).into(),
            remarks.into(),
        ]);
    }
    columns
}

/// How a state looks.
pub(super) fn style_of(state: CertificateState) -> Style {
    match state {
        CertificateState::Active => Style::Green,
        CertificateState::Failing => Style::Red,
        CertificateState::Waiting | CertificateState::Ordering => Style::Dim,
    }
}

/// Until when the one that is served is good; empty while there is none.
pub(super) fn until(certificate: &Certificate) -> String {
    certificate.not_after.map(|end| end.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

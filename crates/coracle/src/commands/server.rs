//! `coracle server`: the control plane on this machine.

mod run;
mod status;
mod stop;
mod unit;

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use coracle_server::AcmeOptions;
use coracle_server::discovery::DiscoveryOptions;

use super::ExitCode;
use crate::acme::AcmeArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::labelling::LabelArguments;

/// Run, examine or stop the server of this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle server run                      until Ctrl-C
  coracle server run --http 0.0.0.0:80    as root
  coracle server unit > /etc/systemd/system/coracle.service
  coracle server status")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Arguments),
    Unit(unit::Arguments),
    Status(status::Arguments),
    Stop(stop::Arguments),
}

/// Where a server listens; what `run` does and `unit` writes down.
#[derive(Debug, Clone, Args)]
struct Listening {
    /// Where requests to apps are taken; may be given more than once
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8080")]
    http: Vec<SocketAddr>,
    /// Where requests to apps are taken over TLS; may be given more than once
    #[arg(long, value_name = "ADDR:PORT")]
    https: Vec<SocketAddr>,
    #[command(flatten)]
    acme: AcmeArguments,
    /// Where the API listens beside its Unix socket, for those who know the token in the state directory
    ///
    /// It speaks plain HTTP: meant for an SSH tunnel or a private network.
    #[arg(long, value_name = "ADDR:PORT")]
    api_tcp: Option<SocketAddr>,
    /// Where git is served over SSH, as in 0.0.0.0:2222, to people with keys (`coracle people`)
    ///
    /// Pushes and fetches alone: no shell, no files, no forwarding. The host key is made once, in the state directory.
    #[arg(long, value_name = "ADDR:PORT")]
    ssh: Option<SocketAddr>,
    #[command(flatten)]
    discovering: Discovering,
}

/// Whether containers that others started are discovered; and how, if they are.
#[derive(Debug, Clone, Args)]
struct Discovering {
    /// Route containers that others started by their Traefik labels (this is usual where Docker answers)
    #[arg(long, overrides_with = "no_discover")]
    discover: bool,
    /// Leave containers that others started alone
    #[arg(long)]
    no_discover: bool,
    #[command(flatten)]
    labels: LabelArguments,
}

impl Discovering {
    fn options(&self) -> Result<DiscoveryOptions, Failure> {
        Ok(DiscoveryOptions { on: self.discover || !self.no_discover, labels: self.labels.options()? })
    }

    /// As they were typed.
    fn typed(&self) -> Vec<String> {
        let off = (self.no_discover && !self.discover).then(|| "--no-discover".to_owned());
        off.into_iter().chain(self.labels.typed()).collect()
    }
}

impl Listening {
    /// How certificates are ordered, if they are.
    fn acme(&self) -> Result<Option<AcmeOptions>, Failure> {
        if self.acme.orders() && self.https.is_empty() {
            let hint = "say where requests are taken over TLS, as in --https 0.0.0.0:443";
            return Err(Failure::usage("--acme orders certificates, and --https is not given").hint(hint));
        }
        let ca_file = self.acme.ca_file().map(run::absolute).transpose()?;
        Ok(self.acme.of_server(ca_file))
    }
}

impl Arguments {
    /// Whether this is the server itself, and not a question to it.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.verb, Verb::Run(_))
    }
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        Verb::Run(arguments) => run::run(arguments, context).await,
        Verb::Unit(arguments) => unit::run(arguments, context),
        Verb::Status(arguments) => status::run(arguments, context).await,
        Verb::Stop(arguments) => stop::run(arguments, context).await,
    }
}

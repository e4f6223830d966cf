//! `coracle proxy routes`, `targets`, `certificates`, `metrics`: what a proxy that runs says about itself.

use std::path::PathBuf;

use clap::Args;
use coracle_proxy::certs::{CertificateStatus, State};
use coracle_proxy::control::{Client, ControlError, RouteStatus, ServiceStatus, ServiceTarget, TargetState, TargetStatus};
use coracle_proxy::table::Admission;

use super::config_file;
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Columns, Style, columns::Cell};

/// List which requests go where, in the order in which the routes are asked
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle proxy routes
  coracle proxy routes --control-socket /run/coracle-proxy.sock --json")]
pub(super) struct Routes {
    #[command(flatten)]
    whom: Whom,
}

/// List who answers, and how much each one does at this moment
#[derive(Debug, Args)]
pub(super) struct Targets {
    #[command(flatten)]
    whom: Whom,
}

/// List certificates, until when they are good, and what keeps others from being ordered
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle proxy certificates
  coracle proxy certificates --renew shop.example
  coracle proxy certificates --authority > authority.pem")]
pub(super) struct Certificates {
    #[command(flatten)]
    whom: Whom,
    /// Try at once to get a certificate for this name, however long the next attempt was to wait
    #[arg(long, value_name = "NAME", conflicts_with = "authority")]
    renew: Option<String>,
    /// Print the certificate of the local authority: whoever trusts it trusts the certificates for localhost
    #[arg(long)]
    authority: bool,
}

/// Print what is counted, as Prometheus reads it
#[derive(Debug, Args)]
pub(super) struct Metrics {
    #[command(flatten)]
    whom: Whom,
}

/// Which proxy.
#[derive(Debug, Args)]
struct Whom {
    /// The proxy's control socket [default: the one of this machine's server, or of `coracle proxy --config`]
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
}

impl Whom {
    fn client(self, context: &Context) -> Client {
        let of_server = || Some(context.state().join("proxy/control.sock")).filter(|path| path.exists());
        let path = self.control_socket.or_else(of_server);
        Client::new(path.unwrap_or_else(|| config_file::default_state_dir().join(config_file::SOCKET)))
    }
}

fn failed(error: &ControlError) -> Failure {
    let failure = Failure::failed(error.to_string());
    match error {
        ControlError::Unreachable { .. } => {
            failure.hint("name another one by --control-socket; it is control.sock in the state_dir of its proxy.toml")
        }
        _ => failure,
    }
}

/// Does it.
pub(super) async fn routes(arguments: Routes, context: &Context) -> Result<ExitCode, Failure> {
    let routes = arguments.whom.client(context).routes().await.map_err(|error| failed(&error))?;
    context.output.list(&routes, "no routes", routes_table);
    Ok(DONE)
}

fn routes_table(routes: &[RouteStatus]) -> Columns {
    let mut columns = Columns::new(&["route", "rule", "priority", "from", "on the way", "to", "targets"]);
    for route in routes {
        let from = match (route.listeners.as_slice(), route.tls) {
            ([], None) => String::new(),
            ([], Some(true)) => "tls".to_owned(),
            ([], Some(false)) => "plain".to_owned(),
            (names, _) => names.join(", "),
        };
        let on_the_way: Vec<_> = route.middlewares.iter().map(|it| it.id.0.as_str()).collect();
        columns.row([
            route.id.0.clone().into(),
            route.rule.clone().into(),
            route.priority.to_string().into(),
            from.into(),
            on_the_way.join(", ").into(),
            route.service.as_ref().map(|service| service.id.0.clone()).unwrap_or_default().into(),
            route.service.as_ref().map(targets_of).unwrap_or_default().into(),
        ]);
    }
    columns
}

fn targets_of(service: &ServiceStatus) -> String {
    match &service.admission {
        Admission::Closed { .. } => return "closed".to_owned(),
        Admission::Hold { .. } => return "requests wait".to_owned(),
        Admission::Open => {}
    }
    let said = |target: &ServiceTarget| match target.state {
        TargetState::Up => target.address.to_string(),
        state => format!("{} ({})", target.address, state_of(state)),
    };
    let targets: Vec<_> = service.targets.iter().map(said).collect();
    if targets.is_empty() { "none".to_owned() } else { targets.join(", ") }
}

fn state_of(state: TargetState) -> &'static str {
    match state {
        TargetState::Up => "up",
        TargetState::Down => "down",
        TargetState::Ejected => "ejected",
        TargetState::Starting => "starting",
    }
}

/// Does it.
pub(super) async fn targets(arguments: Targets, context: &Context) -> Result<ExitCode, Failure> {
    let targets = arguments.whom.client(context).targets().await.map_err(|error| failed(&error))?;
    context.output.list(&targets, "no targets", targets_table);
    Ok(DONE)
}

fn targets_table(targets: &[TargetStatus]) -> Columns {
    let mut columns = Columns::new(&["target", "address", "state", "in flight", "upgraded"]);
    for target in targets {
        columns.row([
            target.id.0.clone().into(),
            target.address.to_string().into(),
            match target.state {
                TargetState::Up => Cell::styled("up", Style::Green),
                TargetState::Starting => "starting".into(),
                state => Cell::styled(state_of(state), Style::Red),
            },
            target.in_flight.to_string().into(),
            target.upgraded.to_string().into(),
        ]);
    }
    columns
}

/// Does it.
pub(super) async fn certificates(arguments: Certificates, context: &Context) -> Result<ExitCode, Failure> {
    let client = arguments.whom.client(context);
    if arguments.authority {
        let pem = client.local_authority().await.map_err(|error| failed(&error))?;
        context.output.pass_out(pem.as_bytes());
        return Ok(DONE);
    }
    if let Some(name) = arguments.renew {
        client.renew(&name).await.map_err(|error| failed(&error))?;
        context
            .output
            .tell(format!("a certificate for {name} is being tried for; `coracle proxy certificates` tells how it goes"));
        return Ok(DONE);
    }
    let certificates = client.certificates().await.map_err(|error| failed(&error))?;
    context.output.list(&certificates, "no certificates; no route asks for one", certificates_table);
    Ok(DONE)
}

fn certificates_table(certificates: &[CertificateStatus]) -> Columns {
    let mut columns = Columns::new(&["name", "from", "state", "until", "remarks"]);
    for certificate in certificates {
        let (state, remark) = match &certificate.state {
            State::Waiting { .. } => (Cell::styled("waiting", Style::Dim), String::new()),
            State::Ordering => (Cell::styled("ordering", Style::Dim), String::new()),
            State::Active { .. } => (Cell::styled("active", Style::Green), certificate.remarks.join("; ")),
            State::Failing { reason, .. } => (Cell::styled("failing", Style::Red), reason.clone()),
        };
        let until = certificate.certificate.as_ref().map(|facts| facts.not_after.strftime("%Y-%m-%d %H:%M").to_string());
        columns.row([
            certificate.name.clone().into(),
            match certificate.source {
                coracle_proxy::certs::Source::Acme => "acme",
                coracle_proxy::certs::Source::Local => "local",
                coracle_proxy::certs::Source::Given => "given",
            }
            .into(),
            state,
            until.unwrap_or_default().into(),
            remark.into(),
        ]);
    }
    columns
}

/// Does it.
pub(super) async fn metrics(arguments: Metrics, context: &Context) -> Result<ExitCode, Failure> {
    let metrics = arguments.whom.client(context).metrics().await.map_err(|error| failed(&error))?;
    context.output.pass_out(metrics.as_bytes());
    Ok(DONE)
}

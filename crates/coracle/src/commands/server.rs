//! `coracle server`: the control plane on this machine.

mod run;
mod status;
mod stop;
mod unit;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use coracle_policy::ServerPolicy;
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
    /// The host name under which the API, and git, are reached over TLS: https://NAME, for those who have a token
    ///
    /// The proxy takes these requests (--https), with a certificate as for an app's host: ordered with --acme, else of the machine's
    /// own authority. There is nothing under that name without TLS.
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    api_host: Option<String>,
    /// Where git and Coracle's own client are served over SSH, as in 0.0.0.0:2222, to people with keys (`coracle people`)
    ///
    /// Pushes, fetches, and the API for `coracle remote add NAME ssh://coracle@host:2222`: no shell, no files, no forwarding. The host
    /// key is made once, in the state directory.
    #[arg(long, value_name = "ADDR:PORT")]
    ssh: Option<SocketAddr>,
    /// Where webhooks of forges are taken (`coracle forge`), as in 0.0.0.0:9001; nothing else is served there
    ///
    /// It speaks plain HTTP: what is sent is signed, and not secret. The API's own address takes them as well.
    #[arg(long, value_name = "ADDR:PORT")]
    hooks: Option<SocketAddr>,
    /// Where that is reached from outside, as in https://box.example.com: what the addresses of webhooks begin with
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// A file of rules that releases of all apps are held to, as [policy] in coracle.toml; apps cannot say less
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
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

/// An address without a path, and without a slash at the end.
fn public_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let place = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]/_~".contains(&byte);
    match place.is_some_and(|place| !place.is_empty() && place.bytes().all(plain)) {
        true => Ok(url.to_owned()),
        false => Err("use http:// or https://, and a host".to_owned()),
    }
}

/// A name as it stands in a certificate: no pattern, no address.
fn host_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = text.to_ascii_lowercase();
    match name.len() <= 253 && name.split('.').all(label) && name.parse::<std::net::IpAddr>().is_err() {
        true => Ok(name),
        false => Err("a host name is wanted, as in coracle.example.com".to_owned()),
    }
}

impl Listening {
    /// What has no place of its own in a unit, as it was typed.
    fn typed(&self) -> Result<Vec<String>, Failure> {
        let hooks = self.hooks.iter().flat_map(|address| ["--hooks".to_owned(), address.to_string()]);
        let public_url = self.public_url.iter().flat_map(|url| ["--public-url".to_owned(), url.clone()]);
        let mut words: Vec<String> = hooks.chain(public_url).chain(self.discovering.typed()).collect();
        if let Some(path) = &self.policy {
            self.policy()?;
            words.extend(["--policy".to_owned(), run::absolute(path)?.display().to_string()]);
        }
        Ok(words)
    }

    /// What releases are held to.
    fn policy(&self) -> Result<ServerPolicy, Failure> {
        let Some(path) = &self.policy else { return Ok(ServerPolicy::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("the policy {} cannot be read: {error}", path.display())))?;
        ServerPolicy::parse(&text).map_err(|mistakes| {
            let file = path.display().to_string();
            Failure::usage(format!("{file} has mistakes; the server was not started")).excerpt(mistakes.to_text(&file))
        })
    }

    /// The name of the API's own host, which is served over TLS alone.
    fn api_host(&self) -> Result<Option<String>, Failure> {
        if self.api_host.is_some() && self.https.is_empty() {
            let hint = "say where requests are taken over TLS, as in --https 0.0.0.0:443";
            return Err(Failure::usage("--api-host is served over TLS, and --https is not given").hint(hint));
        }
        Ok(self.api_host.clone())
    }

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

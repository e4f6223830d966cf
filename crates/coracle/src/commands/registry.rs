//! `coracle registry`: who the server and its apps are to registries of images. Passwords are never taken from the command line,
//! which every user of the machine can read.

mod docker_config;

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use coracle_api::{NewRegistryLogin, RegistryLogin};
use coracle_model::{AppName, PrivateText, RegistryHost};
use serde_json::json;

use super::secrets::{limited, one_line_end_off};
use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, moment, terminal};

/// Log in to registries of images, or show where one is logged in
///
/// With -a, a login is shown to the registry for that app alone; an owner of it may give it. Without, it is shown for every app of
/// the server, and is its administrator's to give. Either is tried before it is kept, kept encrypted, and never shown again.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle registry
  coracle registry login registry.example.com
  coracle registry login registry.example.com -a shop --username ci --password-stdin < token
  coracle registry logout registry.example.com"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Login(Login),
    /// List where one is logged in, without passwords
    List,
    /// Forget a login
    Logout {
        /// The registry
        host: RegistryHost,
    },
}

/// Log in to a registry: tried there, and kept if it is taken
///
/// The password is asked for, or read from standard input. A token serves in place of a password.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle registry login registry.example.com                        asks for name and password
  coracle registry login ghcr.io --username ana --password-stdin < token
  coracle registry login registry.example.com --from-docker-config   what `docker login` has kept here")]
struct Login {
    /// The registry: a host, and a port if it is not 443; docker.io is Docker Hub
    host: RegistryHost,
    /// The user's name [default: asked for]
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Take name and password from Docker's configuration on this machine
    #[arg(long, conflicts_with_all = ["username", "password_stdin"])]
    from_docker_config: bool,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        None | Some(Verb::List) => list(context).await,
        Some(Verb::Login(arguments)) => login(arguments, context).await,
        Some(Verb::Logout { host }) => logout(&host, context).await,
    }
}

/// The app that was typed; the one of this directory is not meant by accident.
fn scope(context: &Context) -> Option<&AppName> {
    context.global.app.as_ref()
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let app = scope(context);
    let logins = context.client()?.registries(app).await?;
    let empty = match app {
        Some(app) => format!("{app} has no login of its own; log in: coracle registry login HOST -a {app}"),
        None => "no registry is logged in to for every app; log in: coracle registry login HOST".to_owned(),
    };
    context.output.list(&logins, &empty, table);
    Ok(DONE)
}

fn table(logins: &[RegistryLogin]) -> Columns {
    let now = jiff::Timestamp::now();
    let mut columns = Columns::new(&["registry", "user", "for", "given"]);
    for RegistryLogin { host, app, username, updated_at } in logins {
        let scope = app.as_ref().map_or_else(|| "every app".to_owned(), ToString::to_string);
        let name = crate::output::text::harmless(username).to_string();
        columns.row([Cell::styled(host.as_str(), Style::Bold), name.into(), scope.into(), moment::ago(*updated_at, now).into()]);
    }
    columns
}

async fn login(arguments: Login, context: &Context) -> Result<ExitCode, Failure> {
    let Login { host, username, password_stdin, from_docker_config } = arguments;
    let (username, password) = match from_docker_config {
        true => docker_config::login(&host)?,
        false => asked(context, username, password_stdin)?,
    };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty").hint("type it, or pipe it to standard input"));
    }
    let new = NewRegistryLogin { host, username, password: PrivateText::new(password) };
    let kept = context.client()?.login_registry(scope(context), &new).await?;
    context.output.document(&kept);
    let scope = kept.app.as_ref().map_or_else(|| "every app".to_owned(), ToString::to_string);
    context.output.tell(format!("{} takes {} and the password; kept for {scope}", kept.host, kept.username));
    Ok(DONE)
}

fn asked(context: &Context, username: Option<String>, password_stdin: bool) -> Result<(String, String), Failure> {
    let can_ask = terminal::can_ask();
    let username = match username {
        Some(username) => username,
        None if can_ask && !password_stdin => terminal::ask(&context.output, "user: ")?,
        None => return Err(Failure::usage("whose password is it?").hint("add --username NAME")),
    };
    let password = match password_stdin || !io::stdin().is_terminal() {
        true => one_line_end_off(limited(io::stdin().lock(), "standard input")?),
        false => terminal::ask_hidden(&context.output, "password: ")?,
    };
    Ok((username, password))
}

async fn logout(host: &RegistryHost, context: &Context) -> Result<ExitCode, Failure> {
    context.client()?.logout_registry(scope(context), host).await?;
    context.output.document(&json!({ "removed": host }));
    context.output.tell(format!("the login to {host} is forgotten"));
    Ok(DONE)
}

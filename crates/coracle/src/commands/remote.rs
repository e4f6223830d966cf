//! `coracle remote`: servers by name.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use coracle_api::{Client, PREFIX, Version, Visitor};
use coracle_model::Secret;
use serde::Serialize;
use serde_json::json;

use super::{DONE, ExitCode};
use crate::address::{self, Surroundings};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, terminal};
use crate::remotes::{Change, LOCAL, Remote, Remotes, parse_name};

/// Servers that commands talk to, by name
///
/// A remote is a server of Coracle's, for every command: `coracle --remote prod logs`. (What `git push` goes to is a remote of a
/// repository's: `coracle git remote` adds that one.) Over ssh://, the system's `ssh` is used, with its keys, known hosts and
/// configuration. Remotes are kept in ~/.config/coracle/config.toml.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle remote add prod ssh://root@box.example.com          a machine that you log in to
  coracle remote add prod ssh://coracle@box.example.com:2222  Coracle's own door, with a key that `coracle people` knows
  coracle remote add ci https://coracle.example.com           with a token, which is asked for
  coracle remote default prod
  coracle --remote prod status")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Add(Add),
    List(List),
    Remove(Remove),
    Default(Default),
}

/// Give a server a name
///
/// Asks the server who it is, and who you are to it, before anything is written.
#[derive(Debug, Args)]
struct Add {
    /// The name
    #[arg(value_parser = parse_name)]
    name: String,
    /// ssh://user@host:port, https://host:port, http://host:port, or the path of a Unix socket
    url: String,
    /// Read the token that the server wants from standard input [default: asked for on a terminal, not shown]
    #[arg(long)]
    token_stdin: bool,
    /// A file with the PEM certificates of the only authorities to believe, for https://
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Talk to this server from now on unless told otherwise
    #[arg(long)]
    default: bool,
    /// Do not ask the server whether it is there
    #[arg(long)]
    no_check: bool,
}

/// List the remotes
#[derive(Debug, Args)]
struct List {}

/// Forget a remote, with its token; the server is not touched
#[derive(Debug, Args)]
struct Remove {
    /// The name
    name: String,
}

/// Show or choose the server that is talked to unless told otherwise
#[derive(Debug, Args)]
struct Default {
    /// The name; `local` is the server of this machine
    name: Option<String>,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb.unwrap_or(Verb::List(List {})) {
        Verb::Add(arguments) => add(arguments, context).await,
        Verb::List(List {}) => list(context),
        Verb::Remove(arguments) => remove(&arguments.name, context),
        Verb::Default(arguments) => default(arguments.name.as_deref(), context),
    }
}

/// A remote, as it is told. Its token is not.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    url: String,
    default: bool,
    token: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
}

fn config_file() -> Result<PathBuf, Failure> {
    let hint = "set HOME, or XDG_CONFIG_HOME";
    Surroundings::found().config_file().ok_or_else(|| Failure::failed("there is no home to keep remotes in").hint(hint))
}

async fn add(arguments: Add, context: &Context) -> Result<ExitCode, Failure> {
    let Add { name, url, ca, default, no_check, token_stdin } = arguments;
    let path = config_file()?;
    let is_free = |remotes: &Remotes| match remotes.remotes.get(&name) {
        None => Ok(()),
        Some(there) => Err(Failure::failed(format!("there is a remote {name} already: {}", there.url))
            .hint(format!("coracle remote remove {name}"))),
    };
    is_free(&Remotes::read(&path)?)?;
    let surroundings = Surroundings::found();
    let over_tls = url.starts_with("https://");
    if ca.is_some() && !over_tls {
        return Err(Failure::usage("--ca says whom to believe over https://").hint("leave it away"));
    }
    let wants_token = over_tls || url.starts_with("http://");
    if token_stdin && !wants_token {
        return Err(Failure::usage("tokens are for https:// and http://").hint("leave --token-stdin away"));
    }
    let absolute =
        |path: PathBuf| std::path::absolute(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())));
    let ca = ca.map(absolute).transpose()?;
    // A path is from here; the remote is from everywhere.
    let url = match url.contains("://") || url.starts_with("unix:") {
        true => url,
        false => absolute(PathBuf::from(url))?.to_string_lossy().into_owned(),
    };
    let token = if wants_token { token(&name, token_stdin, &surroundings, context)? } else { None };
    let remote = Remote { url, token, ca };
    // What was given here goes before what the environment says.
    let shown = remote.token.clone().or(surroundings.token.clone());
    let endpoint = address::of_remote(&remote, &Surroundings { token: shown, ..surroundings })?;
    let version = match no_check {
        true => None,
        false => Some(checked(&Client::new(endpoint)).await?),
    };
    let url = remote.url.clone();
    Change::Add(&name, remote).make(&path, is_free)?;
    if default {
        Change::Default(Some(&name)).make(&path, |_| Ok(()))?;
    }
    told_added(&name, &url, default, version.as_ref(), context);
    Ok(DONE)
}

fn told_added(name: &str, url: &str, default: bool, version: Option<&Version>, context: &Context) {
    let output = &context.output;
    output.document(&json!({ "name": name, "url": url, "default": default, "server": version }));
    let about = match version {
        None => "not asked whether it is there".to_owned(),
        Some(Version { version, you, .. }) => match you {
            Some(Visitor::Administrator) => format!("version {version}; you administer it"),
            Some(Visitor::Person(person)) => format!("version {version}; you are {person}"),
            None => format!("version {version}"),
        },
    };
    output.tell(format!("{name} is {url} ({about})"));
    let own = env!("CARGO_PKG_VERSION");
    if let Some(version) = version.filter(|version| version.version != own) {
        output
            .remark(format!("this program is {own} and the server {}: some of what one can, the other may not", version.version));
    }
    if url.starts_with("http://") {
        output.remark("over http:// everybody on the way can read the token: for a private network or a tunnel alone");
    }
    if !default {
        output.remark(format!("next: coracle --remote {name} status, or coracle remote default {name}"));
    }
}

/// Asks the server who it is.
async fn checked(client: &Client) -> Result<Version, Failure> {
    let version = client.version().await?;
    let api = PREFIX.trim_start_matches('/');
    match version.api == api {
        true => Ok(version),
        false => {
            let its = (version.api, version.version);
            Err(Failure::failed(format!("the server speaks {} (version {}), and this program {api}", its.0, its.1))
                .hint("bring the older of them to the other's version"))
        }
    }
}

/// Bytes of a token on standard input.
const LONGEST_TOKEN: u64 = 4096;

/// The token to keep; none if the environment has one, which need not be written down.
fn token(name: &str, from_stdin: bool, surroundings: &Surroundings, context: &Context) -> Result<Option<Secret>, Failure> {
    let text = if from_stdin && !std::io::stdin().is_terminal() {
        let mut text = String::new();
        let reading = std::io::stdin().lock().take(LONGEST_TOKEN).read_to_string(&mut text);
        reading.map_err(|error| Failure::failed(format!("cannot read the token: {error}")))?;
        text
    } else if !from_stdin && surroundings.token.is_some() {
        context.output.remark("the token of CORACLE_TOKEN is used and not written down");
        return Ok(None);
    } else if terminal::can_ask() {
        terminal::ask_hidden(&context.output, &format!("token of {name}: "))?
    } else {
        return Err(Failure::usage("the server wants a token, and nobody can be asked for it here")
            .hint("pipe it in with --token-stdin, or set CORACLE_TOKEN"));
    };
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Some(Secret::new(token))),
        false => Err(Failure::usage("this is no token").hint("`coracle people token create NAME` makes one, on the server")),
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let Remotes { server, remotes, .. } = Surroundings::found().remotes()?;
    let told = |(name, remote): (String, Remote)| Told {
        default: server.as_deref() == Some(name.as_str()),
        name,
        url: remote.url,
        token: remote.token.is_some(),
        ca: remote.ca,
    };
    let all: Vec<Told> = remotes.into_iter().map(told).collect();
    context.output.list(&all, "no remotes yet; name a server: coracle remote add prod ssh://root@host", |all| {
        let mut columns = Columns::new(&["remote", "url", "token", ""]);
        for remote in all {
            columns.row([
                Cell::styled(remote.name.as_str(), Style::Bold),
                remote.url.as_str().into(),
                if remote.token { "kept" } else { "" }.into(),
                if remote.default { "default" } else { "" }.into(),
            ]);
        }
        columns
    });
    Ok(DONE)
}

fn remove(name: &str, context: &Context) -> Result<ExitCode, Failure> {
    Change::Remove(name).make(&config_file()?, |remotes| remotes.named(name).map(drop))?;
    context.output.document(&json!({ "removed": name }));
    context.output.tell(format!("{name} is forgotten; the server was not touched"));
    Ok(DONE)
}

fn default(name: Option<&str>, context: &Context) -> Result<ExitCode, Failure> {
    let path = config_file()?;
    let Some(name) = name else {
        let server = Remotes::read(&path)?.server.unwrap_or_else(|| LOCAL.to_owned());
        context.output.document(&json!({ "default": server }));
        context.output.line(server);
        return Ok(DONE);
    };
    let mut former = None;
    Change::Default(Some(name).filter(|name| *name != LOCAL)).make(&path, |remotes| {
        former = remotes.server.clone().filter(|server| !remotes.remotes.contains_key(server));
        if name == LOCAL { Ok(()) } else { remotes.named(name).map(drop) }
    })?;
    context.output.document(&json!({ "default": name }));
    context.output.tell(format!("{name} is talked to unless --remote says otherwise"));
    if let Some(former) = former {
        context.output.remark(format!("it was {former}, which has no name: coracle remote add NAME {former}"));
    }
    Ok(DONE)
}

//! `coracle git`: the working tree's side of `git push`.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Args, Subcommand};
use coracle_api::{Client, Endpoint};
use serde::Serialize;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Deploy by `git push`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle git remote          add the remote `coracle` to this repository
  git push coracle main       from then on: the commit is built, proven and live, or the push is refused")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Remote(Remote),
    #[command(hide = true)]
    Credential(Credential),
}

/// Add the app as a remote of this git repository
///
/// The token is not written down: git asks `coracle git credential` for it, which finds it where every command does.
#[derive(Debug, Args)]
struct Remote {
    /// The name of the remote
    #[arg(default_value = "coracle")]
    name: String,
    /// Only print the address; change nothing
    #[arg(long)]
    print: bool,
}

/// Answer git's question for the token (git-credential(1))
#[derive(Debug, Args)]
struct Credential {
    /// What git wants: get, store or erase
    operation: String,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        Verb::Remote(arguments) => remote(&arguments, context).await,
        Verb::Credential(arguments) => credential(&arguments, context),
    }
}

#[derive(Debug, Serialize)]
struct Added<'a> {
    remote: Option<&'a str>,
    url: &'a str,
}

async fn remote(arguments: &Remote, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let server = address(&client).await?;
    let url = format!("{server}/git/{app}.git");
    if arguments.print {
        context.output.document(&Added { remote: None, url: &url });
        context.output.line(&url);
        return Ok(DONE);
    }
    let name = arguments.name.as_str();
    if name.starts_with('-') {
        return Err(Failure::usage(format!("{name:?} is not the name of a remote")));
    }
    let there = git(context, &["config", "--get", &format!("remote.{name}.url")]).is_ok();
    git(context, &["remote", if there { "set-url" } else { "add" }, name, &url])?;
    git(context, &["config", "--replace-all", &format!("credential.{server}.helper"), &helper(context)?])?;
    context.output.document(&Added { remote: Some(name), url: &url });
    context.output.tell(format!("{name} is {url}"));
    context.output.remark(format!("deploy with: git push {name} main"));
    Ok(DONE)
}

/// Where the server is reached over HTTP, without a slash at the end.
async fn address(client: &Client) -> Result<String, Failure> {
    if let Endpoint::Tcp { url, .. } = client.endpoint() {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let closed = || {
        Failure::failed("the server takes no pushes: its API listens on its Unix socket alone")
            .hint("start it with `coracle server run --api-tcp 127.0.0.1:9000`")
    };
    let listens = client.version().await?.api_tcp.ok_or_else(closed)?;
    let mut listens: SocketAddr = listens.parse().map_err(|_| closed())?;
    // It is this machine.
    if listens.ip().is_unspecified() {
        listens.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(format!("http://{listens}"))
}

/// This program as a credential helper of git's, which runs it by a shell.
fn helper(context: &Context) -> Result<String, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("cannot tell where this program is: {error}")))?;
    let mut words = vec![quoted(&program.to_string_lossy())];
    if let Some(state) = &context.global.state {
        let state = std::path::absolute(state).map_err(|error| Failure::failed(format!("{}: {error}", state.display())))?;
        words.extend(["--state".to_owned(), quoted(&state.to_string_lossy())]);
    }
    if let Some(server) = &context.global.server {
        words.extend(["--server".to_owned(), quoted(server)]);
    }
    Ok(format!("!{} git credential", words.join(" ")))
}

/// A word as a POSIX shell takes it literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn git(context: &Context, words: &[&str]) -> Result<(), Failure> {
    let running = crate::git::command(&context.directory, words).output();
    let output = running.map_err(|error| Failure::failed(format!("git cannot be started: {error}")).hint("install git"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let told = String::from_utf8_lossy(&output.stderr);
            Err(Failure::failed(format!("git {}: {}", words[0], told.trim())).hint("in a git repository: `git init` makes one"))
        }
    }
}

/// Bytes of what git says about what it wants.
const LONGEST_QUESTION: u64 = 64 << 10;

fn credential(arguments: &Credential, context: &Context) -> Result<ExitCode, Failure> {
    let mut question = String::new();
    let reading = std::io::stdin().take(LONGEST_QUESTION).read_to_string(&mut question);
    reading.map_err(|error| Failure::failed(format!("git's question cannot be read: {error}")))?;
    if arguments.operation != "get" {
        return Ok(DONE);
    }
    let client = context.client()?;
    let token = match client.endpoint() {
        Endpoint::Tcp { token, .. } => token.expose().to_owned(),
        // On the server's own machine, whoever may read its state may push.
        Endpoint::Unix(_) => {
            let path = context.state().join("token");
            let reading = std::fs::read_to_string(&path);
            reading.map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?.trim().to_owned()
        }
    };
    context.output.pass_out(format!("username=coracle\npassword={token}\n").as_bytes());
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_are_taken_literally() {
        assert_eq!(quoted("/opt/co racle"), "'/opt/co racle'");
        assert_eq!(quoted("a'$(x)"), r"'a'\''$(x)'");
    }
}

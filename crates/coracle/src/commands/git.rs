//! `coracle git`: the working tree's side of `git push`.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::{Args, Subcommand};
use coracle_api::{Client, Endpoint, SshDoor, Visitor};
use coracle_model::AppName;
use serde::Serialize;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::harmless;

/// Deploy by `git push`
///
/// A remote of git's is where a repository is pushed to: one app of one server. (A server that commands talk to is a remote of
/// Coracle's: `coracle remote`.)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle git remote          add the remote `coracle` to this repository
  coracle git remote --ssh    the same, for pushing with an SSH key
  coracle git remote prod --remote prod    push to the server that Coracle knows as prod; git knows it by the first prod
  git push coracle main       from then on: the commit is built, proven and live, or the push is refused")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Remote(Remote),
    Branch(Branch),
    #[command(hide = true)]
    Credential(Credential),
}

/// Add the app as a remote of this git repository
///
/// The address is made from the server's: of --remote, of the usual one, or of this machine. Of a server that is reached over ssh://, it
/// is that of its own SSH door. The token is not written down: git asks `coracle git credential` for it, which finds it where every command does.
#[derive(Debug, Args)]
struct Remote {
    /// The name of the remote
    #[arg(default_value = "coracle")]
    name: String,
    /// Only print the address; change nothing
    #[arg(long)]
    print: bool,
    /// Push over SSH, with your key, instead of HTTP with a token
    ///
    /// Tells the fingerprint that `ssh` shows when it first connects: compare them. The server listens if it was started with
    /// --ssh.
    #[arg(long)]
    ssh: bool,
    /// The host name or address that the server's SSH door is reached at [default: that of the remote, else localhost]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

/// Show which branch of the app is deployed when it is pushed, or choose another
///
/// Choosing deploys nothing; the next push of the branch does. Without a choice it is main, or master where that is pushed first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle git branch
  coracle git branch live -a shop")]
struct Branch {
    /// The branch to deploy from now on
    name: Option<String>,
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
        Verb::Branch(arguments) => branch(&arguments, context).await,
        Verb::Credential(arguments) => credential(&arguments, context),
    }
}

async fn branch(arguments: &Branch, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let answer = match &arguments.name {
        Some(name) => client.set_deploy_branch(&app, name).await?,
        None => client.deploy_branch(&app).await?,
    };
    context.output.document(&answer);
    match (&answer.branch, &arguments.name) {
        (Some(branch), Some(_)) => context.output.tell(format!("{} is deployed when it is pushed", harmless(branch))),
        (Some(branch), None) => context.output.line(harmless(branch)),
        (None, _) => context.output.line("none yet: main, or master where that is pushed first"),
    }
    Ok(DONE)
}

#[derive(Debug, Serialize)]
struct Added<'a> {
    remote: Option<&'a str>,
    url: &'a str,
    /// How to know the server over SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<&'a SshDoor>,
}

async fn remote(arguments: &Remote, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    // Whoever reaches the server over SSH has a key, and maybe no token.
    let ssh = arguments.ssh || arguments.host.is_some() || matches!(client.endpoint(), Endpoint::Ssh(_));
    let (url, way) = match ssh {
        true => {
            let (host, ssh) = over_ssh(&client, arguments.host.as_deref()).await?;
            (format!("ssh://git@{host}/{app}.git"), Way::Ssh(ssh))
        }
        false => {
            let server = address(&client).await?;
            (format!("{server}/git/{app}.git"), Way::Http(server))
        }
    };
    if arguments.print {
        context.output.document(&Added { remote: None, url: &url, ssh: way.ssh() });
        context.output.line(&url);
        return Ok(DONE);
    }
    let name = arguments.name.as_str();
    if name.starts_with('-') {
        return Err(Failure::usage(format!("{name:?} is not the name of a remote")));
    }
    let known = crate::git::answer(&context.directory, &["config", "--get", &format!("remote.{name}.url")]);
    let before = known.as_deref().map(str::trim).filter(|before| *before != url);
    if let Some(before) = before.filter(|before| !is_of_coracle(before, |server| knows_helper(context, server))) {
        return Err(Failure::failed(format!("the remote {name} is {} already; it was left as it is", harmless(before)))
            .hint(format!("choose another name: coracle git remote NAME; or take that away: git remote remove {name}")));
    }
    git(context, &["remote", if known.is_some() { "set-url" } else { "add" }, name, &url])?;
    if let Way::Http(server) = &way {
        git(context, &["config", "--replace-all", &format!("credential.{server}.helper"), &helper(context)?])?;
        if let Endpoint::Tls(tls) = client.endpoint()
            && let Some(ca) = tls.ca()
        {
            git(context, &["config", "--replace-all", &format!("http.{server}.sslCAInfo"), &ca.to_string_lossy()])?;
        }
    }
    context.output.document(&Added { remote: Some(name), url: &url, ssh: way.ssh() });
    let instead = before.map(|before| format!(", instead of {}", harmless(before))).unwrap_or_default();
    context.output.tell(format!("{name} is {url}{instead}"));
    if let Some(ssh) = way.ssh() {
        context.output.tell(format!("its host key is {}", ssh.fingerprint));
    }
    context.output.remark(format!("deploy with: git push {name} main"));
    Ok(DONE)
}

/// Whether an address is as Coracle makes them for apps: it may be made anew. `is_helped` says whether git asks Coracle for the token
/// of a server.
fn is_of_coracle(url: &str, is_helped: impl Fn(&str) -> bool) -> bool {
    let is_app = |name: &str| name.strip_suffix(".git").is_some_and(|name| name.parse::<AppName>().is_ok());
    let Some((scheme, (host, path))) = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('/')?)))
    else {
        return false;
    };
    match scheme {
        "http" | "https" => path.strip_prefix("git/").is_some_and(is_app) && is_helped(&format!("{scheme}://{host}")),
        // The door's port always stands there.
        "ssh" => host.starts_with("git@") && host.rsplit_once(':').is_some() && is_app(path),
        _ => false,
    }
}

fn knows_helper(context: &Context, server: &str) -> bool {
    let helper = crate::git::answer(&context.directory, &["config", "--get", &format!("credential.{server}.helper")]);
    helper.is_some_and(|helper| helper.trim_end().ends_with(" git credential"))
}

/// How git gets there.
enum Way {
    /// At this address, with a credential helper.
    Http(String),
    /// By this door.
    Ssh(SshDoor),
}

impl Way {
    fn ssh(&self) -> Option<&SshDoor> {
        match self {
            Self::Ssh(ssh) => Some(ssh),
            Self::Http(_) => None,
        }
    }
}

/// The host and the port that the server is reached at over SSH, as they stand in an address.
async fn over_ssh(client: &Client, host: Option<&str>) -> Result<(String, SshDoor), Failure> {
    let version = client.version().await?;
    let closed =
        || Failure::failed("the server does not listen for SSH").hint("start it with `coracle server run --ssh 0.0.0.0:2222`");
    let ssh = version.ssh.ok_or_else(closed)?;
    let came_by_the_door = matches!(version.you, Some(Visitor::Person(_)));
    Ok((reached_over_ssh(client, &ssh, came_by_the_door, host)?, ssh))
}

/// Where a server's SSH door is reached from here. Over SSH, a person is let in by that door alone: then it is where one came in.
pub(crate) fn reached_over_ssh(
    client: &Client,
    door: &SshDoor,
    came_by_the_door: bool,
    host: Option<&str>,
) -> Result<String, Failure> {
    let unclear = |_| Failure::failed(format!("the server's SSH door is at {:?}, which is no address", door.address));
    let listens: SocketAddr = door.address.parse().map_err(unclear)?;
    let (host, port) = match (host, client.endpoint()) {
        (Some(host), _) => (in_address(host)?, listens.port()),
        (None, Endpoint::Ssh(ssh)) if came_by_the_door => (ssh.address().in_url(), ssh.address().port.unwrap_or(22)),
        (None, endpoint) if endpoint.is_remote() && listens.ip().is_loopback() && !is_here(endpoint) => {
            return Err(Failure::failed(format!("the server's SSH door is open on its own machine alone ({listens})"))
                .hint("start it with `coracle server run --ssh 0.0.0.0:2222`; or say --host, if something passes it on"));
        }
        (None, Endpoint::Ssh(ssh)) => (ssh.address().in_url(), listens.port()),
        (None, Endpoint::Tcp { url, .. }) => (host_of(url), listens.port()),
        (None, Endpoint::Tls(tls)) => (host_of(tls.url()), listens.port()),
        (None, Endpoint::Unix(_)) if listens.ip().is_unspecified() => ("localhost".to_owned(), listens.port()),
        (None, Endpoint::Unix(_)) => (in_address(&listens.ip().to_string())?, listens.port()),
    };
    Ok(format!("{host}:{port}"))
}

/// Whether a server that is reached over the network is this machine's all the same.
fn is_here(endpoint: &Endpoint) -> bool {
    let host = match endpoint {
        Endpoint::Ssh(ssh) => ssh.address().host.clone(),
        endpoint => endpoint.url().map(host_of).unwrap_or_default(),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A host as it stands in an address. What begins with a hyphen would be an option of ssh's.
pub(crate) fn in_address(host: &str) -> Result<String, Failure> {
    if host.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{host}]"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !host.is_empty() && !host.starts_with('-') && host.bytes().all(plain) {
        true => Ok(host.to_owned()),
        false => Err(Failure::usage(format!("{host:?} is not the name of a host"))),
    }
}

/// The host of `http://host:port`.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let port_at = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
    port_at.map_or(rest, |at| &rest[..at]).to_owned()
}

/// Where the server is reached over HTTP, without a slash at the end.
async fn address(client: &Client) -> Result<String, Failure> {
    if let Some(url) = client.endpoint().url() {
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
    if let Some(remote) = &context.remote() {
        words.extend(["--remote".to_owned(), quoted(remote)]);
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
    let token = match client.endpoint().token() {
        Some(token) => token.expose().to_owned(),
        None if client.endpoint().is_remote() => {
            return Err(Failure::usage("the server is reached over SSH, and there is no token for git")
                .hint("push over SSH as well: coracle git remote --ssh"));
        }
        // On the server's own machine, whoever may read its state may push.
        None => {
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
    fn hosts_stand_in_addresses_as_they_must() {
        for (url, host) in
            [("http://box:9000", "box"), ("http://box", "box"), ("http://[::1]:9000/", "[::1]"), ("http://[::1]", "[::1]")]
        {
            assert_eq!(host_of(url), host);
        }
        assert_eq!(in_address("::1").ok().as_deref(), Some("[::1]"));
        assert_eq!(in_address("box.example.com").ok().as_deref(), Some("box.example.com"));
        for bad in ["", "-oProxyCommand=x", "a b", "a/b", "a;b", "$(x)"] {
            assert!(in_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_others_are_not_taken_for_ours() {
        for (url, is_ours) in [
            ("http://127.0.0.1:9000/git/shop.git", true),
            ("https://box.example.com/git/shop-2.git", true),
            ("https://github.com/git/git.git", false),
            ("https://box.example.com/cgit/git/shop.git", false),
            ("ssh://git@host/shop.git", false),
            ("ssh://git@box.example.com:2222/shop.git", true),
            ("https://github.com/ana/shop.git", false),
            ("git@github.com:ana/shop.git", false),
            ("ssh://git@github.com/ana/shop.git", false),
            ("/srv/git/shop.git", false),
        ] {
            assert_eq!(is_of_coracle(url, |server| !server.contains("github")), is_ours, "{url}");
        }
    }

    #[test]
    fn words_for_a_shell_are_taken_literally() {
        assert_eq!(quoted("/opt/co racle"), "'/opt/co racle'");
        assert_eq!(quoted("a'$(x)"), r"'a'\''$(x)'");
    }
}

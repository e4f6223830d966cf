//! `coracle forge`: the repository elsewhere that an app is deployed from.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use coracle_api::{Client, ForgeConnected, ForgeConnection, ForgeRequest};
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::harmless;
use crate::output::{moment, terminal};

/// Deploy an app from a repository at GitHub, GitLab, Forgejo, Gitea or Bitbucket
///
/// A push to the branch there deploys it here: the forge sends a signed webhook, the server fetches the branch and deploys what it
/// names then, by the rules of `git push coracle`. With a token, the forge is told what comes of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle forge connect git@github.com:ana/shop.git
  coracle forge connect https://gitlab.com/ana/shop.git --branch live --token - < token
  coracle forge show
  coracle forge deploy
  coracle forge disconnect")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Connect(Connect),
    /// Show what the app is connected with, and what came of the last event
    Show,
    /// Fetch and deploy the branch now, as if a webhook had come
    Deploy,
    /// Take no more webhooks, and forget key, token and secret; the app goes on
    Disconnect,
}

/// Connect the app with a repository, and tell what has to be entered there
///
/// Over SSH, the server makes a key that the forge has to let in, for reading alone. Over HTTPS, a private repository takes a token.
/// Connected again with the same repository, the app keeps its webhook, its key, and what is not said.
#[derive(Debug, Args)]
struct Connect {
    /// Where the repository is: https://HOST/PATH or git@HOST:PATH
    url: String,
    /// What kind of forge it is, where the host's name does not tell: github, gitlab, forgejo, gitea or bitbucket
    #[arg(long)]
    kind: Option<String>,
    /// The branch that is deployed [default: as before, or main]
    #[arg(long)]
    branch: Option<String>,
    /// A file with a token that reads the repository and reports commit statuses; - is standard input
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The address of the forge's API, where it is not at its usual place
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Allow addresses that begin with http://: everybody on the way reads and writes what is said
    #[arg(long)]
    plain_http: bool,
    /// Make a new secret for the webhook
    #[arg(long)]
    new_secret: bool,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        Verb::Connect(arguments) => connect(arguments, context).await,
        Verb::Show => show(context).await,
        Verb::Deploy => deploy(context).await,
        Verb::Disconnect => disconnect(context).await,
    }
}

async fn connect(arguments: Connect, context: &Context) -> Result<ExitCode, Failure> {
    let Connect { url, kind, branch, token, api, plain_http, new_secret } = arguments;
    let token = token.map(|path| read_token(&path, context)).transpose()?;
    let request = ForgeRequest { url, kind, branch, token, api, plain_http, new_secret };
    let (app, client) = (context.app()?, context.client()?);
    let connected = client.connect_forge(&app, &request).await?;
    let hook = hook_url(&connected.connection, &client).await?;
    context.output.document(&connected);
    tell(&connected, &hook, context);
    Ok(DONE)
}

/// Bytes of a token.
const LONGEST: u64 = 64 << 10;

fn read_token(path: &PathBuf, context: &Context) -> Result<String, Failure> {
    let mut text = String::new();
    let reading = match path.to_str() {
        Some("-") if std::io::stdin().is_terminal() => return terminal::ask_hidden(&context.output, "token: "),
        Some("-") => std::io::stdin().take(LONGEST).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)),
    };
    reading.map_err(|error| Failure::failed(format!("cannot read the token from {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// Where the forge sends webhooks, as far as it is known.
async fn hook_url(connection: &ForgeConnection, client: &Client) -> Result<String, Failure> {
    if let Some(url) = &connection.hook_url {
        return Ok(url.clone());
    }
    let version = client.version().await?;
    let path = &connection.hook_path;
    Ok(match version.hooks.or(version.api_tcp) {
        Some(address) => format!("http://{address}{path}"),
        None => path.clone(),
    })
}

/// Where each forge wants what.
struct Places {
    webhook: &'static str,
    secret: &'static str,
    events: &'static str,
    key: &'static str,
}

fn places(kind: &str) -> Places {
    match kind {
        "gitlab" => Places {
            webhook: "Settings > Webhooks > Add new webhook",
            secret: "\"Signing token\", or \"Secret token\" where there is no such",
            events: "push events, merge request events",
            key: "Settings > Repository > Deploy keys",
        },
        "forgejo" => Places {
            webhook: "Settings > Webhooks > Add webhook, of the kind Forgejo or Gitea, content type application/json",
            secret: "\"Secret\"",
            events: "push, delete, pull request events",
            key: "Settings > Deploy keys",
        },
        "bitbucket" => Places {
            webhook: "Repository settings > Webhooks > Add webhook",
            secret: "\"Secret\"",
            events: "repository push; pull request created, updated, merged, declined",
            key: "Repository settings > Access keys",
        },
        _ => Places {
            webhook: "Settings > Webhooks > Add webhook, content type application/json",
            secret: "\"Secret\"",
            events: "pushes, pull requests",
            key: "Settings > Deploy keys > Add deploy key, without write access",
        },
    }
}

fn tell(connected: &ForgeConnected, hook: &str, context: &Context) {
    let ForgeConnected { connection, secret } = connected;
    let (output, at) = (&context.output, places(&connection.kind));
    output.tell(format!("{} is deployed from {} of {}", connection.app, connection.branch, connection.url));
    output.tell(format!("webhook     {hook}"));
    output.tell(format!("            {}; events: {}", at.webhook, at.events));
    match secret {
        Some(secret) => output.tell(format!("secret      {}   (shown once; {})", secret.expose(), at.secret)),
        None => output.tell("secret      as before (--new-secret makes another)"),
    }
    if let Some(key) = &connection.deploy_key {
        output.tell(format!("deploy key  {key}"));
        output.tell(format!("            {}", at.key));
    }
    for fingerprint in &connection.host_keys {
        output.tell(format!("host key    {fingerprint}   (compare it with what the forge publishes)"));
    }
    if !connection.has_token {
        output.remark("without a token, the forge is not told what comes of a commit: add --token FILE");
    }
    if !hook.contains("://") {
        output.remark("this server takes no webhooks yet: start it with --hooks 0.0.0.0:9001, and say where it is reached with --public-url");
    }
    output.remark(format!("then: coracle forge deploy -a {}, or push", connection.app));
}

async fn show(context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let connection = client.forge(&app).await?;
    let hook = hook_url(&connection, &client).await?;
    context.output.document(&connection);
    let output = &context.output;
    output.line(format!("{app} is deployed from {} of {}", connection.branch, connection.url));
    output.line(format!("webhook     {hook}"));
    if let Some(key) = &connection.deploy_key {
        output.line(format!("deploy key  {key}"));
    }
    for fingerprint in &connection.host_keys {
        output.line(format!("host key    {fingerprint}"));
    }
    let told = if connection.has_token { "told of deployments by its API" } else { "not told of deployments: there is no token" };
    output.line(format!("{:<12}{told}", connection.kind));
    if let Some(last) = &connection.last {
        let when = moment::ago(last.at, jiff::Timestamp::now());
        output.line(format!("last event  {when}: {}", harmless(&last.word)));
    }
    Ok(DONE)
}

async fn deploy(context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    context.client()?.deploy_from_forge(&app).await?;
    context.output.document(&json!({ "app": app, "asked": true }));
    context.output.tell(format!("the branch of {app} is fetched, and deployed if it is not live"));
    context.output.remark(format!("watch it: coracle forge show -a {app}, coracle deployments -a {app}"));
    Ok(DONE)
}

async fn disconnect(context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    context.client()?.disconnect_forge(&app).await?;
    context.output.document(&json!({ "disconnected": app }));
    context.output.tell(format!("{app} is not connected any more; remove the webhook and the deploy key at the forge"));
    Ok(DONE)
}

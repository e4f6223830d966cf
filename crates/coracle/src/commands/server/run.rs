//! `coracle server run`: the control plane, until it is told to stop.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coracle_server::{EngineChoice, Server, ServerOptions};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::super::{DONE, ExitCode};
use super::Listening;
use crate::address::SOCKET;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::log;

/// Run the server: it deploys apps, keeps them running, and starts the proxy that brings them their requests
///
/// Works as root and as any user. As root, apps are confined and port 80 may be used: --http 0.0.0.0:80. It stops on SIGTERM
/// or Ctrl-C; apps and proxy go on without it, and the next server takes them over. Its log goes to standard error
/// (RUST_LOG chooses how much; --json makes each line an object).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle server run
  coracle server run --http 0.0.0.0:80 --engine docker
  coracle --state ~/try server run --http 127.0.0.1:0 --print-ready")]
pub(super) struct Arguments {
    #[command(flatten)]
    listening: Listening,
    /// What runs apps whose manifest names no engine; auto is docker if it answers, else process
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineName,
    /// Once everything answers, print a line of JSON that says where
    #[arg(long)]
    print_ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Auto,
    Docker,
    Process,
}

impl From<EngineName> for EngineChoice {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Self::Auto,
            EngineName::Docker => Self::Docker,
            EngineName::Process => Self::Process,
        }
    }
}

/// Where everything answers.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    ready: bool,
    api: &'a Path,
    api_tcp: Option<String>,
    ssh: Option<&'a str>,
    hooks: Option<String>,
    http: Vec<String>,
    engine: &'static str,
}

/// Does it.
pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    log::to_standard_error(&context.output);
    let mut signals = Signals::listen()?;
    let options = options(&arguments, context)?;
    let starting = Server::start(options);
    let server = tokio::select! {
        server = starting => server.map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::failed(format!("the server does not start: {error}")).hint(hint)
        })?,
        () = signals.next() => return Err(Failure::failed("stopped while it was starting")),
    };
    tell_ready(&server, arguments.print_ready, context);
    coracle_proxy::program_pages::let_go();
    serve(server, signals).await
}

fn options(arguments: &Arguments, context: &Context) -> Result<ServerOptions, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("cannot tell where this program is: {error}")))?;
    let state = absolute(&context.state())?;
    let mut options = ServerOptions::new(state.clone(), program);
    options.api_socket = state.join(SOCKET);
    options.http.clone_from(&arguments.listening.http);
    options.https.clone_from(&arguments.listening.https);
    options.acme = arguments.listening.acme()?;
    options.api_tcp = arguments.listening.api_tcp;
    options.api_host = arguments.listening.api_host()?;
    options.ssh = arguments.listening.ssh;
    options.policy = arguments.listening.policy()?;
    options.hooks = arguments.listening.hooks;
    options.public_url.clone_from(&arguments.listening.public_url);
    options.engine = arguments.engine.into();
    options.discovery = arguments.listening.discovering.options()?;
    Ok(options)
}

/// The server outlives this directory's being the current one for those it starts.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{} cannot be used: {error}", path.display())))
}

fn tell_ready(server: &Server, print: bool, context: &Context) {
    let ready = Ready {
        ready: true,
        api: server.api_socket(),
        api_tcp: server.api_tcp().map(|address| address.to_string()),
        ssh: server.ssh().map(|ssh| ssh.address.as_str()),
        hooks: server.hooks().map(|address| address.to_string()),
        http: server.http().iter().map(ToString::to_string).collect(),
        engine: server.default_engine().as_str(),
    };
    if print {
        context.output.json_line(&ready);
    }
    let (http, api) = (ready.http.join(", "), ready.api.display());
    context.output.remark(format!("ready: requests on {http}, API on {api}, engine {}", ready.engine));
    if let Some(address) = &ready.api_tcp {
        let token = context.state().join("token");
        context.output.remark(format!("API on http://{address}, too, for those who know the token in {}", token.display()));
    }
    if let Some(address) = server.hooks() {
        context.output.remark(format!("webhooks on {address}"));
    }
    if let Some(url) = server.api_url() {
        context.output.remark(format!("API and git at {url}, for those who have a token"));
    }
    if let Some(ssh) = server.ssh() {
        context.output.remark(format!("git over SSH on {}; the host key is {}", ssh.address, ssh.fingerprint));
    }
}

/// The first signal asks the server to stop, the second cuts it off.
async fn serve(server: Server, mut signals: Signals) -> Result<ExitCode, Failure> {
    let stop = CancellationToken::new();
    let listening = async {
        signals.next().await;
        stop.cancel();
        signals.next().await;
    };
    tokio::select! {
        () = server.run_until(stop.clone().cancelled_owned()) => Ok(DONE),
        () = listening => Err(Failure::failed("cut off; the next start settles what was going on")),
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! `coracle dev`: the app in this folder, running while it is worked on. No server is asked.

mod printer;
mod project;

use std::path::Path;

use clap::Args;
use coracle_dev::{DevError, Folder, Options, Outcome, Session, Stops, take_down};
use coracle_engine::Engine;
use coracle_engine_docker::{DockerEngine, DockerOptions};
use coracle_engine_process::{IsolationMode, ProcessEngine, ProcessOptions};
use coracle_model::EngineKind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::project::Project;
use super::compose::ProjectFiles;
use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Whoever is interrupted twice did not end as was asked: what shells call a death by SIGINT.
const KILLED: ExitCode = 130;

/// Run the app in this folder and reload it while you work on it
///
/// With a compose file, its services run in containers: built, started in order, their ports on this machine's loopback, with
/// develop.watch. Without one, the processes of the Procfile (or of coracle.toml, or what is recognised) run without Docker,
/// and every change to the source reloads them. Ctrl-C stops everything that was started; a second one kills it. Named volumes
/// stay until --down -v. No server is needed, and none is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle dev
  coracle dev web                        only this service and what it depends on
  coracle dev -f compose.yaml -f compose.dev.yaml --profile debug
  coracle dev --port 3000                a Procfile's web process at http://127.0.0.1:3000
  coracle dev --down -v                  remove what is left of it, with its volumes

Exit codes: 0 stopped by Ctrl-C, or everything ended well; 1 it could not start; otherwise that of the first that failed.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    project: ProjectFiles,
    /// Only these services, and what they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// The port of the web process, without a compose file [default: 5000, or the next one that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Go on without keys of the compose file that cannot be honoured
    #[arg(long)]
    ignore_unsupported: bool,
    /// Remove the containers and networks that are left, instead of starting anything
    #[arg(long, conflicts_with_all = ["services", "port"])]
    down: bool,
    /// With --down: remove volumes and images too; written -v as well, behind --down or before it
    #[arg(long, requires = "down")]
    volumes: bool,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    if arguments.down {
        return down(&arguments, context).await;
    }
    let project = Project::find(&arguments, context)?;
    let stack = project.stack()?;
    let folder = folder(project.directory(), context)?;
    let _held = folder.hold().map_err(failure)?;
    let engine = engine(project.engine(), &folder).await?;
    let stops = Stops::default();
    let _listener = Listener::start(stops.clone())?;
    let printer = printer::tell(context.output.clone(), &stack);
    let reload = project.reload();
    let options = Options { port: arguments.port };
    let session = Session::new(folder, engine, stack, reload, printer, stops.clone(), options);
    match session.run().await.map_err(failure)? {
        Outcome::Stopped if stops.kill.is_cancelled() => Ok(KILLED),
        Outcome::Stopped | Outcome::Ended(None) => Ok(DONE),
        Outcome::Ended(Some(exit)) => Ok(u8::try_from(exit.shell_code()).unwrap_or(1)),
    }
}

/// Removes what is left, by whichever engine it was made.
async fn down(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    // A file that is broken by now must not keep anybody from cleaning up.
    let (directory, made_by) = match Project::find(arguments, context) {
        Ok(project) => (project.directory().to_owned(), Some(project.engine())),
        Err(failure) => {
            context.output.remark(format!("cleaning up although the project cannot be read: {}", failure.told()));
            (context.directory.clone(), None)
        }
    };
    let folder = folder(&directory, context)?;
    let _held = folder.hold().map_err(failure)?;
    let mut count = 0;
    for kind in [EngineKind::Docker, EngineKind::Process] {
        if made_by == Some(kind) || folder.state().join(kind.as_str()).exists() {
            count += take_down(&folder, &engine(kind, &folder).await?, arguments.volumes).await.map_err(failure)?;
        }
    }
    if arguments.volumes {
        let failed = |error| Failure::failed(format!("cannot remove {}: {error}", folder.state().display()));
        std::fs::remove_dir_all(folder.state()).map_err(failed)?;
    }
    let volumes = if arguments.volumes { ", with volumes and images" } else { "" };
    context.output.tell(format!("nothing of {} runs any more ({count} removed{volumes})", folder.path().display()));
    Ok(DONE)
}

fn folder(directory: &Path, context: &Context) -> Result<Folder, Failure> {
    Folder::new(directory, &context.state().join("dev")).map_err(failure)
}

/// The engine of a folder's own.
pub(crate) async fn engine(kind: EngineKind, folder: &Folder) -> Result<Engine, Failure> {
    let (owner, dir) = (folder.owner().clone(), folder.state().join(kind.as_str()));
    let opened = match kind {
        EngineKind::Docker => {
            let made = std::fs::create_dir_all(&dir);
            made.map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))?;
            let options = DockerOptions { owner, socket: None, state_dir: dir };
            DockerEngine::connect(options).await.map(|engine| engine.engine())
        }
        EngineKind::Process => {
            let program = std::env::current_exe();
            let program = program.map_err(|error| Failure::failed(format!("cannot find the coracle program: {error}")))?;
            let options = ProcessOptions { owner, dir, program, isolation: IsolationMode::Auto };
            ProcessEngine::open(options).map(|engine| engine.engine())
        }
    };
    opened.map_err(|error| failure(DevError::from(error)))
}

fn failure(error: DevError) -> Failure {
    let hint = error.hint().unwrap_or_default();
    Failure::failed(error.to_string()).evidence(error.evidence()).hint(hint)
}

/// Hands signals on: the first asks for an end, the second forces it. Ends when it is dropped.
pub(crate) struct Listener(tokio::task::JoinHandle<()>);

impl Listener {
    /// Begins to listen.
    pub(crate) fn start(stops: Stops) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        let mut signals = [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        Ok(Self(tokio::spawn(async move {
            next(&mut signals).await;
            stops.stop.cancel();
            next(&mut signals).await;
            stops.kill.cancel();
        })))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn next([one, two, three]: &mut [Signal; 3]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = two.recv() => {}
        _ = three.recv() => {}
    }
}

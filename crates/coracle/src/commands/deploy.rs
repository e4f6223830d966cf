//! `coracle deploy`: sends the tree and follows what becomes of it.

use std::path::{Path, PathBuf};

use clap::Args;
use coracle_api::{Client, DeployOptions, DeploymentPlan, PolicyLevel};
use coracle_model::{AppName, COMPOSE_FILES};

use super::{DONE, ExitCode};
use crate::context::{self, Context, MANIFEST, app_of_manifest, directory_name, nameless};
use crate::failure::Failure;
use crate::follow::{self, Turn};
use crate::git;
use crate::output::findings;
use crate::packing::Packing;

/// Deploy the app in this directory
///
/// Sends the directory (without what .coracleignore or .dockerignore names) to the server, which builds it, starts the new
/// release beside the old one, proves it healthy, and moves the traffic. If anything fails before that, the old release
/// goes on serving. Ctrl-C calls the deployment off.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle deploy                     this directory
  coracle deploy --plan              what would happen, and why
  coracle deploy -e staging ./shop   another directory, with the manifest's [environments.staging]
  coracle deploy --image registry.example.com/shop:v1 -a shop
  coracle deploy --detach            do not wait for the end")]
pub(crate) struct Arguments {
    /// The directory of the app
    #[arg(default_value = ".", hide_default_value = true)]
    path: PathBuf,
    /// Deploy this image of a registry instead of building the directory; its tag is pinned to what it means now
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["files", "profile", "env_file", "ignore_unsupported"])]
    image: Option<String>,
    /// The port that the image listens on, if neither it nor coracle.toml says so
    #[arg(long, value_name = "NUMBER", requires = "image", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only say what would happen and why; change nothing
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    plan: bool,
    /// Change, replace or stop these services although they keep data; requests wait meanwhile, volumes stay
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    recreate_services: Vec<String>,
    /// Change every service that keeps data and is described differently now
    #[arg(long, conflicts_with = "recreate_services")]
    allow_stateful_changes: bool,
    /// Make a release even if nothing has changed
    #[arg(long, conflicts_with = "plan")]
    force: bool,
    /// Run every step of the pipeline, also those that have passed with the same before
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    compose: Compose,
    #[command(flatten)]
    turn: Turn,
}

/// Which compose files describe the app, and how they are read.
#[derive(Debug, Args)]
struct Compose {
    /// A compose file of the directory; several are merged in their order [default: compose.yaml and its override]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// A profile of the compose files whose services are deployed as well
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// A file of the directory whose variables fill in the compose files [default: .env]
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Warn of keys of the compose files that Coracle cannot honour, instead of refusing them
    #[arg(long)]
    ignore_unsupported: bool,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let root = arguments.path.as_path();
    let app = checked(root, context)?;
    let client = context.client()?;
    let options = DeployOptions {
        environment: context.global.environment.clone(),
        commit: if arguments.image.is_some() { None } else { git::commit(root) },
        image: arguments.image.clone(),
        port: arguments.port,
        detach: arguments.turn.detach,
        wait: arguments.turn.wait,
        recreate_services: stateful(arguments.allow_stateful_changes, &arguments.recreate_services),
        compose_files: joined(&arguments.compose.files),
        profiles: joined(&arguments.compose.profile),
        env_files: joined(&arguments.compose.env_file),
        ignore_unsupported: arguments.compose.ignore_unsupported,
        force: arguments.force,
        no_cache: arguments.no_cache,
        ..DeployOptions::default()
    };
    // Without a manifest, nothing of the directory is about an image.
    let nothing = match &options.image {
        Some(_) if !root.join(MANIFEST).exists() => Some(
            tempfile::tempdir()
                .map_err(|error| Failure::failed(format!("cannot make a directory for temporary files: {error}")))?,
        ),
        _ => None,
    };
    let by_compose = options.image.is_none() && is_described_by_compose(root, &options)?;
    let root = nothing.as_ref().map_or(root, |directory| directory.path());
    let sending = Sending { context, client: &client, app: &app, options: &options, root, by_compose };
    match arguments.plan {
        true => sending.plan(&context.global.command("deploy")).await,
        false => sending.deploy(arguments.turn).await,
    }
}

/// A tree that is sent to be deployed.
pub(crate) struct Sending<'a> {
    pub(crate) context: &'a Context,
    pub(crate) client: &'a Client,
    pub(crate) app: &'a AppName,
    pub(crate) options: &'a DeployOptions,
    pub(crate) root: &'a Path,
    /// Whether compose files describe it.
    pub(crate) by_compose: bool,
}

impl Sending<'_> {
    /// Deploys it and follows that to its end.
    pub(crate) async fn deploy(&self, turn: Turn) -> Result<ExitCode, Failure> {
        let mut packing = Packing::begin(self.root, self.by_compose)?;
        let deploying = self.client.deploy(self.app, self.options, packing.source());
        let deployed = follow::begin(self.context, self.client, turn, "sending the source", deploying).await;
        // A tree that cannot be read is why the upload broke off, and the better thing to tell.
        packing.end().await?;
        deployed.map(|()| DONE)
    }

    /// Says what would happen; `command` does it.
    pub(crate) async fn plan(&self, command: &str) -> Result<ExitCode, Failure> {
        let mut packing = Packing::begin(self.root, self.by_compose)?;
        let answer = self.client.plan(self.app, self.options, packing.source()).await;
        packing.end().await?;
        show_plan(self.context, &answer?, command);
        Ok(DONE)
    }
}

/// Shows what would happen; `command` does it.
pub(crate) fn show_plan(context: &Context, plan: &DeploymentPlan, command: &str) {
    let output = &context.output;
    output.document(plan);
    for step in &plan.steps {
        output.line(crate::output::text::harmless(step));
    }
    for finding in plan.findings.iter().filter(|finding| finding.level > PolicyLevel::Off) {
        findings::lines(finding, output).iter().for_each(|line| output.line(line));
    }
    match plan.findings.iter().any(|finding| finding.level == PolicyLevel::Block) {
        true => output.remark("nothing was changed; as it is, it would be refused"),
        false => output.remark(format!("nothing was changed; do it: {command}")),
    }
}

/// Whether compose files describe what is sent, as the server decides it: they were named here or in the manifest, or are there
/// and the manifest does not say by itself what runs.
fn is_described_by_compose(root: &Path, options: &DeployOptions) -> Result<bool, Failure> {
    let environment = options.environment.as_deref();
    Ok(options.compose_files.is_some() || context::is_described_by_compose(root, environment, usual_file(root).is_some())?)
}

fn usual_file(root: &Path) -> Option<&'static str> {
    COMPOSE_FILES.into_iter().find(|name| root.join(name).is_file())
}

/// The compose file that describes the tree, if one does.
pub(crate) fn compose_file(root: &Path, environment: Option<&str>) -> Result<Option<&'static str>, Failure> {
    let usual = usual_file(root);
    let described = context::is_described_by_compose(root, environment, usual.is_some())?;
    // Those that the manifest names have a first one; which, is of no matter here.
    Ok(described.then_some(usual.unwrap_or("a compose file")))
}

pub(crate) fn joined(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(","))
}

/// The word for services that keep data, as the server takes it.
pub(crate) fn stateful(all: bool, named: &[String]) -> Option<String> {
    if all { Some("*".to_owned()) } else { joined(named) }
}

/// Everything that can be known to be wrong before anything is sent.
fn checked(root: &Path, context: &Context) -> Result<AppName, Failure> {
    if !root.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", root.display())).hint("coracle deploy [PATH]"));
    }
    let environment = context.global.environment.as_deref();
    let typed = context.global.app.as_ref();
    let wanted = typed.cloned().or_else(|| directory_name(root));
    match (app_of_manifest(root, environment, wanted.clone())?, environment, typed) {
        (None, Some(environment), _) => {
            Err(Failure::usage(format!("there is no {MANIFEST} in {} that could describe {environment:?}", root.display()))
                .hint("write one with `coracle init`, or leave -e away"))
        }
        (None, None, _) => wanted.ok_or_else(nameless),
        (Some(named), _, Some(typed)) if named != *typed => {
            Err(Failure::usage(format!("{MANIFEST} names the app {named}, but {typed} was typed"))
                .hint(format!("leave -a away, or change `app` in {MANIFEST}")))
        }
        (Some(named), ..) => Ok(named),
    }
}

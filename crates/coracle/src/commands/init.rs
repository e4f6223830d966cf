//! `coracle init`: a manifest to begin with, or the Dockerfile that an app without one is built from.

use std::path::{Path, PathBuf};

use clap::Args;
use coracle_build::PlanError;
use coracle_model::manifest::{TemplateFacts, template};
use coracle_model::{AppName, AppSpec, EngineKind};
use serde_json::json;

use super::deploy::compose_file;
use super::{DONE, ExitCode};
use crate::context::{Context, MANIFEST, directory_name, spec_of};
use crate::failure::Failure;
use crate::folder::{Folder, Unwritten};

/// Write a commented coracle.toml to begin with
///
/// Looks at what is in the directory and says how it would be built. Never overwrites a file unless -y is given. With
/// --dockerfile it prints, or writes, the Dockerfile that an app without one is built from on the docker engine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle init
  coracle init -a shop --ignore-file ./shop
  coracle init --dockerfile                      prints it
  coracle init --dockerfile --write")]
pub(crate) struct Arguments {
    /// The directory of the app
    #[arg(default_value = ".", hide_default_value = true)]
    path: PathBuf,
    /// Also write a .coracleignore: what stays behind when the app is sent to the server
    #[arg(long)]
    ignore_file: bool,
    /// Print the Dockerfile that a deployment of this directory would be built from, and write no manifest
    #[arg(long, conflicts_with = "ignore_file")]
    dockerfile: bool,
    /// Write that Dockerfile instead of printing it: from then on it is the app's own
    #[arg(long, requires = "dockerfile")]
    write: bool,
}

const DOCKERFILE: &str = "Dockerfile";

const IGNORE_FILE: &str = ".coracleignore";

const IGNORED: &str = "\
# What `coracle deploy` leaves behind. The rules are those of .dockerignore: from the root, the last match wins.
.git
.env
**/__pycache__
**/.venv
**/node_modules
";

/// Does it.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let root = &arguments.path;
    let app = context.global.app.clone().or_else(|| directory_name(root)).ok_or_else(|| {
        Failure::usage(format!("the name of {} cannot be an app's name", root.display())).hint("choose one: coracle init -a NAME")
    })?;
    if arguments.dockerfile {
        return dockerfile(&arguments, context, &app);
    }
    let facts = facts(root, &app);
    let mut written = vec![write(root, MANIFEST, &template(&app, &facts), context.global.yes)?];
    if arguments.ignore_file {
        written.push(write(root, IGNORE_FILE, IGNORED, context.global.yes)?);
    }
    context.output.document(&json!({ "app": app, "written": written }));
    for path in &written {
        context.output.line(format!("wrote {}", path.display()));
    }
    if let Some(reason) = facts.reason {
        context.output.remark(format!("how it will be built: {reason}"));
    }
    context.output.remark("next: coracle deploy");
    Ok(DONE)
}

/// Prints or writes what a deployment on the docker engine would be built from.
fn dockerfile(arguments: &Arguments, context: &Context, app: &AppName) -> Result<ExitCode, Failure> {
    let root = &arguments.path;
    let environment = context.global.environment.as_deref();
    if let Some(file) = compose_file(root, environment)? {
        let failure =
            Failure::failed(format!("{file} describes this app, so nothing is detected and no Dockerfile is made for it"));
        return Err(failure.hint("the Dockerfiles that its services are built from are named in it"));
    }
    let spec = spec_of(root, environment, Some(app.clone()))?.unwrap_or_else(|| AppSpec::named(app.clone()));
    // As the server will see the tree.
    let ignore = coracle_build::source_ignore(root).map_err(|error| Failure::usage(error.to_string()))?;
    let plan = coracle_build::plan_without(root, &ignore, &spec, EngineKind::Docker).map_err(|error| match error {
        PlanError::Unsuitable { message, hint } => Failure::failed(message).hint(hint),
        error => Failure::failed(error.to_string()),
    })?;
    let Some(text) = coracle_build::dockerfile::generate(&plan) else {
        let failure =
            Failure::failed(format!("this app is built from its own {}, not from one that is made for it", plan.recipe));
        return Err(failure.hint("it is yours already; nothing was printed or written"));
    };
    if arguments.write {
        let written = write(root, DOCKERFILE, &text, context.global.yes)?;
        context.output.document(&json!({ "app": app, "written": [&written] }));
        context.output.line(format!("wrote {}", written.display()));
        context.output.remark("next: look at it, commit it, coracle deploy");
    } else {
        context.output.document(&json!({ "app": app, "dockerfile": text }));
        context.output.line(text.trim_end());
    }
    Ok(DONE)
}

/// What can be told about the tree without a server: the recipe of either engine.
fn facts(root: &Path, app: &AppName) -> TemplateFacts {
    let spec = AppSpec::named(app.clone());
    let plan =
        [EngineKind::Docker, EngineKind::Process].into_iter().find_map(|engine| coracle_build::plan(root, &spec, engine).ok());
    TemplateFacts { reason: plan.map(|plan| plan.reason), ..TemplateFacts::default() }
}

fn write(root: &Path, name: &str, text: &str, overwrite: bool) -> Result<PathBuf, Failure> {
    Folder::open(root)?.write(name, text, overwrite).map_err(|unwritten| match unwritten {
        Unwritten::Taken => Failure::failed(format!("{} exists already; it was left as it is", place(root, name).display()))
            .hint("overwrite it with -y"),
        Unwritten::Failed(failure) => failure,
    })
}

/// A file of a directory as it is told.
fn place(root: &Path, name: &str) -> PathBuf {
    if root == Path::new(".") { PathBuf::from(name) } else { root.join(name) }
}

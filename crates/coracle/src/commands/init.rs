//! `coracle init`: a manifest to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use coracle_model::AppName;
use coracle_model::manifest::{TemplateFacts, template};
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::{Context, MANIFEST, directory_name};
use crate::failure::Failure;

/// Write a commented coracle.toml to begin with
///
/// Looks at what is in the directory and says how it would be built. Never overwrites a file unless -y is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle init
  coracle init -a shop --ignore-file ./shop")]
pub(crate) struct Arguments {
    /// The directory of the app
    #[arg(default_value = ".", hide_default_value = true)]
    path: PathBuf,
    /// Also write a .coracleignore: what stays behind when the app is sent to the server
    #[arg(long)]
    ignore_file: bool,
}

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
    let facts = facts(root, &app);
    let place = |name: &str| if root == Path::new(".") { PathBuf::from(name) } else { root.join(name) };
    let mut written = vec![write(&place(MANIFEST), &template(&app, &facts), context.global.yes)?];
    if arguments.ignore_file {
        written.push(write(&place(IGNORE_FILE), IGNORED, context.global.yes)?);
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

/// What can be told about the tree without a server: the recipe of either engine.
fn facts(root: &Path, app: &AppName) -> TemplateFacts {
    use coracle_model::{AppSpec, EngineKind};
    let spec = AppSpec::named(app.clone());
    let plan =
        [EngineKind::Docker, EngineKind::Process].into_iter().find_map(|engine| coracle_build::plan(root, &spec, engine).ok());
    TemplateFacts { reason: plan.map(|plan| plan.reason), ..TemplateFacts::default() }
}

fn write(path: &Path, text: &str, overwrite: bool) -> Result<PathBuf, Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok(path.to_owned()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::failed(format!("{} exists already; it was left as it is", path.display())).hint("overwrite it with -y"))
        }
        Err(error) => Err(Failure::failed(format!("cannot write {}: {error}", path.display()))),
    }
}

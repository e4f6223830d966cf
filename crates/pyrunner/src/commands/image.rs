//! `pyrunner image`: what programs can run in beside the machine's own Python.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use coracle_sandbox::library::{Base, From};
use coracle_sandbox::{Library, LibraryError, Manifest, Recipe};

use super::settings::{Homeless, home_of, interpreter};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ImageCommand {
    /// Directory of images [default: /var/lib/pyrunner-images for root, else ~/.local/share/pyrunner/images]
    #[arg(long, global = true, env = "PYRUNNER_IMAGES", value_name = "DIR")]
    images: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an image, or make one anew
    Build(Build),
    /// Show the images
    List {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an image
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    from: Origin,
    /// Its name; programs that name none get `default`
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
    /// Modules to import ahead: programs that use them start sooner, and every sandbox is a little larger
    #[arg(long, value_delimiter = ',', value_name = "MODULE,…")]
    preload: Vec<String>,
    /// Interpreter that packages are for [default: the machine's]
    #[arg(long, value_parser = interpreter, value_name = "PATH", requires = "requirements")]
    python: Option<PathBuf>,
    /// Let packages be built from source, which runs their code, as an unprivileged user
    #[arg(long, requires = "requirements")]
    from_source: bool,
    /// Socket of the Docker engine [default: DOCKER_HOST, or /var/run/docker.sock]
    #[arg(long, value_name = "PATH", requires = "docker_image")]
    docker_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Origin {
    /// Packages to install for the machine's Python, as pip reads them
    #[arg(short, long, value_name = "FILE")]
    requirements: Option<PathBuf>,
    /// Docker image to export, which the engine must have
    #[arg(long, value_name = "NAME")]
    docker_image: Option<String>,
    /// Directory with a root file system, used where it is
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// The library at that place, or at the usual one.
pub(crate) fn library(place: Option<&Path>) -> Result<Library, Homeless> {
    // Not below the server's state, which the API may write to: what root shows programs must be root's.
    let usual = || home_of("/var/lib/pyrunner-images", "XDG_DATA_HOME", ".local/share", "pyrunner/images", "--images");
    place.map_or_else(usual, |place| Ok(place.to_owned())).map(Library::at)
}

pub(crate) fn run(arguments: &ImageCommand) -> ExitCode {
    let library = match library(arguments.images.as_deref()) {
        Ok(library) => library,
        Err(error) => return output::failure(&error, None),
    };
    let done = match &arguments.action {
        Action::Build(build) => make(&library, build),
        Action::List { json } => list(&library, *json),
        Action::Remove { name } => library.remove(name).map(|()| output::result(format_args!("removed {name}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error, None),
    }
}

fn make(library: &Library, build: &Build) -> Result<(), LibraryError> {
    let Build { from, name, preload, python, from_source, docker_socket } = build;
    let from = match from {
        Origin { requirements: Some(file), .. } => {
            From::Requirements { file: file.clone(), python: python.clone(), source: *from_source }
        }
        Origin { docker_image: Some(reference), .. } => {
            From::Docker { reference: reference.clone(), socket: docker_socket.clone() }
        }
        Origin { directory, .. } => From::Directory(directory.clone().unwrap_or_default()),
    };
    let recipe = Recipe { from, preload: preload.clone() };
    let manifest = library.build(name, &recipe, &mut |line| output::note(line))?;
    output::result(format_args!("image {name}: {}", describe(&manifest)));
    Ok(())
}

fn list(library: &Library, json: bool) -> Result<(), LibraryError> {
    let images = library.list()?;
    if json {
        let one = |(name, manifest): &(String, Result<Manifest, LibraryError>)| match manifest {
            Ok(manifest) => serde_json::json!({ "name": name, "image": manifest }),
            Err(error) => serde_json::json!({ "name": name, "trouble": error.to_string() }),
        };
        output::result(serde_json::Value::Array(images.iter().map(one).collect()));
        return Ok(());
    }
    if images.is_empty() {
        output::note("no images; programs run in the machine's own Python");
    }
    for (name, manifest) in images {
        let described = manifest.as_ref().map_or_else(ToString::to_string, describe);
        output::result(format_args!("{name:<20} {described}"));
    }
    Ok(())
}

fn describe(manifest: &Manifest) -> String {
    let preload = if manifest.preload.is_empty() { String::new() } else { format!("; ahead: {}", manifest.preload.join(", ")) };
    match &manifest.base {
        Base::Host { .. } => {
            let packages = if manifest.installed.is_empty() { "no packages".to_owned() } else { manifest.installed.join(", ") };
            format!("Python {} with {packages}{preload}", manifest.python)
        }
        Base::Docker { reference, .. } => format!("{reference}, exported from Docker{preload}"),
        Base::Directory { path } => format!("{}{preload}", path.display()),
    }
}

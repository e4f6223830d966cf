//! `coracle import`: an app takes the place of a compose project that runs.

use std::path::{Path, PathBuf};

use clap::Args;
use coracle_api::{ComposeProject, DeployOptions};
use coracle_model::{AppName, COMPOSE_FILES};

use super::deploy::{Sending, joined};
use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::Turn;
use crate::git;
use crate::output::Columns;
use crate::output::columns::Cell;

/// Make an app of a running compose project, without stopping it
///
/// Finds the project by the labels that `docker compose up` has set, reads its files where they are, and deploys them as an
/// app's first release beside it. Its volumes are used as they are; its published HTTP ports go on working, now through the
/// proxy. Only when the release serves is the project stopped (its containers stay, stopped, unless --remove-old); if
/// anything fails before that, the project goes on as it was. `--plan` says what is going to happen.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle import --list              the compose projects of this machine
  coracle import shop --plan         what would happen, and why
  coracle import shop                the project shop becomes the app shop
  coracle import                     the project that was started in this directory
  coracle import -f compose.yaml -f compose.prod.yaml --name shop-live")]
pub(crate) struct Arguments {
    /// The project [default: the one that was started in this directory, or with these files]
    project: Option<String>,
    /// List the compose projects of this machine
    #[arg(long, conflicts_with_all = ["project", "files", "name", "plan"])]
    list: bool,
    /// The compose files, if they are not those that the project was started with
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the app is called [default: as the project is]
    #[arg(long, value_name = "APP")]
    name: Option<AppName>,
    /// Only say what would happen and why; change nothing
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    plan: bool,
    /// Remove the project's containers afterwards, instead of stopping them; volumes and networks stay
    #[arg(long)]
    remove_old: bool,
    /// A profile of the compose files whose services belong to it
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// A file whose variables fill in the compose files [default: the one that the project was started with, else .env]
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Warn of keys of the compose files that Coracle cannot honour, instead of refusing them
    #[arg(long)]
    ignore_unsupported: bool,
    #[command(flatten)]
    turn: Turn,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let projects = client.projects().await?;
    if arguments.list {
        context.output.list(&projects, "no compose project is on this machine", table);
        return Ok(DONE);
    }
    let project = chosen(&projects, &arguments, context)?;
    let place = Place::of(project, &arguments, &context.directory)?;
    let app = app_name(project, &arguments, context)?;
    let options = DeployOptions {
        commit: git::commit(&place.root),
        detach: arguments.turn.detach,
        wait: arguments.turn.wait,
        compose_files: joined(&place.files),
        profiles: joined(&arguments.profile),
        env_files: joined(&place.env_files),
        ignore_unsupported: arguments.ignore_unsupported,
        import: Some(project.name.clone()),
        remove_old: arguments.remove_old,
        ..DeployOptions::default()
    };
    let sending = Sending { context, client: &client, app: &app, options: &options, root: &place.root, by_compose: true };
    if arguments.plan {
        return sending.plan(&format!("coracle import {}", project.name)).await;
    }
    let done = sending.deploy(arguments.turn).await?;
    let again = place.deploy_again(&app);
    context.output.remark(format!("from now on: {again}"));
    Ok(done)
}

/// The project that is meant: by its name, by its files, or by the directory.
fn chosen<'a>(projects: &'a [ComposeProject], arguments: &Arguments, context: &Context) -> Result<&'a ComposeProject, Failure> {
    let list = "coracle import --list";
    if let Some(name) = &arguments.project {
        let found = projects.iter().find(|project| project.name == *name);
        return found.ok_or_else(|| Failure::failed(format!("Docker has no containers of a compose project {name}")).hint(list));
    }
    let files: Vec<PathBuf> = arguments.files.iter().map(|file| real(&context.directory.join(file))).collect();
    let here = real(&context.directory);
    let is_meant = |project: &&ComposeProject| match files.is_empty() {
        true => project.working_dir.as_deref().is_some_and(|dir| real(Path::new(dir)) == here),
        false => project.config_files.iter().any(|file| files.contains(&real(Path::new(file)))),
    };
    let mut meant = projects.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) => {
            let both = format!("{} and {} both were started here", one.name, other.name);
            Err(Failure::usage(both).hint(format!("name one: coracle import {}", one.name)))
        }
        (None, _) if files.is_empty() => {
            let told = format!("no compose project that runs was started in {}", here.display());
            Err(Failure::usage(told).hint(format!("name one, as they are listed by: {list}")))
        }
        (None, _) => Err(Failure::usage("no compose project that runs was started with these files")
            .hint(format!("name it beside them, as it is listed by: {list}"))),
    }
}

/// The name of the app: what was typed, else that of the project, with what an app's name cannot have made a hyphen.
fn app_name(project: &ComposeProject, arguments: &Arguments, context: &Context) -> Result<AppName, Failure> {
    if let Some(name) = arguments.name.as_ref().or(context.global.app.as_ref()) {
        return Ok(name.clone());
    }
    let plain = project.name.replace('_', "-");
    plain.trim_matches('-').parse().map_err(|_invalid| {
        Failure::usage(format!("{} cannot be the name of an app", project.name))
            .hint(format!("coracle import {} --name NAME", project.name))
    })
}

/// Where a project lies.
struct Place {
    /// The folder that is sent.
    root: PathBuf,
    /// Its compose files, within that.
    files: Vec<String>,
    /// Its files of variables, within that.
    env_files: Vec<String>,
}

impl Place {
    fn of(project: &ComposeProject, arguments: &Arguments, directory: &Path) -> Result<Self, Failure> {
        let typed: Vec<PathBuf> = arguments.files.iter().map(|file| directory.join(file)).collect();
        let labelled = || project.config_files.iter().map(PathBuf::from).collect();
        let files: Vec<PathBuf> = if typed.is_empty() { labelled() } else { typed };
        let of_files = || files.first().and_then(|file| file.parent()).map(Path::to_owned);
        let root = project.working_dir.as_ref().map(PathBuf::from).or_else(of_files);
        let Some(root) = root else {
            return Err(Failure::usage(format!("the labels of {} do not say where it lies", project.name))
                .hint(format!("coracle import {} -f FILE", project.name)));
        };
        if !root.is_dir() {
            return Err(Failure::usage(format!("{} was started in {}, which is not there", project.name, root.display()))
                .hint("type it on the machine that the project lies on, or name its files with -f"));
        }
        let root = real(&root);
        let named = if arguments.env_file.is_empty() {
            project.environment_files.iter().map(PathBuf::from).collect()
        } else {
            arguments.env_file.iter().map(|file| directory.join(file)).collect::<Vec<_>>()
        };
        let inside = |paths: &[PathBuf]| paths.iter().map(|path| within(&root, path)).collect::<Result<Vec<_>, _>>();
        Ok(Self { files: inside(&files)?, env_files: inside(&named)?, root })
    }

    /// How the app is deployed from now on.
    fn deploy_again(&self, app: &AppName) -> String {
        let mut command = format!("coracle deploy {} -a {app}", self.root.display());
        let is_usual = matches!(&self.files[..], [only] if COMPOSE_FILES.iter().find(|name| self.root.join(name).is_file()) == Some(&only.as_str()));
        if !is_usual {
            self.files.iter().for_each(|file| command.push_str(&format!(" -f {file}")));
        }
        self.env_files.iter().for_each(|file| command.push_str(&format!(" --env-file {file}")));
        command
    }
}

/// A path of a folder, relative to it.
fn within(root: &Path, path: &Path) -> Result<String, Failure> {
    let outside = || {
        Failure::usage(format!("{} is not in {}, the folder that is sent to the server", path.display(), root.display()))
            .hint("put the files of the project into one folder, or name others with -f")
    };
    if !path.is_file() {
        return Err(Failure::usage(format!("there is no file {}", path.display())).hint("name the project's files with -f"));
    }
    let inside = real(path).strip_prefix(root).map_err(|_elsewhere| outside())?.to_owned();
    inside.to_str().map(str::to_owned).ok_or_else(outside)
}

/// Without links and dots, as far as it is there.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn table(projects: &[ComposeProject]) -> Columns {
    let mut columns = Columns::new(&["project", "services", "running", "ports", "directory"]);
    for project in projects {
        let services: Vec<&str> = project.services.iter().map(|service| service.name.as_str()).collect();
        let ports: Vec<String> = project.services.iter().flat_map(|service| &service.ports).map(u16::to_string).collect();
        let (running, all) =
            project.services.iter().fold((0, 0), |(running, all), service| (running + service.running, all + service.containers));
        columns.row([
            Cell::from(project.name.as_str()),
            services.join(", ").into(),
            format!("{running} of {all}").into(),
            ports.join(", ").into(),
            project.working_dir.clone().unwrap_or_default().into(),
        ]);
    }
    columns
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn arguments(files: &[&str]) -> Arguments {
        Arguments {
            project: None,
            list: false,
            files: files.iter().map(PathBuf::from).collect(),
            name: None,
            plan: false,
            remove_old: false,
            profile: Vec::new(),
            env_file: Vec::new(),
            ignore_unsupported: false,
            turn: Turn::default(),
        }
    }

    #[test]
    fn a_project_is_read_where_its_labels_say_or_where_it_was_typed() {
        let dir = tempfile::tempdir().unwrap();
        let root = real(dir.path());
        for name in ["compose.yaml", "other.yaml", "prod.env"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let project = ComposeProject {
            name: "my_shop".into(),
            working_dir: Some(root.to_str().unwrap().to_owned()),
            config_files: vec![at("compose.yaml")],
            environment_files: vec![at("prod.env")],
            services: Vec::new(),
        };
        let place = Place::of(&project, &arguments(&[]), Path::new("/")).unwrap();
        assert_eq!((place.root.as_path(), place.files.as_slice()), (root.as_path(), &["compose.yaml".to_owned()][..]));
        let app: AppName = "my-shop".parse().unwrap();
        assert_eq!(place.deploy_again(&app), format!("coracle deploy {} -a my-shop --env-file prod.env", root.display()));
        let typed = Place::of(&project, &arguments(&["other.yaml"]), &root).unwrap();
        assert!(typed.deploy_again(&app).contains(" -f other.yaml"));
        let elsewhere = Place::of(&project, &arguments(&["/etc/hostname"]), &root);
        assert!(elsewhere.is_err_and(|failure| failure.exit_code() == 2));
        assert!(Place::of(&project, &arguments(&["none.yaml"]), &root).is_err());
    }
}

//! Which files make up a project, where it lives, what it is called, and which variables its files see.
//!
//! Compose file specification, section "Compose file"; environment precedence as `docker compose` has it: the process
//! first, then `--env-file` or `.env`.

use std::path::{Path, PathBuf};

use coracle_model::COMPOSE_FILES;

use crate::Options;
use crate::environment;
use crate::error::{ErrorKind, Fault};
use crate::files::Reader;
use crate::paths;
use crate::substitution::{self, Environment};
use crate::warnings::Warnings;

const OVERRIDE_NAMES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// A project before its files have been read.
#[derive(Debug)]
pub(crate) struct Place {
    /// Absolute paths, and `-`.
    pub(crate) files: Vec<String>,
    pub(crate) directory: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) profiles: Vec<String>,
}

/// Finds a project's files, directory, variables and profiles.
pub(crate) fn find(options: &Options, reader: &Reader, warnings: &mut Warnings) -> Result<Place, Fault> {
    let cwd = paths::clean(&options.working_dir);
    let given_directory = options.project_dir.as_ref().map(|directory| paths::clean(&cwd.join(directory)));
    let mut files: Vec<String> = options.files.iter().map(|file| absolute(&cwd, file)).collect();
    let directory_of = |files: &[String]| {
        let first = files.iter().find(|file| *file != "-");
        given_directory.clone().or_else(|| Some(Path::new(first?).parent()?.to_path_buf())).unwrap_or_else(|| cwd.clone())
    };

    let mut environment = options.environment.clone();
    read_env_files(options, reader, &cwd, &directory_of(&files), &mut environment)?;
    if files.is_empty()
        && let Some(listed) = environment.get("COMPOSE_FILE").filter(|listed| !listed.is_empty())
    {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", String::as_str);
        files = listed.split(separator).map(|file| absolute(&cwd, file)).collect();
    }
    if files.is_empty() {
        files = search(&directory_of(&files), warnings)?;
    }
    let directory = directory_of(&files);
    // The files may live elsewhere than the first look assumed.
    read_env_files(options, reader, &cwd, &directory, &mut environment)?;

    let mut profiles = options.profiles.clone();
    if profiles.is_empty() {
        let listed = environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
        profiles = listed.split(',').map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned).collect();
    }
    Ok(Place { files, directory, environment, profiles })
}

fn absolute(cwd: &Path, file: impl AsRef<Path>) -> String {
    if file.as_ref() == Path::new("-") { "-".to_owned() } else { paths::join(cwd, file) }
}

/// Adds what environment files say to what is known already.
fn read_env_files(
    options: &Options,
    reader: &Reader,
    cwd: &Path,
    directory: &Path,
    environment: &mut Environment,
) -> Result<(), Fault> {
    let mut named: Vec<String> = options.env_files.iter().map(|file| paths::join(cwd, file)).collect();
    if named.is_empty() {
        let listed = environment.get("COMPOSE_ENV_FILES").map_or("", String::as_str);
        named = listed.split(',').filter(|file| !file.is_empty()).map(|file| paths::join(cwd, file)).collect();
    }
    if named.is_empty() {
        let disabled = environment.get("COMPOSE_DISABLE_ENV_FILE").map(|text| text.to_ascii_lowercase());
        let usual = paths::join(directory, ".env");
        if matches!(disabled.as_deref(), Some("1" | "t" | "true")) || !Path::new(&usual).is_file() {
            return Ok(());
        }
        named = vec![usual];
    }
    let read = environment::read_project_files(&named, environment, reader)?;
    for (name, value) in read {
        environment.entry(name).or_insert(value);
    }
    Ok(())
}

/// Looks for a compose file in a directory and in those above it.
fn search(start: &Path, warnings: &mut Warnings) -> Result<Vec<String>, Fault> {
    let present = |directory: &Path, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| paths::join(directory, name)).filter(|file| Path::new(file).exists()).collect()
    };
    let mut first_of = |found: Vec<String>, sort: &str| -> Option<String> {
        let first = found.first().cloned()?;
        if found.len() > 1 {
            warnings.add(format!("Found multiple {sort} files with supported names: {}; using {first}", found.join(", ")));
        }
        Some(first)
    };
    for directory in start.ancestors() {
        if let Some(main) = first_of(present(directory, &COMPOSE_FILES), "config") {
            let mut files = vec![main];
            files.extend(first_of(present(directory, &OVERRIDE_NAMES), "override"));
            return Ok(files);
        }
    }
    let message = format!("no configuration file provided: not found in {} or above", start.display());
    Err(Fault::new(ErrorKind::File, message).hint(format!("create {} or name a file", COMPOSE_FILES[0])))
}

/// The project's name: given, from the environment, from the files (`written`), or the directory's.
pub(crate) fn name(options: &Options, place: &Place, written: Option<&str>, warnings: &mut Warnings) -> Result<String, Fault> {
    let imposed = options.project_name.as_ref().or_else(|| place.environment.get("COMPOSE_PROJECT_NAME"));
    if let Some(name) = imposed.filter(|name| !name.is_empty()) {
        if normalised(name) != *name {
            let message = format!(
                "invalid project name \"{name}\": must consist only of lowercase alphanumeric characters, hyphens, and \
                 underscores as well as start with a letter or number"
            );
            return Err(Fault::new(ErrorKind::Name, message));
        }
        return Ok(name.clone());
    }
    let name = match written {
        Some(template) => normalised(&substitution::expand(template, &place.environment, warnings)?),
        None => normalised(&place.directory.file_name().unwrap_or_default().to_string_lossy()),
    };
    if name.is_empty() {
        return Err(Fault::new(ErrorKind::Name, "project name must not be empty").hint("say `name:` in the compose file"));
    }
    Ok(name)
}

/// A name with only what a project's name may have.
fn normalised(name: &str) -> String {
    let name: String = name
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '_' | '-'))
        .collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

//! The client's side.

use std::io::Write;
use std::path::Path;

use coracle_model::COMPOSE_FILES;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{PackError, PackFacts, check_link_target};
use crate::ignore::{DockerIgnore, IgnoreError};
use crate::tree::TreeWriter;

/// What is no source where no ignore file says otherwise.
const NO_SOURCE: &str = "\
**/.git
**/.hg
**/.svn
**/.coracle
**/node_modules
**/.venv
**/venv
**/__pycache__
**/*.pyc
**/.pytest_cache
**/.mypy_cache
**/.ruff_cache
**/.tox
**/.DS_Store
**/.env
";

/// Files that decide how a tree is built: sent even where the rules of a `.dockerignore` leave them out.
const ALWAYS: [&str; 4] = ["coracle.toml", "Procfile", "Dockerfile", ".dockerignore"];

/// The rules for what `coracle deploy` leaves behind: those of `.coracleignore`, else of `.dockerignore`, else built-in ones
/// (`.git`, `node_modules`, `.venv`, `__pycache__`, `.env` …).
///
/// A tree that compose files describe, and no `coracle.toml`, is left as [`compose_ignore`] says.
pub fn source_ignore(root: &Path) -> Result<DockerIgnore, IgnoreError> {
    if !root.join("coracle.toml").exists() && COMPOSE_FILES.iter().any(|name| root.join(name).is_file()) {
        return compose_ignore(root);
    }
    if let Some(own) = DockerIgnore::read(root, ".coracleignore")? {
        return Ok(own);
    }
    match DockerIgnore::read(root, ".dockerignore")? {
        Some(docker) => Ok(ALWAYS.iter().fold(docker, |ignore, path| ignore.always(path))),
        None => DockerIgnore::parse(NO_SOURCE, "built-in rules"),
    }
}

/// The rules for a tree that compose files describe: those of `.coracleignore`, else built-in ones. A `.dockerignore` at its
/// root is about one of its build contexts and says nothing about the others, and `.env` fills in the files' variables.
pub fn compose_ignore(root: &Path) -> Result<DockerIgnore, IgnoreError> {
    match DockerIgnore::read(root, ".coracleignore")? {
        Some(own) => Ok(own),
        None => DockerIgnore::parse(NO_SOURCE.trim_end_matches("**/.env\n"), "built-in rules"),
    }
}

/// Packs the tree as a gzipped tar. Symlinks that lead out of the tree are an error, since the server would refuse them.
pub fn pack<W: Write>(root: &Path, ignore: &DockerIgnore, writer: W) -> Result<PackFacts, PackError> {
    let mut tree = TreeWriter::new(root, ignore, GzEncoder::new(writer, Compression::fast()));
    tree.check_link = check_link_target;
    tree.write().map_err(|error| PackError::Io { path: error.path, source: error.source })?;
    let facts = PackFacts { files: tree.entries, bytes: tree.bytes };
    let ended = tree.tar.into_inner().and_then(GzEncoder::finish).and_then(|mut writer| writer.flush());
    ended.map_err(|source| PackError::Io { path: root.to_owned(), source })?;
    Ok(facts)
}

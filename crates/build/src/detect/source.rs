//! Reading a tree without leaving it: what a link leads out of the tree to is not there.

use std::fs;
use std::path::{Path, PathBuf};

use super::PlanError;
use crate::ignore::DockerIgnore;

/// Bytes of the largest file that is looked into. Lock files of large apps have some hundred kilobytes.
const LARGEST: u64 = 16 << 20;

/// A source tree, read without leaving it. Paths are relative to its root, with `/`.
#[derive(Debug)]
pub struct Source<'a> {
    root: &'a Path,
    /// What is not there for whoever gets the tree.
    ignore: Option<&'a DockerIgnore>,
}

impl<'a> Source<'a> {
    /// All of what is there.
    pub fn new(root: &'a Path) -> Self {
        Self { root, ignore: None }
    }

    /// The tree as it is without what these rules leave out.
    pub fn without(root: &'a Path, ignore: &'a DockerIgnore) -> Self {
        Self { root, ignore: Some(ignore) }
    }

    /// The real place of a path, if that is within the tree.
    fn within(&self, path: &str) -> Option<PathBuf> {
        if self.ignore.is_some_and(|ignore| path != "." && ignore.ignores(path.trim_start_matches("./"))) {
            return None;
        }
        let real = fs::canonicalize(self.root.join(path)).ok()?;
        real.starts_with(fs::canonicalize(self.root).ok()?).then_some(real)
    }

    /// Whether there is such a file.
    pub fn is_file(&self, path: &str) -> bool {
        self.within(path).is_some_and(|path| path.is_file())
    }

    pub(crate) fn is_folder(&self, path: &str) -> bool {
        self.within(path).is_some_and(|path| path.is_dir())
    }

    /// The text of a file, `None` if there is none. Invalid UTF-8 is replaced: names and commands are ASCII anyway.
    pub fn read(&self, path: &str) -> Result<Option<String>, PlanError> {
        let Some(real) = self.within(path).filter(|real| real.is_file()) else { return Ok(None) };
        let failed = |source| PlanError::Io { path: PathBuf::from(path), source };
        let bytes = coracle_regular_file::read(&real, LARGEST).map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
    }

    /// The paths of the files that lie in a folder, in order.
    pub(crate) fn files_in(&self, folder: &str) -> Vec<String> {
        let names = self.names_in(folder).into_iter().map(|name| if folder == "." { name } else { format!("{folder}/{name}") });
        names.filter(|path| self.is_file(path)).collect()
    }

    /// The names of the folders that lie in a folder, in order.
    pub(crate) fn folders_in(&self, folder: &str) -> Vec<String> {
        self.names_in(folder).into_iter().filter(|name| self.is_folder(&format!("{folder}/{name}"))).collect()
    }

    fn names_in(&self, folder: &str) -> Vec<String> {
        let Some(real) = self.within(folder) else { return Vec::new() };
        let entries = fs::read_dir(real).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// The names of the folders in the root that Python can import: `shop`, but not `.git` or `my-app`.
    pub(crate) fn packages(&self) -> Vec<String> {
        let is_name = |name: &String| {
            !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        self.folders_in(".").into_iter().filter(is_name).collect()
    }
}

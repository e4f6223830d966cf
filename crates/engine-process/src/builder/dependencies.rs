//! Installed dependencies, by what decides them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coracle_engine::{BuildError, EngineError};

use super::step::Bench;
use crate::files::{give_to, make_directory, remove_tree};
use crate::runtime::in_background;
use crate::slug::COMPLETE;

/// What decides which dependencies are installed, as a name.
pub(super) struct Key(blake3::Hasher);

impl Key {
    /// For a kind of installation; to be changed when this program installs differently.
    pub(super) fn new(kind: &str) -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.add("kind", kind.as_bytes());
        key
    }

    /// Adds something that decides.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Adds a program by what changes when another version of it is installed.
    pub(super) fn add_program(&mut self, program: &Path) {
        use std::os::unix::fs::MetadataExt;
        let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        let meta = real.metadata().map(|meta| (meta.len(), meta.mtime(), meta.ino()));
        self.add("program", format!("{} {meta:?}", real.display()).as_bytes());
    }

    pub(super) fn name(&self) -> String {
        self.0.finalize().to_hex().chars().take(24).collect()
    }
}

/// A place for dependencies.
pub(super) struct Place {
    /// Its name in the cache of the app.
    pub(super) name: String,
    /// Where it is, for good: what is installed there may name its own path.
    pub(super) path: PathBuf,
    /// Whether everything is installed.
    pub(super) complete: bool,
}

impl Place {
    /// The place for that key: complete, or empty.
    pub(super) async fn prepare(bench: &Bench<'_>, key: &Key) -> Result<Self, BuildError> {
        let name = key.name();
        let all = bench.site.home.dependencies(&bench.request.app);
        super::make_private(&all, bench.user)?;
        let path = all.join(&name);
        let complete = path.join(COMPLETE).exists();
        if !complete {
            let (path, user) = (path.clone(), bench.user);
            in_background(move || {
                // What a build that was cut off left behind is not trusted.
                let made = remove_tree(&path).and_then(|()| make_directory(&path, 0o755)).and_then(|()| give_to(&path, user));
                made.map_err(|error| EngineError::io("make a place for dependencies", &error))
            })
            .await?;
        }
        Ok(Self { name, path, complete })
    }

    /// Says that everything is installed, or clears up if it is not.
    pub(super) async fn finish(self, installed: Result<(), BuildError>) -> Result<String, BuildError> {
        let path = self.path;
        in_background(move || {
            match &installed {
                Ok(()) => std::fs::write(path.join(COMPLETE), "").and_then(|()| std::fs::File::open(&path)?.sync_all()),
                Err(_) => remove_tree(&path),
            }
            .map_err(|error| BuildError::from(EngineError::io("finish the dependencies", &error)))?;
            installed
        })
        .await?;
        Ok(self.name)
    }
}

/// The names of the `count` most recent complete dependencies that are not in `used`.
pub(super) fn youngest(directory: &Path, used: &BTreeSet<String>, count: usize) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut spare: Vec<_> = entries
        .filter_map(|entry| {
            let time = entry.path().join(COMPLETE).metadata().and_then(|meta| meta.modified()).ok()?;
            Some((time, entry.file_name().into_string().ok()?))
        })
        .filter(|(_, name)| !used.contains(name))
        .collect();
    spare.sort();
    spare.into_iter().rev().take(count).map(|(_, name)| name).collect()
}

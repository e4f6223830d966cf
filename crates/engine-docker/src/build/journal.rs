//! A note of the layers that builds made, so that they can be removed when nobody needs them: the classic builder leaves
//! them as images without a name, and nothing on them says whose they are.
//!
//! It is a note, not state: what is lost with it is disk space. One file per app, one line per layer, only appended to by
//! builds and rewritten whole by pruning.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_model::{AppName, ReleaseNumber};
use jiff::Timestamp;

/// The layers of this many builds, the latest, are kept as the cache of the next.
pub(super) const CACHED_BUILDS: usize = 2;

/// A layer that a build made or used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// The beginning of the image's id.
    pub(super) id: String,
    /// Whether this build made it, or found it in the cache.
    pub(super) made: bool,
}

/// The note of one build.
pub(super) struct Journal {
    file: File,
    build: String,
}

impl Journal {
    /// Opens the app's journal for a build.
    pub(super) fn open(state_dir: &Path, app: &AppName, release: ReleaseNumber) -> io::Result<Self> {
        let path = path(state_dir, app);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { file, build: format!("{release} {}", Timestamp::now().as_second()) })
    }

    /// Notes a layer. A failure costs disk space later, not the build now.
    pub(super) fn note(&mut self, layer: &Layer) {
        let line = format!("{} {} {}\n", self.build, if layer.made { "made" } else { "used" }, layer.id);
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "cannot note a layer");
        }
    }
}

/// A layer that no recent build needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) id: String,
    /// When the build began that claims to have made it; a layer that is older is not its work.
    pub(super) since: Timestamp,
}

/// The layers that only builds before the latest `cached` made, the newest first.
pub(super) fn stale(state_dir: &Path, app: &AppName, cached: usize) -> Vec<Stale> {
    let text = fs::read_to_string(path(state_dir, app)).unwrap_or_default();
    let entries: Vec<Entry<'_>> = text.lines().filter_map(Entry::parse).collect();
    let recent = recent_builds(&entries, cached);
    let needed: HashSet<&str> = entries.iter().filter(|e| recent.contains(e.build)).map(|e| e.id).collect();
    let mut seen = HashSet::new();
    let old = entries.iter().rev().filter(|entry| entry.made && !needed.contains(entry.id));
    old.filter(|entry| seen.insert(entry.id)).map(|entry| Stale { id: entry.id.to_owned(), since: entry.since }).collect()
}

/// Forgets layers that are gone, and what builds before the latest `cached` used without making it.
pub(super) fn forget(state_dir: &Path, app: &AppName, cached: usize, gone: &HashSet<String>) -> io::Result<()> {
    let path = path(state_dir, app);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let entries: Vec<Entry<'_>> = text.lines().filter_map(Entry::parse).collect();
    let recent = recent_builds(&entries, cached);
    let kept = entries.iter().filter(|entry| recent.contains(entry.build) || (entry.made && !gone.contains(entry.id)));
    let kept: String = kept.map(|entry| format!("{}\n", entry.line)).collect();
    if kept.is_empty() {
        return fs::remove_file(path);
    }
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(state_dir))?;
    file.write_all(kept.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn path(state_dir: &Path, app: &AppName) -> PathBuf {
    state_dir.join("docker-layers").join(app.as_str())
}

struct Entry<'a> {
    line: &'a str,
    build: &'a str,
    since: Timestamp,
    made: bool,
    id: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (rest, id) = line.rsplit_once(' ')?;
        let (build, made) = rest.rsplit_once(' ')?;
        let since = Timestamp::from_second(build.split_once(' ')?.1.parse().ok()?).ok()?;
        Some(Self { line, build, since, made: made == "made", id })
    }
}

fn recent_builds<'a>(entries: &[Entry<'a>], cached: usize) -> HashSet<&'a str> {
    let last: HashMap<&str, usize> = entries.iter().enumerate().map(|(index, entry)| (entry.build, index)).collect();
    let mut builds: Vec<_> = last.into_iter().collect();
    builds.sort_by_key(|(_, index)| std::cmp::Reverse(*index));
    builds.into_iter().take(cached).map(|(build, _)| build).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn layers_that_only_old_builds_made_are_stale() {
        let dir = tempfile::tempdir().unwrap();
        let app: AppName = "shop".parse().unwrap();
        let build = |release: u32, layers: &[(&str, bool)]| {
            let mut journal = Journal::open(dir.path(), &app, ReleaseNumber::new(release).unwrap()).unwrap();
            for (id, made) in layers {
                journal.note(&Layer { id: (*id).to_owned(), made: *made });
            }
        };
        build(1, &[("aaa", true), ("bbb", true)]);
        build(2, &[("aaa", false), ("ccc", true)]);
        build(3, &[("aaa", false), ("ddd", true)]);
        let ids = |stale: Vec<Stale>| stale.into_iter().map(|layer| layer.id).collect::<Vec<_>>();
        assert_eq!(ids(stale(dir.path(), &app, 2)), ["bbb"]);
        build(4, &[("eee", true)]);
        assert_eq!(ids(stale(dir.path(), &app, 2)), ["ccc", "bbb"]);
        forget(dir.path(), &app, 2, &HashSet::from(["bbb".to_owned()])).unwrap();
        assert_eq!(ids(stale(dir.path(), &app, 2)), ["ccc"]);
        assert_eq!(ids(stale(dir.path(), &app, 0)), ["eee", "ddd", "ccc", "aaa"]);
    }
}

//! What steps handed over, by the keys of the jobs: kept for the steps that need it, and for the next time the job is known.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use coracle_build::ParcelFacts;
use coracle_model::Handover;
use serde::{Deserialize, Serialize};

/// The most bytes that a shelf keeps, compressed. Those used last stay, and whatever a run has used stays until its end.
const MOST_BYTES: u64 = 1 << 30;

/// A directory of parcels. Each is a file `KEY.tar.gz`, and its facts `KEY.json`; the facts come last, and without them it is not
/// there. Clones are one run's: what it has found or kept is not forgotten by it.
#[derive(Debug, Clone)]
pub struct Shelf {
    directory: PathBuf,
    /// The keys that the run has used.
    used: Arc<Mutex<BTreeSet<String>>>,
}

/// A parcel that is there.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// A gzipped tar archive of plain files and folders.
    pub path: PathBuf,
    /// What is in it.
    pub facts: Facts,
}

/// What is in a parcel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// A digest over all of it.
    pub digest: String,
    /// Files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

impl Parcel {
    /// What people are told of it.
    pub fn handover(&self) -> Handover {
        Handover { files: self.facts.files, bytes: self.facts.bytes }
    }
}

impl Shelf {
    /// In this directory, which need not be there.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, used: Arc::default() }
    }

    /// The parcel of a key. Blocking.
    pub fn find(&self, key: &str) -> Option<Parcel> {
        let facts = serde_json::from_slice(&fs::read(self.facts_of(key)).ok()?).ok()?;
        let path = self.parcel_of(key);
        self.used().insert(key.to_owned());
        // What was used last stays longest.
        fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok()?;
        Some(Parcel { path, facts })
    }

    /// Keeps a parcel that was packed elsewhere on the same disk. Blocking.
    pub(crate) fn keep(&self, key: &str, packed: &Path, facts: &ParcelFacts) -> io::Result<Parcel> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let facts = Facts { digest: facts.digest.clone(), files: facts.files, bytes: facts.bytes };
        let (path, said) = (self.parcel_of(key), self.facts_of(key));
        self.used().insert(key.to_owned());
        match fs::remove_file(&said) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(packed, &path)?;
        let new = said.with_extension("new");
        fs::write(&new, serde_json::to_vec(&facts)?)?;
        fs::rename(new, said)?;
        self.shrink();
        Ok(Parcel { path, facts })
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was not used for longest, as long as there is too much; nothing that this run has used, since its steps are still
    /// to be handed it.
    fn shrink(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut all: Vec<(SystemTime, u64, String)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let key = entry.file_name().to_str()?.strip_suffix(".tar.gz")?.to_owned();
                let facts = entry.metadata().ok()?;
                Some((facts.modified().ok()?, facts.len(), key))
            })
            .collect();
        all.sort();
        let mut total: u64 = all.iter().map(|(_, bytes, _)| *bytes).sum();
        let used = self.used();
        for (_, bytes, key) in all.iter().filter(|(.., key)| !used.contains(key)) {
            if total <= MOST_BYTES {
                break;
            }
            total -= bytes;
            for path in [self.facts_of(key), self.parcel_of(key)] {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "what a step handed over stays longer than it should");
                }
            }
        }
    }

    fn parcel_of(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.tar.gz"))
    }

    fn facts_of(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Keeps a parcel of this size that takes no room on the disk.
    fn keep(shelf: &Shelf, directory: &Path, key: &str, bytes: u64) -> Parcel {
        let packed = directory.join("packed");
        fs::File::create(&packed).unwrap().set_len(bytes).unwrap();
        shelf.keep(key, &packed, &ParcelFacts::default()).unwrap()
    }

    #[test]
    fn what_a_run_has_used_stays_until_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = || Shelf::new(directory.path().join("handed"));
        let quarter = MOST_BYTES / 4;
        let old = keep(&shelf(), directory.path(), "old", quarter);
        let found = keep(&shelf(), directory.path(), "found", quarter);
        let run = shelf();
        run.find("found").unwrap();
        let names = ["a", "b", "c", "d", "e"];
        let kept: Vec<Parcel> = names.map(|name| keep(&run.clone(), directory.path(), name, quarter)).into();
        assert!(kept.iter().chain([&found]).all(|parcel| parcel.path.exists()) && !old.path.exists());
        let next = keep(&shelf(), directory.path(), "next", quarter);
        let left = kept.iter().filter(|parcel| parcel.path.exists()).count();
        assert!(next.path.exists() && left <= 3, "{left} of the run before are left");
    }
}

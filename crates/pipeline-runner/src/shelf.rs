//! What steps handed over, by the keys of the jobs: kept for the steps that need it, and for the next time the job is known.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_build::ParcelFacts;
use coracle_model::Handover;
use serde::{Deserialize, Serialize};

/// The most bytes that a shelf keeps, compressed. Those used last stay.
const MOST_BYTES: u64 = 1 << 30;

/// A directory of parcels. Each is a file `KEY.tar.gz`, and its facts `KEY.json`; the facts come last, and without them it is not
/// there.
#[derive(Debug, Clone)]
pub struct Shelf(PathBuf);

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
        Self(directory)
    }

    /// The parcel of a key. Blocking.
    pub fn find(&self, key: &str) -> Option<Parcel> {
        let facts = serde_json::from_slice(&fs::read(self.facts_of(key)).ok()?).ok()?;
        let path = self.parcel_of(key);
        // What was used last stays longest.
        fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok()?;
        Some(Parcel { path, facts })
    }

    /// Keeps a parcel that was packed elsewhere on the same disk. Blocking.
    pub(crate) fn keep(&self, key: &str, packed: &Path, facts: &ParcelFacts) -> io::Result<Parcel> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let facts = Facts { digest: facts.digest.clone(), files: facts.files, bytes: facts.bytes };
        let (path, said) = (self.parcel_of(key), self.facts_of(key));
        match fs::remove_file(&said) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(packed, &path)?;
        let new = said.with_extension("new");
        fs::write(&new, serde_json::to_vec(&facts)?)?;
        fs::rename(new, said)?;
        self.shrink(key);
        Ok(Parcel { path, facts })
    }

    /// Forgets what was not used for longest, as long as there is too much; never the one of this key.
    fn shrink(&self, but: &str) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
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
        for (_, bytes, key) in all.iter().filter(|(.., key)| key != but) {
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
        self.0.join(format!("{key}.tar.gz"))
    }

    fn facts_of(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.json"))
    }
}

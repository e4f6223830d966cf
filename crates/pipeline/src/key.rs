//! When a step need not run again: its definition and all it depends on are as they were when it last succeeded.

use std::collections::BTreeMap;
use std::fmt;

use coracle_model::{EnvName, Secret};

use crate::plan::Job;

/// A digest of what a file of the tree is and what stands in it.
pub type Digest = [u8; 32];

/// The files of a source tree by their paths, which have slashes between their segments.
pub type TreeFiles = BTreeMap<String, Digest>;

/// What a job depends on beside its own definition.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What it runs in: an image's id, or for the app's own what it was built by; the tree says the rest.
    pub image: &'a str,
    /// The ids of its services' images, in their order.
    pub services: &'a [String],
    /// The files of the source tree.
    pub tree: &'a TreeFiles,
    /// The variables it sees beside its own.
    pub env: &'a BTreeMap<EnvName, String>,
    /// The values of its secrets. Nothing of them can be read from the key.
    pub secrets: &'a [(EnvName, Secret)],
    /// What it is told of where the source came from, and could tell from: `CORACLE_BRANCH`.
    pub told: &'a BTreeMap<EnvName, String>,
    /// The digests of what it is handed by the jobs that it needs, in their order.
    pub handed: &'a [String],
}

/// Says what a job was run with: the same key means that nothing it depends on has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Bumped when a key means something else than before.
const VERSION: &str = "coracle pipeline step 2";

impl Job {
    /// The key of this job with these inputs. Of the tree, only the files count that `when.paths` covers, if it says any.
    pub fn key(&self, inputs: &Inputs<'_>) -> Key {
        let mut sum = Sum(blake3::Hasher::new());
        sum.text(VERSION);
        // A step is made of texts, numbers and lists: it can always be written.
        sum.text(&serde_json::to_string(&self.step).unwrap_or_default());
        sum.pairs(self.variant.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        sum.text(inputs.image);
        sum.count(inputs.services.len());
        inputs.services.iter().for_each(|id| sum.text(id));
        sum.pairs(inputs.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let secrets: BTreeMap<&EnvName, &Secret> = inputs.secrets.iter().map(|(name, value)| (name, value)).collect();
        sum.pairs(secrets.iter().map(|(name, value)| (name.as_str(), value.expose())));
        sum.pairs(inputs.told.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        sum.count(inputs.handed.len());
        inputs.handed.iter().for_each(|digest| sum.text(digest));
        let paths = &self.step.when.paths;
        for (path, digest) in inputs.tree {
            if paths.is_empty() || paths.iter().any(|pattern| pattern.covers(path)) {
                sum.text(path);
                sum.0.update(digest);
            }
        }
        Key(sum.0.finalize().to_hex().to_string())
    }

    /// Whether `when.paths` covers no file at all: then nothing but the definition could ever make it run again.
    pub fn depends_on_no_file(&self, tree: &TreeFiles) -> bool {
        let paths = &self.step.when.paths;
        !paths.is_empty() && !tree.keys().any(|path| paths.iter().any(|pattern| pattern.covers(path)))
    }
}

/// A sum over texts that cannot be mistaken for other texts that follow each other.
struct Sum(blake3::Hasher);

impl Sum {
    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn pairs<'a>(&mut self, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
        self.count(pairs.len());
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }
}

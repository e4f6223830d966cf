//! A slug: the directory that a release runs from, and what its programs need to know about it.

use std::path::PathBuf;

use coracle_engine::EngineError;
use coracle_model::{AppName, ArtifactId};
use serde::{Deserialize, Serialize};

use crate::files::{Home, read_json};

/// What `slug.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlugRecord {
    /// Directories that programs are looked for in before all others.
    pub(crate) path: Vec<PathBuf>,
    /// Environment that the way of building brings.
    pub(crate) env: Vec<(String, String)>,
    /// The name of its dependencies in the cache of the app.
    pub(crate) dependencies: Option<String>,
}

/// A slug's place: artifact ids of this engine read `shop/v3-0a1b2c3d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlugName {
    pub(crate) app: AppName,
    pub(crate) name: String,
}

impl SlugName {
    /// `None` if the id is not one of this engine's.
    pub(crate) fn parse(id: &ArtifactId) -> Option<Self> {
        let (app, name) = id.as_str().split_once('/')?;
        let clean = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        clean.then_some(Self { app: app.parse().ok()?, name: name.to_owned() })
    }

    pub(crate) fn id(&self) -> ArtifactId {
        ArtifactId::new(format!("{}/{}", self.app, self.name))
    }

    pub(crate) fn place(&self, home: &Home) -> PathBuf {
        home.slugs(&self.app).join(&self.name)
    }

    pub(crate) fn tree(&self, home: &Home) -> PathBuf {
        self.place(home).join("tree")
    }

    /// The record, if the slug and what it depends on are there.
    pub(crate) fn read(&self, home: &Home) -> Result<Option<SlugRecord>, EngineError> {
        let path = self.place(home).join("slug.json");
        let record: Option<SlugRecord> =
            read_json(&path).map_err(|error| EngineError::io(format!("read {}", path.display()), &error))?;
        Ok(record.filter(|record| {
            let complete = |name: &String| home.dependencies(&self.app).join(name).join(COMPLETE).exists();
            record.dependencies.as_ref().is_none_or(complete)
        }))
    }
}

/// The file that says that dependencies were installed to the end.
pub(crate) const COMPLETE: &str = ".complete";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_that_lead_elsewhere_are_not_ours() {
        for bad in ["", "shop", "shop/", "shop/..", "../x", "shop/a/b", "sha256:00", "Shop/v1"] {
            assert_eq!(SlugName::parse(&ArtifactId::new(bad)), None, "{bad}");
        }
        let good = ArtifactId::new("shop/v3-0a1b");
        assert_eq!(SlugName::parse(&good).unwrap().id(), good);
    }
}

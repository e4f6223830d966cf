//! What a server's policy says of a release.

use coracle_model::policy as model;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that was found, and what it leads to. The value of a secret is in none of its texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The rule: `root`, `latest`, `health`, `secret-in-image`, `secret-in-tree`, `ignore`, `development-server`, `unpinned`.
    #[schema(example = "latest")]
    pub rule: String,
    /// What it leads to.
    pub level: PolicyLevel,
    /// What was found, in a sentence.
    pub what: String,
    /// The file of the source tree that it stands in.
    pub file: Option<String>,
    /// The line of it, from 1.
    pub line: Option<u32>,
    /// Why that matters.
    pub why: String,
    /// How to mend it.
    pub mend: String,
    /// How to have it silent, or who could.
    pub silence: String,
    /// The reason that somebody gave for the level.
    pub reason: Option<String>,
}

/// What becomes of a release that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyLevel {
    /// Nothing.
    Off,
    /// It is said.
    Warn,
    /// The deployment ends before anything is started.
    Block,
}

impl From<model::Level> for PolicyLevel {
    fn from(level: model::Level) -> Self {
        match level {
            model::Level::Off => Self::Off,
            model::Level::Warn => Self::Warn,
            model::Level::Block => Self::Block,
        }
    }
}

impl From<model::Finding> for Finding {
    fn from(it: model::Finding) -> Self {
        let model::Finding { rule, level, what, place, why, mend, silence, reason } = it;
        let (file, line) = place.map_or((None, None), |place| (Some(place.file), place.line));
        Self { rule: rule.to_string(), level: level.into(), what, file, line, why, mend, silence, reason }
    }
}

impl std::fmt::Display for Finding {
    /// `latest: the base image python has no tag (Dockerfile:1)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            (Some(file), None) => write!(f, " ({file})"),
            _ => Ok(()),
        }
    }
}

//! What may be said against a release before it serves: the rules, how much each weighs, and what was found. The checks
//! themselves are the crate `policy`'s.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A rule that a release may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A program in a container runs as root.
    Root,
    /// An image is named by a tag that moves.
    Latest,
    /// Nothing says whether what serves is well.
    Health,
    /// A secret can be read in the image.
    SecretInImage,
    /// A file with secrets is copied into what is built.
    SecretInTree,
    /// A Dockerfile copies everything, and nothing is left out.
    Ignore,
    /// A server for development is what would serve.
    DevelopmentServer,
    /// What is installed may be something else tomorrow.
    Unpinned,
}

impl Rule {
    /// Every rule, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::SecretInImage,
        Self::SecretInTree,
        Self::DevelopmentServer,
        Self::Root,
        Self::Latest,
        Self::Health,
        Self::Unpinned,
        Self::Ignore,
    ];

    /// The word for it in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Latest => "latest",
            Self::Health => "health",
            Self::SecretInImage => "secret-in-image",
            Self::SecretInTree => "secret-in-tree",
            Self::Ignore => "ignore",
            Self::DevelopmentServer => "development-server",
            Self::Unpinned => "unpinned",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Rule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = Self::ALL.into_iter().find(|rule| rule.as_str() == text);
        rule.ok_or_else(|| format!("there is no rule {text:?}"))
    }
}

/// What becomes of a release that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing, and nobody hears of it.
    Off,
    /// It is said.
    Warn,
    /// The deployment ends before anything is started.
    Block,
}

impl Level {
    /// The word for it in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that was found, and what it leads to. No text of it has a secret's value or a control character in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What it leads to.
    pub level: Level,
    /// What was found, in a sentence.
    pub what: String,
    /// Where: a path of the tree and a line of it, from 1.
    pub place: Option<SourcePlace>,
    /// Why that matters.
    pub why: String,
    /// How to mend it.
    pub mend: String,
    /// How to have it silent, or who could.
    pub silence: String,
    /// The reason that somebody gave for the level.
    pub reason: Option<String>,
}

/// A place in a source tree. Written `app/Dockerfile:3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlace {
    /// The path, relative to the root.
    pub file: String,
    /// The line, from 1; `None`: the file as a whole.
    pub line: Option<u32>,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

impl fmt::Display for Finding {
    /// `latest: the base image python has no tag (Dockerfile:1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

/// What an image says about itself, and about how it was made. What it was made with may be secret, so nothing of it is
/// shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// The user that its programs run as; empty: root.
    pub user: String,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
    /// Its own environment.
    pub env: Vec<(String, String)>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Whether it has a HEALTHCHECK.
    pub has_healthcheck: bool,
    /// What made each of its layers, the oldest first.
    pub history: Vec<String>,
}

impl fmt::Debug for ImageFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageFacts")
            .field("user", &self.user)
            .field("has_healthcheck", &self.has_healthcheck)
            .field("layers", &self.history.len())
            .finish_non_exhaustive()
    }
}

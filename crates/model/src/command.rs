//! Commands as argument vectors. A command line from a Procfile or a manifest is split into words the way a shell would
//! split it, and `$NAME` is replaced when the instance starts; but no shell runs, so nothing else of a shell's language
//! is understood, and what would need one is refused when it is read.

use serde::{Deserialize, Serialize};

use crate::names::EnvName;

/// A command that has been split into words; variables are still to be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// Variables set for this command alone (`FOO=bar gunicorn …`), in order.
    pub assignments: Vec<(EnvName, Word)>,
    /// The program and its arguments; never empty.
    pub words: Vec<Word>,
}

/// One word: literal text and variables in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word(pub Vec<Piece>);

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// The value of a variable, or nothing if it is not set.
    Variable {
        /// Its name.
        name: EnvName,
        /// What to use if it is not set or empty: the `d` of `${NAME:-d}`.
        default: Option<String>,
    },
}

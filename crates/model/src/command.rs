//! Commands as argument vectors. A command line from a Procfile or a manifest is split into words the way a shell would
//! split it, and `$NAME` is replaced when the instance starts; but no shell runs, so nothing else of a shell's language
//! is understood, and what would need one is refused when it is read.

use std::fmt;
use std::str::FromStr;

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
        /// Whether it stands in double quotes: then its value stays one word. Unquoted, the value is split at blanks and
        /// vanishes when it is empty, as in a shell.
        quoted: bool,
    },
}

/// Why a text is not a command that can run without a shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(String);

impl FromStr for CommandLine {
    type Err = CommandError;
    fn from_str(_text: &str) -> Result<Self, CommandError> {
        unimplemented!()
    }
}

impl CommandLine {
    /// An argument vector taken as it is: nothing in it is expanded. Refuses an empty one and NUL bytes.
    pub fn literal(_argv: Vec<String>) -> Result<Self, CommandError> {
        unimplemented!()
    }

    /// Fills in the variables. Answers the command's own assignments and its argument vector, which is never empty.
    pub fn expand(&self, _lookup: &dyn Fn(&str) -> Option<String>) -> (Vec<(EnvName, String)>, Vec<String>) {
        unimplemented!()
    }
}

impl fmt::Display for CommandLine {
    /// A text that reads back as the same command.
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

//! Commands as argument vectors. A command line from a Procfile or a manifest is split into words the way a shell would
//! split it, and `$NAME` is replaced when the instance starts; but no shell runs, so nothing else of a shell's language
//! is understood, and what would need one is refused when it is read.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::EnvName;

/// Bytes of the longest command; Linux takes no longer argument either (`MAX_ARG_STRLEN`).
const LONGEST: usize = 128 * 1024;

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
pub enum CommandError {
    /// There is no program in it.
    #[error("the command names no program")]
    Empty,
    /// It contains a NUL byte, which no argument can.
    #[error("the command contains a NUL byte")]
    NulByte,
    /// It is too long to be one.
    #[error("the command is longer than {} KiB", LONGEST / 1024)]
    TooLong,
    /// It uses the shell's language beyond words and variables.
    #[error(
        "{what} at character {at} needs a shell, and commands run without one: put the line into a script, \
         or write it as [\"sh\", \"-c\", \"…\"] in coracle.toml"
    )]
    NeedsShell {
        /// The operator or word.
        what: String,
        /// Where, in characters from 1.
        at: usize,
    },
    /// It contains an unquoted file name pattern.
    #[error(
        "{what} at character {at} is a file name pattern, which needs a shell: quote the word if the character is meant as it is, \
         else put the line into a script, or write it as [\"sh\", \"-c\", \"…\"] in coracle.toml"
    )]
    Pattern {
        /// The character.
        what: char,
        /// Where, in characters from 1.
        at: usize,
    },
    /// A quote, a brace or a backslash waits for its end.
    #[error("the {quote} at character {at} has no end")]
    Unclosed {
        /// What was opened.
        quote: char,
        /// Where, in characters from 1.
        at: usize,
    },
    /// A `$` with something behind it that is not supported.
    #[error("${text} at character {at} is not supported: use $NAME, ${{NAME}} or ${{NAME:-default}}, or '$' for the sign itself")]
    Variable {
        /// What follows the `$`.
        text: String,
        /// Where, in characters from 1.
        at: usize,
    },
    /// The default of `${NAME:-default}` holds a quote or another variable.
    #[error(
        "the default of the variable at character {at} must be plain text; put double quotes around the whole: \"${{NAME:-a b}}\""
    )]
    Default {
        /// Where, in characters from 1.
        at: usize,
    },
}

impl FromStr for CommandLine {
    type Err = CommandError;
    fn from_str(text: &str) -> Result<Self, CommandError> {
        reader::read(text)
    }
}

impl CommandLine {
    /// An argument vector taken as it is: nothing in it is expanded. Refuses an empty one, an empty program and NUL bytes.
    pub fn literal(argv: Vec<String>) -> Result<Self, CommandError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(CommandError::Empty);
        }
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(CommandError::NulByte);
        }
        if argv.iter().map(String::len).sum::<usize>() > LONGEST {
            return Err(CommandError::TooLong);
        }
        let words = argv.into_iter().map(|argument| Word(vec![Piece::Text(argument)])).collect();
        Ok(Self { assignments: Vec::new(), words })
    }

    /// Fills in the variables. Answers the command's own assignments and its argument vector, which is never empty.
    ///
    /// As in a shell, an assignment sees the ones before it, while the words see only what `lookup` knows.
    pub fn expand(&self, lookup: &dyn Fn(&str) -> Option<String>) -> (Vec<(EnvName, String)>, Vec<String>) {
        let mut assigned: BTreeMap<EnvName, String> = BTreeMap::new();
        for (name, value) in &self.assignments {
            let seen = |wanted: &str| {
                wanted.parse().ok().and_then(|name: EnvName| assigned.get(&name).cloned()).or_else(|| lookup(wanted))
            };
            let value = value.0.iter().map(|piece| piece.value(&seen)).collect();
            assigned.insert(name.clone(), value);
        }
        let mut argv: Vec<String> = self.words.iter().flat_map(|word| word.fields(lookup)).collect();
        if argv.is_empty() {
            // A program whose name comes from an unset variable: let the start fail with an empty name.
            argv.push(String::new());
        }
        (assigned.into_iter().collect(), argv)
    }
}

impl Piece {
    fn value(&self, lookup: &dyn Fn(&str) -> Option<String>) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Variable { name, default, .. } => {
                let value = lookup(name.as_str()).filter(|value| !value.is_empty());
                value.or_else(|| default.clone()).unwrap_or_default()
            }
        }
    }
}

impl Word {
    /// The words it becomes: one, or several or none if it has unquoted variables (POSIX.1-2017, XCU section 2.6.5 with the
    /// default separators).
    fn fields(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let mut done = Vec::new();
        let mut current: Option<String> = None;
        for piece in &self.0 {
            let value = piece.value(lookup);
            let Piece::Variable { quoted: false, .. } = piece else {
                current.get_or_insert_default().push_str(&value);
                continue;
            };
            let separates = |c: char| matches!(c, ' ' | '\t' | '\n');
            for (n, field) in value.split(separates).enumerate() {
                if n > 0 {
                    done.extend(current.take());
                }
                if !field.is_empty() {
                    current.get_or_insert_default().push_str(field);
                }
            }
        }
        done.extend(current);
        done
    }
}

//! What is wrong with a project, where, and what to do about it.

use std::fmt;

use crate::position::{Mark, Position, Sources};
use crate::trail::Trail;

/// The sort of a [`ComposeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file could not be found or read.
    File,
    /// A file is not YAML, or not YAML that a compose file may be.
    Yaml,
    /// A key that the Compose Specification does not have at this place.
    UnknownKey,
    /// A value of the wrong type or form.
    Value,
    /// A variable that must be set is not, or a template is malformed.
    Interpolation,
    /// `extends` cannot be followed.
    Extends,
    /// `include` cannot be followed.
    Include,
    /// A name that is declared nowhere.
    Reference,
    /// Services that wait for each other, files that include each other.
    Cycle,
    /// Two settings that exclude each other.
    Conflict,
    /// The project's name is empty or has other characters than a name may have.
    Name,
    /// The input is larger than the loader accepts.
    Limit,
}

/// Why a project could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ComposeError {
    /// The sort of mistake.
    pub kind: ErrorKind,
    /// What happened, without place and key.
    pub message: String,
    /// The key, dotted from the top of the file (`services.web.ports[0]`); empty if the mistake belongs to no key.
    pub path: String,
    /// Where it was written, if it was written anywhere.
    pub position: Option<Position>,
    /// What to do next, for instance the nearest key that exists.
    pub hint: Option<String>,
    /// Further mistakes of the same sort in the same file, so that they need not be found one run at a time.
    pub others: Vec<ComposeError>,
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// An error before its mark has been given a file name.
#[derive(Debug)]
pub(crate) struct Fault(Box<FaultParts>);

#[derive(Debug)]
struct FaultParts {
    kind: ErrorKind,
    message: String,
    path: String,
    mark: Mark,
    hint: Option<String>,
    others: Vec<Fault>,
}

/// So many further mistakes are told; who has more reads these first.
const MAX_OTHERS: usize = 100;

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(FaultParts {
            kind,
            message: message.into(),
            path: String::new(),
            mark: Mark::default(),
            hint: None,
            others: Vec::new(),
        }))
    }

    /// Says which key it is about.
    pub(crate) fn on(mut self, trail: &Trail<'_>) -> Self {
        self.0.path = trail.to_string();
        self
    }

    /// Says which key it is about, where no trail is at hand.
    pub(crate) fn on_path(mut self, path: impl Into<String>) -> Self {
        self.0.path = path.into();
        self
    }

    pub(crate) fn at(mut self, mark: Mark) -> Self {
        if mark.line != 0 {
            self.0.mark = mark;
        }
        self
    }

    /// Says where, unless that has been said.
    pub(crate) fn at_if_nowhere(self, mark: Mark) -> Self {
        if self.0.mark.line == 0 { self.at(mark) } else { self }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Goes through everything that is looked at and tells of all that is wrong in it.
    pub(crate) fn gather(results: impl Iterator<Item = Result<(), Self>>) -> Result<(), Self> {
        let mut found: Option<Self> = None;
        for fault in results.filter_map(Result::err) {
            match &mut found {
                None => found = Some(fault),
                Some(first) => first.join(fault),
            }
            if found.as_ref().is_some_and(|first| first.0.others.len() >= MAX_OTHERS) {
                break;
            }
        }
        found.map_or(Ok(()), Err)
    }

    fn join(&mut self, mut other: Self) {
        let more = std::mem::take(&mut other.0.others);
        self.0.others.push(other);
        self.0.others.extend(more);
        self.0.others.truncate(MAX_OTHERS);
    }

    pub(crate) fn tell(self, sources: &Sources) -> ComposeError {
        let parts = *self.0;
        ComposeError {
            position: sources.position(parts.mark),
            kind: parts.kind,
            message: parts.message,
            path: parts.path,
            hint: parts.hint,
            others: parts.others.into_iter().map(|other| other.tell(sources)).collect(),
        }
    }
}

//! Where a value was written: file, line, column.
//!
//! Inside the loader a place is a [`Mark`], twelve bytes that are copied with every value; only when something is
//! told to a person does it become a [`Position`] with the file's name.

use std::fmt;

/// A place in one of the files that a project was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file as it was opened: an absolute path, or `-` for standard input.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A place, compactly. Line 0 means that the value was written nowhere: a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// The files of one load, in the order in which they were opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    files: Vec<String>,
}

impl Sources {
    /// Remembers a file and gives its number; a file that is read twice keeps its number.
    pub(crate) fn add(&mut self, file: &str) -> u32 {
        let known = self.files.iter().position(|name| name == file).unwrap_or_else(|| {
            self.files.push(file.to_owned());
            self.files.len() - 1
        });
        u32::try_from(known).unwrap_or(u32::MAX)
    }

    /// What a person is told, if the mark is of a value that somebody wrote.
    pub(crate) fn position(&self, mark: Mark) -> Option<Position> {
        if mark.line == 0 {
            return None;
        }
        let file = self.files.get(usize::try_from(mark.file).ok()?)?;
        Some(Position { file: file.clone(), line: mark.line, column: mark.column })
    }

    /// Every file that was read, main files, overrides, included and extended ones.
    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }
}

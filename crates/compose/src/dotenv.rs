//! Environment files: the grammar of `.env` and `env_file` as the reference loader reads it.
//!
//! A file is a list of `KEY=value`, `KEY: value` and bare `KEY` statements, each with `export ` before it if one likes. Values are
//! bare (to the end of the line, or to ` #`), in single quotes (literal) or in double quotes (with escapes); bare and
//! double-quoted values have their variables filled in, from the caller's lookup first and from the lines above second. Quoted
//! values run over lines. The module reads text only: opening files and merging them is the caller's.

use std::collections::HashMap;

use thiserror::Error;

use crate::interpolation::{self, InterpolationError};

/// How much the values of a file may come to, in bytes, once their variables are filled in. Ten lines that each name the line
/// before ten times would come to more than any machine has.
const MAX_VALUES: usize = 16 * 1024 * 1024;

/// Why a text is no environment file. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DotenvError {
    /// A character that no key may have.
    #[error("line {line}: unexpected character {character:?} in variable name {statement:?}")]
    Character {
        /// The line.
        line: usize,
        /// The character.
        character: char,
        /// The line's text up to that character: what follows may be a secret.
        statement: String,
    },
    /// A key of two words.
    #[error("line {line}: key cannot contain a space: {key:?}")]
    Space {
        /// The line.
        line: usize,
        /// The words.
        key: String,
    },
    /// A quote that nothing closes.
    #[error("line {line}: unterminated quoted value of {key:?}; close it with {quote}")]
    Unterminated {
        /// The line the value begins on.
        line: usize,
        /// The key whose value it is. The value itself may be a secret and is not shown.
        key: String,
        /// The quote that is missing.
        quote: char,
    },
    /// Values that grow by naming each other.
    #[error("line {line}: {key}: with their variables filled in, the values come to more than {} MiB", MAX_VALUES / 1024 / 1024)]
    TooLong {
        /// The line of the value that was one too many.
        line: usize,
        /// Its key.
        key: String,
    },
    /// A `${` that begins no well-formed reference. The value may be a secret and is not shown.
    #[error("line {line}: {key}: invalid interpolation format; you may need to escape any $ with another $")]
    Malformed {
        /// The line the value begins on.
        line: usize,
        /// The key whose value it is.
        key: String,
    },
    /// A value whose variables cannot be filled in.
    #[error("line {line}: {key}: {source}")]
    Interpolation {
        /// The line the value begins on.
        line: usize,
        /// The key whose value it is.
        key: String,
        /// What is wrong with it.
        source: InterpolationError,
    },
}

impl DotenvError {
    /// The line at fault, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Self::Character { line, .. }
            | Self::Space { line, .. }
            | Self::Unterminated { line, .. }
            | Self::TooLong { line, .. }
            | Self::Malformed { line, .. }
            | Self::Interpolation { line, .. } => *line,
        }
    }
}

/// Reads an environment file. Keys come in the order of their first appearance, with the last value they were given.
///
/// A bare `KEY` takes the value `lookup` has for it; where it has none and no other line gives one, the value is `None`, and the
/// reference loader behaves as if the key were not there. A last line `KEY` without a newline is, as there, the value of the
/// empty key.
///
/// # Errors
/// The first statement that is none, with its line.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, Option<String>)>, DotenvError> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader { rest: text, line: 1, entries: Vec::new(), index: HashMap::new(), length: 0, lookup };
    while reader.skip_to_statement() {
        reader.statement()?;
    }
    Ok(reader.entries)
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
    entries: Vec<(String, Option<String>)>,
    index: HashMap<String, usize>,
    /// What the values come to so far.
    length: usize,
    lookup: &'t dyn Fn(&str) -> Option<String>,
}

impl<'t> Reader<'t> {
    /// Goes past blank lines and comments; false at the end of the text.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.take(self.rest.len() - self.rest.trim_start().len());
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    /// Goes `length` bytes on and counts the lines in them.
    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    fn statement(&mut self) -> Result<(), DotenvError> {
        self.skip_export();
        let (key, inherited) = self.key()?;
        self.take(self.rest.len() - self.rest.trim_start_matches(is_blank).len());
        if inherited {
            let value = (self.lookup)(&key);
            self.set(key, value);
            return Ok(());
        }
        let line = self.line;
        let value = match self.rest.chars().next() {
            Some('\'') => self.quoted('\'', &key)?,
            Some('"') => {
                let value = self.quoted('"', &key)?;
                self.expand(&unescape(&value), line, &key)?
            }
            _ => {
                let bare = self.bare();
                self.expand(bare, line, &key)?
            }
        };
        self.set(key, Some(value));
        Ok(())
    }

    /// `export` counts only with a space after it: `export.A` and `exported` are keys.
    fn skip_export(&mut self) {
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with([' ', '\t', '\n', '\r', '\u{C}'])
        {
            self.take(self.rest.len() - after.trim_start_matches(is_blank).len());
        }
    }

    /// Reads a key and what ends it; true where that is the end of the line, so that the value comes from elsewhere.
    fn key(&mut self) -> Result<(String, bool), DotenvError> {
        for (at, character) in self.rest.char_indices() {
            match character {
                '=' | ':' | '\n' => {
                    let line = self.line;
                    let inherited = character == '\n';
                    let key = self.take(at + 1)[..at].trim_end().to_owned();
                    if key.contains(' ') {
                        return Err(DotenvError::Space { line, key });
                    }
                    return Ok((key, inherited));
                }
                '_' | '.' | '-' | '[' | ']' => {}
                _ if is_blank(character) || character.is_alphabetic() || character.is_numeric() => {}
                _ => {
                    let statement = self.rest[..at + character.len_utf8()].to_owned();
                    return Err(DotenvError::Character { line: self.line, character, statement });
                }
            }
        }
        // The text ended within the key. The reference loader then takes the whole of it for a value.
        Ok((String::new(), false))
    }

    fn bare(&mut self) -> &'t str {
        let end = self.rest.find('\n').map_or(self.rest.len(), |newline| newline + 1);
        let value = self.take(end);
        value.trim_end_matches('\n').split(" #").next().unwrap_or_default().trim_end()
    }

    /// Reads to the closing quote. A backslash before a quote of the same kind goes; before anything else it stays.
    fn quoted(&mut self, quote: char, key: &str) -> Result<String, DotenvError> {
        let mut value = String::new();
        let mut escaped = false;
        for (at, character) in self.rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
                if character != quote {
                    value.push('\\');
                }
                value.push(character);
            } else if character == '\\' {
                escaped = true;
            } else if character == quote {
                self.take(at + 1);
                return Ok(value);
            } else {
                value.push(character);
            }
        }
        Err(DotenvError::Unterminated { line: self.line, key: key.to_owned(), quote })
    }

    fn expand(&mut self, value: &str, line: usize, key: &str) -> Result<String, DotenvError> {
        let lookup =
            |name: &str| (self.lookup)(name).or_else(|| self.index.get(name).and_then(|index| self.entries[*index].1.clone()));
        let text = interpolation::interpolate(value, &lookup)
            .map_err(|source| match source {
                InterpolationError::Invalid { .. } => DotenvError::Malformed { line, key: key.to_owned() },
                source => DotenvError::Interpolation { line, key: key.to_owned(), source },
            })?
            .text;
        self.length += text.len();
        if self.length > MAX_VALUES {
            return Err(DotenvError::TooLong { line, key: key.to_owned() });
        }
        Ok(text)
    }

    fn set(&mut self, key: String, value: Option<String>) {
        match self.index.get(&key) {
            Some(_) if value.is_none() => {}
            Some(index) => self.entries[*index].1 = value,
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }
}

/// Blanks within a line.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{B}' | '\u{C}' | '\r' | ' ' | '\u{85}' | '\u{A0}')
}

/// Replaces the escapes of double-quoted values: `\a \b \f \n \r \t \v \\ \"`, `\0` with three octal digits, and `\$`, which
/// becomes `$$` so that no variable is looked up. Any other backslash stays.
fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let mut length = 1;
        match after.chars().next() {
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{C}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{B}'),
            Some('\\') => out.push('\\'),
            Some('"') => out.push('"'),
            Some('$') => out.push_str("$$"),
            Some('0') => {
                let digits: String = after[1..].chars().take(3).take_while(char::is_ascii_digit).collect();
                length += digits.len();
                match u8::from_str_radix(&digits, 8) {
                    Ok(code) if digits.len() == 3 => out.push(char::from(code)),
                    // The reference loader drops the zero even where the number that follows is none.
                    _ => {
                        out.push('\\');
                        out.push_str(&digits);
                    }
                }
            }
            _ => {
                out.push('\\');
                length = 0;
            }
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("outer".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn entries(text: &str) -> Vec<(String, Option<String>)> {
        parse(text, &lookup).unwrap()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
        assert_eq!(entries(text), expected, "{text:?}");
    }

    #[track_caller]
    fn refused(text: &str, line: usize, words: &str) {
        let error = parse(text, &lookup).unwrap_err();
        assert_eq!(error.line(), line, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn keys_and_separators() {
        check(
            "A=1\nB: 2\nC =3\nD= 4\nE:5:6\nF=7=8",
            &[("A", "1"), ("B", "2"), ("C", "3"), ("D", "4"), ("E", "5:6"), ("F", "7=8")],
        );
        check("A.b-c_d[0]=x\nÅngström=y\n1A=z", &[("A.b-c_d[0]", "x"), ("Ångström", "y"), ("1A", "z")]);
        check("=x", &[("", "x")]);
        check("A=\nB=", &[("A", ""), ("B", "")]);
    }

    #[test]
    fn export_needs_a_space() {
        check(
            "export A=1\n\texport\tB=2\nexported=3\nexport.C=4\nexport_D =5\nexport=6",
            &[("A", "1"), ("B", "2"), ("exported", "3"), ("export.C", "4"), ("export_D", "5"), ("export", "6")],
        );
    }

    #[test]
    fn bare_values() {
        check(
            "A=one two  # said\nB=one#two\nC= x \t\nD=it's \"so\"\nE=\\n",
            &[("A", "one two"), ("B", "one#two"), ("C", "x"), ("D", "it's \"so\""), ("E", "\\n")],
        );
    }

    #[test]
    fn comments_and_blank_lines() {
        check("\n  # one\n\t\n#two\nA=1\n\n#three", &[("A", "1")]);
        check("", &[]);
        check("# only", &[]);
    }

    #[test]
    fn byte_order_mark_and_windows_lines() {
        assert_eq!(
            entries("\u{FEFF}A=1\r\nB='2'\r\nC\r\n"),
            [("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), Some("2".to_owned())), ("C".to_owned(), None),]
        );
    }

    #[test]
    fn single_quotes_are_literal() {
        check("A='$HOST \\n ${HOST} # no'\nB='it\\'s'", &[("A", "$HOST \\n ${HOST} # no"), ("B", "it's")]);
    }

    #[test]
    fn double_quotes_escape_and_expand() {
        check(
            "A=\"$HOST\\t${HOST}\"\nB=\"say \\\"hi\\\"\"\nC=\"a\\qb\\ c\"\nD=\"\\$HOST \\${HOST}\"",
            &[("A", "outer\touter"), ("B", "say \"hi\""), ("C", "a\\qb\\ c"), ("D", "$HOST ${HOST}")],
        );
        check("A=\"\\a\\b\\f\\n\\r\\t\\v\\\\x\"", &[("A", "\u{7}\u{8}\u{C}\n\r\t\u{B}\\x")]);
        check("A=\"\\0101 \\0377 \\012 \\0 \\0999 \\c \\u0041 \\x41\"", &[("A", "A ÿ \\12 \\ \\999 \\c \\u0041 \\x41")]);
    }

    #[test]
    fn quoted_values_run_over_lines() {
        check("A=\"one\n two\n\"\nB='x\ny' # said\nC=3", &[("A", "one\n two\n"), ("B", "x\ny"), ("C", "3")]);
        check("A=\"1\"B=2", &[("A", "1"), ("B", "2")]);
    }

    #[test]
    fn the_lookup_comes_before_the_lines_above() {
        check(
            "HOST=inner\nA=$HOST\nLOCAL=1\nB=${LOCAL}${LATER}\nLATER=2",
            &[("HOST", "inner"), ("A", "outer"), ("LOCAL", "1"), ("B", "1"), ("LATER", "2")],
        );
        check("A=${NONE:-d}\nB=${EMPTY:-d}\nC=${EMPTY-d}", &[("A", "d"), ("B", "d"), ("C", "")]);
    }

    #[test]
    fn the_last_value_counts_in_the_first_place() {
        check("A=1\nB=2\nA=3", &[("A", "3"), ("B", "2")]);
        check("A=1\nA\n", &[("A", "1")]);
    }

    #[test]
    fn keys_without_values_inherit() {
        assert_eq!(
            entries("HOST\nNONE\nA=1\n"),
            [("HOST".to_owned(), Some("outer".to_owned())), ("NONE".to_owned(), None), ("A".to_owned(), Some("1".to_owned())),]
        );
        check("A=1\nHOST", &[("A", "1"), ("", "HOST")]);
    }

    #[test]
    fn errors_have_lines() {
        refused("A=1\nlol$wut\n", 2, "'$'");
        refused("# c\nA=\"\n\n\"\nTWO WORDS\n", 5, "TWO WORDS");
        refused("A=1\nB='x", 2, "\"B\"");
        refused("A=\"x\\\"", 1, "unterminated");
        refused("A=1\n\nB=${NONE:?why}\nC=2", 3, "why");
        refused("A=\"a\nb ${\"", 1, "A");
    }

    #[test]
    fn values_that_grow_by_naming_each_other_come_to_an_end() {
        let lines: String = (1..40).map(|at| format!("A{at}={}\n", format!("$A{}", at - 1).repeat(10))).collect();
        refused(&format!("A0=0123456789\n{lines}"), 8, "MiB");
        let many: String = (0..50_000).map(|at| format!("B{at}=$A\n")).collect();
        refused(&format!("A={}\n{many}", "x".repeat(10_000)), 1678, "MiB");
    }

    #[test]
    fn secrets_stay_out_of_errors() {
        for text in ["PASSWORD='hunter2", "PASSWORD=hunter2${", "PASS$WORD=hunter2"] {
            assert!(!parse(text, &lookup).unwrap_err().to_string().contains("hunter2"), "{text}");
        }
    }
}

//! Reading single values: from what stands in the file to checked types, with a mistake noted where that fails.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistakes, cut};
use crate::command::CommandLine;
use crate::quantity::Cpus;

/// A key with its value.
pub(super) struct Entry<'a, 'i> {
    pub(super) key: &'a str,
    /// The key with the tables around it: `http.hosts`.
    pub(super) path: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: &'a Spanned<DeValue<'i>>,
}

/// What may stand in a table.
pub(super) struct Keys {
    pub(super) known: &'static [&'static str],
    /// Designed, but not yet honoured by this version.
    pub(super) planned: &'static [&'static str],
}

/// Reads values and notes mistakes.
pub(super) struct Values<'t> {
    pub(super) mistakes: Mistakes<'t>,
}

impl Values<'_> {
    /// Notes that an entry's value is wrong.
    pub(super) fn wrong(&mut self, entry: &Entry<'_, '_>, message: impl Into<String>, hint: Option<&str>) {
        self.mistakes.add(entry.value.span(), &entry.path, message, hint.map(str::to_owned));
    }

    /// The entries of a table whose keys are fixed, without those that were noted as unknown or unsupported.
    pub(super) fn entries<'a, 'i>(&mut self, path: &str, table: &'a DeTable<'i>, keys: &Keys) -> Vec<Entry<'a, 'i>> {
        let mut entries = self.any_entries(path, table);
        entries.retain(|entry| {
            if entry.key.starts_with("x-") {
                return false;
            }
            if keys.known.contains(&entry.key) {
                return true;
            }
            let (message, hint) = if keys.planned.contains(&entry.key) {
                let hint = "remove it, or write x- before its name to keep it as a note";
                ("is not supported by this version of Coracle".to_owned(), Some(hint.to_owned()))
            } else {
                ("unknown key".to_owned(), nearest(entry.key, keys))
            };
            self.mistakes.add(entry.key_span.clone(), &entry.path, message, hint);
            false
        });
        entries
    }

    /// The entries of a table whose keys are names that the author chose, in the order of the file.
    pub(super) fn any_entries<'a, 'i>(&mut self, path: &str, table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let name: &'a str = key.get_ref();
                let path = if path.is_empty() { cut(name) } else { format!("{path}.{}", cut(name)) };
                Entry { key: name, path, key_span: key.span(), value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        entries
    }

    fn wrong_type(&mut self, entry: &Entry<'_, '_>, expected: &str, hint: Option<String>) {
        let found = type_of(entry.value.get_ref());
        self.mistakes.add(entry.value.span(), &entry.path, format!("expected {expected}, found {found}"), hint);
    }

    pub(super) fn table<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Option<&'a DeTable<'i>> {
        let table = entry.value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(entry, "a table", Some(format!("write [{}] with its keys below", entry.path)));
        }
        table
    }

    /// A text without NUL bytes.
    pub(super) fn text<'a>(&mut self, entry: &Entry<'a, '_>) -> Option<&'a str> {
        match entry.value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.wrong(entry, "contains a NUL byte", None);
                None
            }
            DeValue::String(text) => Some(text),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                let plain = plain_text(entry.value.get_ref());
                self.wrong_type(entry, "a string", Some(format!("put it in quotes: \"{}\"", cut(&plain))));
                None
            }
            _ => {
                self.wrong_type(entry, "a string", None);
                None
            }
        }
    }

    /// A text that is a `T`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, entry: &Entry<'_, '_>) -> Option<T> {
        let text = self.text(entry)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(entry, error.to_string(), None);
                None
            }
        }
    }

    /// A quantity with its unit, such as the example. A bare number is no such thing, and no unit is guessed for it.
    pub(super) fn quantity<T: FromStr<Err: Display>>(&mut self, entry: &Entry<'_, '_>, example: &str) -> Option<T> {
        if matches!(entry.value.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
            self.wrong_type(entry, "a string with a unit", Some(format!("as in \"{example}\"")));
            return None;
        }
        self.parsed(entry)
    }

    pub(super) fn boolean(&mut self, entry: &Entry<'_, '_>) -> Option<bool> {
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(entry, "true or false", None);
        }
        value
    }

    pub(super) fn integer(&mut self, entry: &Entry<'_, '_>, range: RangeInclusive<u32>) -> Option<u32> {
        let DeValue::Integer(digits) = entry.value.get_ref() else {
            self.wrong_type(entry, "an integer", None);
            return None;
        };
        let value = u32::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.wrong(entry, format!("must be a number from {} to {}", range.start(), range.end()), None);
        }
        value
    }

    /// A number of cores: `0.5`, `2` or the same in quotes.
    pub(super) fn cpus(&mut self, entry: &Entry<'_, '_>) -> Option<Cpus> {
        let text = match entry.value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) => plain_text(entry.value.get_ref()),
            _ => self.text(entry)?.to_owned(),
        };
        match text.parse() {
            Ok(cpus) => Some(cpus),
            Err(error) => {
                self.wrong(entry, format!("{error}"), None);
                None
            }
        }
    }

    /// An array of texts that are `T`s, all different.
    pub(super) fn list<T: FromStr<Err: Display> + PartialEq>(&mut self, entry: &Entry<'_, '_>) -> Option<Vec<T>> {
        let Some(array) = entry.value.get_ref().as_array() else {
            let hint = entry.value.get_ref().as_str().map(|text| format!("put it in brackets: [\"{}\"]", cut(text)));
            self.wrong_type(entry, "an array of strings", hint);
            return None;
        };
        let mut all = Vec::new();
        for value in array.iter() {
            let item = Entry { key: entry.key, path: entry.path.clone(), key_span: entry.key_span.clone(), value };
            if let Some(parsed) = self.parsed::<T>(&item) {
                // Lists in a manifest are short; a long one of different items would make this slow, so it ends here.
                if all.len() == 1000 {
                    self.wrong(entry, "holds more than 1000 items", None);
                    return None;
                }
                if all.contains(&parsed) {
                    self.wrong(&item, "is listed twice", None);
                }
                all.push(parsed);
            }
        }
        Some(all)
    }

    /// A command line, or an argument vector that is taken as it is.
    pub(super) fn command(&mut self, entry: &Entry<'_, '_>) -> Option<CommandLine> {
        let command = match entry.value.get_ref() {
            DeValue::String(text) => text.parse(),
            DeValue::Array(array) => {
                let argv: Option<Vec<_>> = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
                match argv {
                    Some(argv) => CommandLine::literal(argv),
                    None => {
                        self.wrong(entry, "every item of a command must be a string", Some("put numbers in quotes"));
                        return None;
                    }
                }
            }
            _ => {
                self.wrong_type(entry, "a command: a string or an array of strings", None);
                return None;
            }
        };
        match command {
            Ok(command) => Some(command),
            Err(error) => {
                self.wrong(entry, error.to_string(), None);
                None
            }
        }
    }
}

/// The nearest known key, or all of them if none is near.
fn nearest(key: &str, keys: &Keys) -> Option<String> {
    let all = || keys.known.iter().chain(keys.planned);
    // A key that is far longer than any known one is no misspelling, and comparing it would cost.
    let near = (key.len() <= 64)
        .then(|| {
            all()
                .map(|known| (strsim::damerau_levenshtein(key, known), *known))
                .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
                .min()
        })
        .flatten();
    Some(match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("known keys here: {}", keys.known.join(", ")),
    })
}

/// A number or a truth value as it stands in the file.
fn plain_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        _ => String::new(),
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

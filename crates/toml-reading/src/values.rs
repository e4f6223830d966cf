//! Reading single values: from what stands in the file to checked ones, with a mistake noted where that fails.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistake::{Collector, Mistakes, cut};
use crate::quantity;

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry<'a, 'i> {
    /// The key alone.
    pub key: &'a str,
    /// The key with the tables around it: `tls.redirect`.
    pub path: String,
    /// Where the key stands, in bytes.
    pub key_span: Range<usize>,
    /// Its value, which knows where it stands.
    pub value: &'a Spanned<DeValue<'i>>,
}

impl<'a, 'i> Entry<'a, 'i> {
    /// One item of this array.
    pub fn item(&self, at: usize, value: &'a Spanned<DeValue<'i>>) -> Self {
        Self { key: self.key, path: format!("{}[{at}]", self.path), key_span: self.key_span.clone(), value }
    }

    /// Whether there is a table behind the key.
    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// The grammar alone: a document, or what is no TOML in it. `file` is what such a file is usually called.
pub fn parse<'t>(file: &'static str, text: &'t str) -> Result<DeTable<'t>, Mistakes> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut mistakes = Collector::new(file, text);
    for error in errors {
        mistakes.add(error.span().unwrap_or(0..0), "", cut(error.message()), None);
    }
    mistakes.finish()?;
    Ok(document.into_inner())
}

/// The entries of a table in the order of the file. `path` is the table's own.
pub fn entries<'a, 'i>(path: &str, table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let name: &'a str = key.get_ref();
            let path = if path.is_empty() { quoted(name) } else { format!("{path}.{}", quoted(name)) };
            Entry { key: name, path, key_span: key.span(), value }
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

/// Reads values and notes mistakes.
#[derive(Debug)]
pub struct Values<'t> {
    /// What has been noted.
    pub mistakes: Collector<'t>,
}

impl<'t> Values<'t> {
    /// For the text of a file that is usually called so.
    pub fn new(file: &'static str, text: &'t str) -> Self {
        Self { mistakes: Collector::new(file, text) }
    }

    /// Notes that an entry's value is wrong.
    pub fn wrong(&mut self, entry: &Entry<'_, '_>, message: impl Into<String>, hint: Option<&str>) {
        self.mistakes.add(entry.value.span(), &entry.path, message, hint.map(str::to_owned));
    }

    /// Notes that an entry should not be there, or something is missing at its place.
    pub fn wrong_key(&mut self, entry: &Entry<'_, '_>, message: impl Into<String>, hint: Option<&str>) {
        self.mistakes.add(entry.key_span.clone(), &entry.path, message, hint.map(str::to_owned));
    }

    /// Notes that an entry's value is of another kind than expected.
    pub fn wrong_type(&mut self, entry: &Entry<'_, '_>, expected: &str, hint: Option<String>) {
        let found = type_of(entry.value.get_ref());
        self.mistakes.add(entry.value.span(), &entry.path, format!("expected {expected}, found {found}"), hint);
    }

    /// Notes a value that names nothing there is.
    pub fn unknown<'n>(&mut self, entry: &Entry<'_, '_>, what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) {
        let hint = meant(name, known);
        self.mistakes.add(entry.value.span(), &entry.path, format!("there is no {what} {:?}", cut(name)), hint);
    }

    /// The table behind a key.
    pub fn table<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Option<&'a DeTable<'i>> {
        let table = entry.value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(entry, "a table", Some(format!("write [{}] with its keys below", entry.path)));
        }
        table
    }

    /// A text without NUL bytes.
    pub fn text<'a>(&mut self, entry: &Entry<'a, '_>) -> Option<&'a str> {
        match entry.value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.wrong(entry, "contains a NUL byte", None);
                None
            }
            DeValue::String(text) => Some(text),
            other => {
                let hint = plain_text(other).map(|plain| format!("put it in quotes: \"{}\"", cut(&plain)));
                self.wrong_type(entry, "a string", hint);
                None
            }
        }
    }

    /// A text that is a `T`.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, entry: &Entry<'_, '_>) -> Option<T> {
        let text = self.text(entry)?;
        self.checked(entry, text.parse())
    }

    /// What could be made of an entry; a mistake if nothing could.
    pub fn checked<T, E: Display>(&mut self, entry: &Entry<'_, '_>, outcome: Result<T, E>) -> Option<T> {
        outcome.map_err(|error| self.wrong(entry, error.to_string(), None)).ok()
    }

    /// A quantity with its unit, such as the example. A bare number is no such thing, and no unit is guessed for it.
    pub fn quantity<T: FromStr<Err: Display>>(&mut self, entry: &Entry<'_, '_>, example: &str) -> Option<T> {
        if matches!(entry.value.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
            self.wrong_type(entry, "a string with a unit", Some(format!("as in \"{example}\"")));
            return None;
        }
        self.parsed(entry)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, entry: &Entry<'_, '_>) -> Option<bool> {
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(entry, "true or false", None);
        }
        value
    }

    /// An integer within bounds.
    pub fn integer<T>(&mut self, entry: &Entry<'_, '_>, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let DeValue::Integer(digits) = entry.value.get_ref() else {
            self.wrong_type(entry, "an integer", None);
            return None;
        };
        let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok().and_then(|number| T::try_from(number).ok());
        let value = number.filter(|number| range.contains(number));
        if value.is_none() {
            self.wrong(entry, format!("must be a number from {} to {}", range.start(), range.end()), None);
        }
        value
    }

    /// An array of texts that are `T`s, all different.
    pub fn list<T: FromStr<Err: Display> + PartialEq>(&mut self, entry: &Entry<'_, '_>) -> Option<Vec<T>> {
        let Some(array) = entry.value.get_ref().as_array() else {
            let hint = entry.value.get_ref().as_str().map(|text| format!("put it in brackets: [\"{}\"]", cut(text)));
            self.wrong_type(entry, "an array of strings", hint);
            return None;
        };
        let mut all = Vec::new();
        for value in array.iter() {
            let item = Entry { key: entry.key, path: entry.path.clone(), key_span: entry.key_span.clone(), value };
            if let Some(parsed) = self.parsed::<T>(&item) {
                // Lists that people write are short; a long one of different items would make this slow, so it ends here.
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

    /// A length of time with its unit, in milliseconds. No unit is guessed.
    pub fn milliseconds(&mut self, entry: &Entry<'_, '_>) -> Option<u64> {
        let value = entry.value.get_ref().as_str().and_then(quantity::milliseconds);
        if value.is_none() {
            self.wrong(entry, "expected a length of time as \"250ms\", \"30s\", \"5m\" or \"1h30m\"", None);
        }
        value
    }

    /// A number of bytes, with a unit or without.
    pub fn bytes(&mut self, entry: &Entry<'_, '_>) -> Option<u64> {
        let value = match entry.value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(text) => quantity::bytes(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong(entry, "expected a size as \"64KB\" or \"10MB\"", None);
        }
        value
    }
}

/// A number or a truth value as it stands in the file.
fn plain_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) => Some(integer.to_string()),
        DeValue::Float(float) => Some(float.to_string()),
        DeValue::Boolean(boolean) => Some(boolean.to_string()),
        _ => None,
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

/// A key as it is written in TOML, short enough for a message.
pub fn quoted(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { cut(key) } else { format!("\"{}\"", cut(key)) }
}

/// The known name that was probably meant by one that there is not.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A name that is far longer than any known one is no misspelling, and comparing it would cost.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let near = known.into_iter().filter_map(|known| {
        let distance = strsim::damerau_levenshtein(&name, &known.to_ascii_lowercase());
        (distance <= 1 + known.len() / 4).then_some((distance, known))
    });
    near.min().map(|(_, known)| known)
}

/// A hint at what was probably meant by a name that there is not: the nearest one, or all of them if they are few.
pub fn meant<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(nearest) => Some(format!("did you mean {}?", quoted(nearest))),
        None if (1..=30).contains(&known.len()) => Some(format!("there are {}", known.join(", "))),
        None => None,
    }
}

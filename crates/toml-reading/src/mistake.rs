//! Mistakes and their places: what a person sees when a file is wrong.

use std::fmt;
use std::ops::Range;

/// Mistakes that are told at once; the rest would only scroll the first ones away.
const MOST: usize = 30;
/// Characters of a source line that are shown.
const WIDEST: usize = 100;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where; nothing if no line is at fault.
    pub place: Option<Place>,
    /// The key, with dots: `sites."shop.example".to`. Empty where the file itself is at fault.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The source line; not there if it has a secret in it.
    pub excerpt: Option<Excerpt>,
}

/// The part of a source line around a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, cut to a readable length.
    pub text: String,
    /// How many characters stand before the mistake.
    pub before: usize,
    /// How many characters it covers, at least one.
    pub width: usize,
}

impl Mistake {
    /// A mistake that is not at any line of the file.
    pub fn placeless(key: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { place: None, key: key.to_owned(), message: message.into(), hint, excerpt: None }
    }

    /// `file:line:column: reason`, with the line below, as one to four lines without a line end.
    pub fn to_text(&self, file: &str) -> String {
        let mut out = file.to_owned();
        if let Some(place) = self.place {
            out += &format!(":{}:{}", place.line, place.column);
        }
        out += ": ";
        if !self.key.is_empty() {
            out += &format!("{}: ", self.key);
        }
        out += &self.message;
        let number = self.place.map_or_else(|| " ".to_owned(), |place| place.line.to_string());
        let margin = " ".repeat(number.len());
        if let Some(excerpt) = &self.excerpt {
            let caret = format!("{}{}", " ".repeat(excerpt.before), "^".repeat(excerpt.width));
            out += &format!("\n {number} | {}\n {margin} | {caret}", excerpt.text);
        }
        if let Some(hint) = &self.hint {
            out += &format!("\n {margin} = {hint}");
        }
        out
    }
}

/// Every mistake found, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// What such a file is usually called, for those who know no better.
    pub file: &'static str,
    /// The mistakes.
    pub all: Vec<Mistake>,
}

impl Mistakes {
    /// All mistakes, as [`Mistake::to_text`] writes them.
    pub fn to_text(&self, file: &str) -> String {
        self.all.iter().map(|mistake| mistake.to_text(file)).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(self.file))
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes while a text is read.
#[derive(Debug)]
pub struct Collector<'t> {
    file: &'static str,
    text: &'t str,
    line_starts: Vec<usize>,
    found: Vec<(usize, Mistake)>,
    suppressed: usize,
}

impl<'t> Collector<'t> {
    /// For the text of a file that is usually called so.
    pub fn new(file: &'static str, text: &'t str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, line_starts: std::iter::once(0).chain(newlines).collect(), found: Vec::new(), suppressed: 0 }
    }

    /// Notes a mistake at these bytes of the text.
    pub fn add(&mut self, span: Range<usize>, key: &str, message: impl Into<String>, hint: Option<String>) {
        if self.found.len() == MOST {
            self.suppressed += 1;
            return;
        }
        let (line, start) = self.line_of(span.start);
        let line_start = self.line_starts[line];
        let line_end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let line_text = self.text.get(line_start..line_end).unwrap_or_default();
        let before = self.text.get(line_start..start).unwrap_or_default().chars().count();
        let width = self.text.get(start..span.end.clamp(start, line_end.max(start))).unwrap_or_default().chars().count();
        let mut message = message.into();
        if has_secret(&message) {
            "is not what it should be".clone_into(&mut message);
        }
        let mistake = Mistake {
            place: Some(Place { line: line + 1, column: before + 1 }),
            key: key.to_owned(),
            message,
            hint: hint.filter(|hint| !has_secret(hint)),
            excerpt: excerpt(line_text, before, width),
        };
        self.found.push((start, mistake));
    }

    /// Where a byte of the text stands.
    pub fn place(&self, at: usize) -> Place {
        let (line, at) = self.line_of(at);
        let before = self.text.get(self.line_starts[line]..at).unwrap_or_default();
        Place { line: line + 1, column: before.chars().count() + 1 }
    }

    /// The place of a byte of a text value, if the value stands in the file as it is; else the place of the whole value.
    pub fn within(&self, span: Range<usize>, value: &str, offset: usize) -> Range<usize> {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let quotes = raw.find(value).filter(|before| before + value.len() + before == raw.len());
        match quotes {
            Some(before) => span.start + before + offset..span.start + before + offset + 1,
            None => span,
        }
    }

    fn line_of(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        (self.line_starts.partition_point(|begin| *begin <= at).max(1) - 1, at)
    }

    /// Whether nothing has been noted.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Nothing, or everything that was noted, in the order of the file.
    pub fn finish(mut self) -> Result<(), Mistakes> {
        self.found.sort_by_key(|(at, _)| *at);
        let mut all: Vec<_> = self.found.into_iter().map(|(_, mistake)| mistake).collect();
        if self.suppressed > 0 {
            all.push(Mistake::placeless("", format!("{} more mistakes are not shown", self.suppressed), None));
        }
        if all.is_empty() { Ok(()) } else { Err(Mistakes { file: self.file, all }) }
    }
}

/// Whether there is a hash of a password in a text.
fn has_secret(text: &str) -> bool {
    ["$2a$", "$2b$", "$2y$", "$apr1$", "{SHA}"].iter().any(|mark| text.contains(mark))
}

/// Cuts a line to a window around the mistake.
fn excerpt(line: &str, before: usize, width: usize) -> Option<Excerpt> {
    if has_secret(line) {
        return None;
    }
    let first = if before + width.min(WIDEST / 2) > WIDEST { before - (WIDEST / 4).min(before) } else { 0 };
    let shown: Vec<char> = line.trim_end().chars().skip(first).take(WIDEST + 1).collect();
    let cut_after = shown.len() > WIDEST;
    let mut text: String = shown.iter().take(WIDEST).map(|c| if c.is_control() { ' ' } else { *c }).collect();
    let mut before = before - first;
    if first > 0 {
        text.insert(0, '…');
        before += 1;
    }
    let width = width.clamp(1, text.chars().count().saturating_sub(before).max(1));
    if cut_after {
        text.push('…');
    }
    (!text.trim().is_empty()).then_some(Excerpt { text, before, width })
}

/// A text of the file's author, short enough for a message.
pub fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

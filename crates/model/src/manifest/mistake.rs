//! Mistakes and their places: what a person sees when a manifest is wrong.

use std::fmt;
use std::ops::Range;

/// Mistakes that are told at once; the rest would only scroll the first ones away.
const MOST: usize = 30;
/// Characters of a source line that are shown.
const WIDEST: usize = 100;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The line, from 1; 0 if no line is at fault.
    pub line: usize,
    /// The column in characters, from 1; 0 if no line is at fault.
    pub column: usize,
    /// The key, with dots: `http.hosts`. Empty where the file itself is at fault.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The source line.
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

impl ManifestError {
    /// A mistake that is not at any line of the file.
    pub(super) fn placeless(key: &str, message: String, hint: Option<String>) -> Self {
        Self { line: 0, column: 0, key: key.to_owned(), message, hint, excerpt: None }
    }

    /// The mistake with its place in the file of this name, as one to five lines without a line end.
    pub fn render(&self, file: &str) -> String {
        let mut out = file.to_owned();
        if self.line > 0 {
            out += &format!(":{}:{}", self.line, self.column);
        }
        out += ": ";
        if !self.key.is_empty() {
            out += &format!("{}: ", self.key);
        }
        out += &self.message;
        let number = self.line.to_string();
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

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("coracle.toml"))
    }
}

/// Every mistake found, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl ManifestErrors {
    /// All mistakes, as [`ManifestError::render`] writes them.
    pub fn render(&self, file: &str) -> String {
        let all: Vec<_> = self.0.iter().map(|error| error.render(file)).collect();
        all.join("\n")
    }
}

impl From<ManifestError> for ManifestErrors {
    fn from(error: ManifestError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("coracle.toml"))
    }
}

impl std::error::Error for ManifestErrors {}

/// Collects mistakes while a text is read.
pub(super) struct Mistakes<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    found: Vec<(usize, ManifestError)>,
    suppressed: usize,
}

impl<'t> Mistakes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(newlines).collect(), found: Vec::new(), suppressed: 0 }
    }

    /// Notes a mistake at these bytes of the text.
    pub(super) fn add(&mut self, span: Range<usize>, key: &str, message: impl Into<String>, hint: Option<String>) {
        if self.found.len() == MOST {
            self.suppressed += 1;
            return;
        }
        let start = span.start.min(self.text.len());
        let line = self.line_starts.partition_point(|begin| *begin <= start).max(1) - 1;
        let line_start = self.line_starts[line];
        let line_end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let line_text = self.text.get(line_start..line_end).unwrap_or_default();
        let before = self.text.get(line_start..start).unwrap_or_default().chars().count();
        let width = self.text.get(start..span.end.clamp(start, line_end.max(start))).unwrap_or_default().chars().count();
        let error = ManifestError {
            line: line + 1,
            column: before + 1,
            key: key.to_owned(),
            message: message.into(),
            hint,
            excerpt: excerpt(line_text, before, width),
        };
        self.found.push((start, error));
    }

    /// Nothing, or everything that was noted, in the order of the file.
    pub(super) fn finish(mut self) -> Result<(), ManifestErrors> {
        self.found.sort_by_key(|(at, _)| *at);
        let mut errors: Vec<_> = self.found.into_iter().map(|(_, error)| error).collect();
        if self.suppressed > 0 {
            errors.push(ManifestError::placeless("", format!("{} more mistakes are not shown", self.suppressed), None));
        }
        if errors.is_empty() { Ok(()) } else { Err(ManifestErrors(errors)) }
    }
}

/// Cuts a line to a window around the mistake.
fn excerpt(line: &str, before: usize, width: usize) -> Option<Excerpt> {
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

/// A text of the manifest's author, short enough for a message.
pub(super) fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

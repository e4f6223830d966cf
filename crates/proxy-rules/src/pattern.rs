//! Regular expressions, in the syntax that rules have always had (RE2, as Go's `regexp` takes it).
//!
//! The crate `regex` takes almost the same. What differs is rewritten here: `{` that repeats nothing is itself; `\d`, `\w`,
//! `\s` and `\b` are about ASCII; `\Q…\E` quotes; `\<` and `\>` are the characters; in a class `[`, `&&`, `--` and `~~`
//! mean nothing. What only `regex` has (the flags `x`, `u` and `R`, sets of classes) is refused or does not arise.

mod literal;

use regex::bytes::{Regex, RegexBuilder};

/// A compiled pattern may take this many bytes, and as many again while it is matched.
const MAX_SIZE: usize = 1 << 20;
const MAX_NESTING: u32 = 64;

/// A pattern, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    source: String,
    compiled: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// Compiles a pattern, or says what is wrong with it.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let ours = Translation::of(source)?;
        let compiled = RegexBuilder::new(&ours)
            .size_limit(MAX_SIZE)
            .dfa_size_limit(MAX_SIZE)
            .nest_limit(MAX_NESTING)
            .build()
            .map_err(|error| reason(&error))?;
        Ok(Self { source: source.to_owned(), compiled })
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches anywhere in `text`.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// Lower-case text that everything it matches begins with; empty if it cannot be told.
    pub(crate) fn literal_start(&self) -> String {
        literal::start(&self.source)
    }

    /// Lower-case text that everything it matches ends with, if that is lower case itself and one line; empty if it cannot be told.
    pub(crate) fn literal_end(&self) -> String {
        literal::end(&self.source)
    }
}

/// The last line of a syntax error says what is wrong; those before it draw where.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled it takes more than {limit} bytes"),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    }
}

/// Writes `text` so that it stands for itself in a pattern.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

struct Translation<'a> {
    rest: &'a str,
    out: String,
}

impl<'a> Translation<'a> {
    fn of(source: &'a str) -> Result<String, String> {
        let mut translation = Self { rest: source, out: String::with_capacity(source.len() + 8) };
        while let Some(next) = translation.rest.chars().next() {
            match next {
                '\\' => translation.escape()?,
                '[' => translation.class()?,
                '{' => translation.brace(),
                '(' => translation.group()?,
                other => translation.copy(other.len_utf8()),
            }
        }
        Ok(translation.out)
    }

    fn copy(&mut self, length: usize) {
        let (copied, rest) = self.rest.split_at(length);
        self.out.push_str(copied);
        self.rest = rest;
    }

    /// `{n}`, `{n,}` and `{n,m}` repeat; any other brace is one.
    fn brace(&mut self) {
        match repetition(self.rest) {
            Some(length) => self.copy(length),
            None => {
                self.out.push_str("\\{");
                self.rest = &self.rest[1..];
            }
        }
    }

    /// Only the flags that both have.
    fn group(&mut self) -> Result<(), String> {
        if let Some(flags) = self.rest.strip_prefix("(?") {
            let flags = flags.split([':', ')', '<', 'P']).next().unwrap_or_default();
            if let Some(unknown) = flags.chars().find(|flag| !"imsU-".contains(*flag)) {
                return Err(format!("unknown flag or group (?{unknown}"));
            }
        }
        self.copy(1);
        Ok(())
    }

    /// Outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("\\Q") {
            let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            self.out.push_str(&quoted(literal));
            self.rest = after;
            return Ok(());
        }
        let word_boundary = match self.rest.as_bytes().get(1) {
            Some(b'b') => Some(r"(?-u:\b)"),
            Some(b'B') => Some(r"(?-u:\B)"),
            _ => None,
        };
        match word_boundary {
            Some(boundary) => {
                self.out.push_str(boundary);
                self.rest = &self.rest[2..];
                Ok(())
            }
            None => self.common_escape(false),
        }
    }

    /// What is the same within a class and outside.
    fn common_escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(kind) = self.rest[1..].chars().next() else { return Err("it ends with a backslash".to_owned()) };
        let class = match kind {
            'd' => Some("0-9"),
            'w' => Some("0-9A-Za-z_"),
            's' => Some(r"\t\n\f\r "),
            'D' => Some("^0-9"),
            'W' => Some("^0-9A-Za-z_"),
            'S' => Some(r"^\t\n\f\r "),
            _ => None,
        };
        match class {
            Some(positive) if in_class && !positive.starts_with('^') => self.out.push_str(positive),
            Some(class) => {
                self.out.push('[');
                self.out.push_str(class);
                self.out.push(']');
            }
            None if matches!(kind, '<' | '>') => self.out.push(kind),
            None => {
                // Longer ones, as \x{41} and \p{Greek}, have braces that must not be taken for others.
                let braced = matches!(kind, 'x' | 'p' | 'P') && self.rest[2..].starts_with('{');
                let end = braced.then(|| self.rest.find('}')).flatten().map_or(1 + kind.len_utf8(), |brace| brace + 1);
                self.copy(end);
                return Ok(());
            }
        }
        self.rest = &self.rest[1 + kind.len_utf8()..];
        Ok(())
    }

    /// From `[` to its `]`.
    fn class(&mut self) -> Result<(), String> {
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut is_first = true;
        loop {
            let mut characters = self.rest.chars();
            let Some(next) = characters.next() else { return Err("a [ has no ]".to_owned()) };
            if next == ']' && !is_first {
                self.copy(1);
                return Ok(());
            }
            is_first = false;
            if self.rest.starts_with("[:") && self.rest.contains(":]") {
                self.copy(self.rest.find(":]").unwrap_or_default() + 2);
                continue;
            }
            self.class_atom()?;
            // A - here makes a range, unless it is the last.
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.copy(1);
                self.class_atom()?;
            }
        }
    }

    fn class_atom(&mut self) -> Result<(), String> {
        match self.rest.chars().next() {
            Some('\\') => self.common_escape(true),
            Some(special @ ('[' | ']' | '&' | '-' | '~' | '^')) => {
                self.out.push('\\');
                self.out.push(special);
                self.rest = &self.rest[1..];
                Ok(())
            }
            Some(other) => {
                self.copy(other.len_utf8());
                Ok(())
            }
            None => Err("a [ has no ]".to_owned()),
        }
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the start of `text`.
fn repetition(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let (from, to) = match text[1..end].split_once(',') {
        Some((from, to)) => (from, to),
        None => (&text[1..end], ""),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!from.is_empty() && is_number(from) && is_number(to)).then_some(end + 1)
}

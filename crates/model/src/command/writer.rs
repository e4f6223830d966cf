//! Writing a command so that reading it gives the same command again.

use std::fmt;

use super::{CommandLine, Piece, Word};
use crate::command::reader::SHELL_WORDS;

impl fmt::Display for CommandLine {
    /// A text that reads back as the same command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.assignments {
            write!(f, "{name}={} ", pieces(value, false))?;
        }
        for (n, word) in self.words.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&if n == 0 { first_word(word) } else { argument(word) })?;
        }
        Ok(())
    }
}

/// The first word must not look like an assignment or a word of the shell's own.
fn first_word(word: &Word) -> String {
    let plain = argument(word);
    let name_end = plain.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(plain.len());
    let assigns = plain[name_end..].starts_with('=');
    if assigns || plain == "exec" || SHELL_WORDS.contains(&plain.as_str()) { pieces(word, true) } else { plain }
}

fn argument(word: &Word) -> String {
    if word.0.is_empty() { "''".to_owned() } else { pieces(word, false) }
}

fn pieces(word: &Word, quote_all: bool) -> String {
    word.0
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => quoted_text(text, quote_all),
            Piece::Variable { name, default, quoted } => {
                let default = default.as_deref().map(|value| format!(":-{}", escaped(value, *quoted))).unwrap_or_default();
                let marks = if *quoted { "\"" } else { "" };
                format!("{marks}${{{name}{default}}}{marks}")
            }
        })
        .collect()
}

fn quoted_text(text: &str, always: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,+%^".contains(c) || (!c.is_ascii() && !c.is_whitespace());
    if !always && !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else if text.contains('\'') {
        let mut out = String::from("\"");
        for c in text.chars() {
            if matches!(c, '$' | '`' | '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out + "\""
    } else {
        format!("'{text}'")
    }
}

fn escaped(default: &str, quoted: bool) -> String {
    let mut out = String::new();
    for c in default.chars() {
        if matches!(c, '}' | '\\' | '$' | '`' | '"') || (c == '\'' && !quoted) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

//! A command line as a list of words, split as the reference loader splits the short forms of `command` and `entrypoint`.
//!
//! It is a shell's word splitting and nothing more: quotes and backslashes count, variables, globs and substitutions stay text.
//! As there, an unquoted `;`, `&`, `|`, `<` or `>` ends the command and what follows it is dropped, and `\n` and `\t` outside
//! single quotes are a line feed and a tab.

use thiserror::Error;

/// A command line with a quote, bracket or backslash that nothing ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid command line string: {what}")]
pub struct WordsError {
    what: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
    Backtick,
    /// Within `$(` and `)`.
    Command,
}

/// Splits a command line.
///
/// # Errors
/// An unclosed quote, backtick or `$(`, a bracket without its `$`, or a backslash at the end.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = Quote::None;
    let mut escaped = false;
    for character in line.chars() {
        if escaped {
            escaped = false;
            word.get_or_insert_default().push(match character {
                't' => '\t',
                'n' => '\n',
                other => other,
            });
            continue;
        }
        match (character, quote) {
            ('\\', Quote::None | Quote::Double | Quote::Backtick | Quote::Command) => escaped = true,
            (' ' | '\t' | '\r' | '\n', Quote::None) => words.extend(word.take()),
            ('`', Quote::None) => {
                quote = Quote::Backtick;
                word.get_or_insert_default().push(character);
            }
            ('`', Quote::Backtick) | (')', Quote::Command) => {
                quote = Quote::None;
                word.get_or_insert_default().push(character);
            }
            ('(', Quote::None) if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                quote = Quote::Command;
                word.get_or_insert_default().push(character);
            }
            ('(' | ')', Quote::None) | ('(', Quote::Command) => {
                return Err(WordsError { what: "a bracket outside quotes; quote it" });
            }
            ('"', Quote::None) => open(&mut quote, &mut word, Quote::Double),
            ('\'', Quote::None) => open(&mut quote, &mut word, Quote::Single),
            ('"', Quote::Double) | ('\'', Quote::Single) => quote = Quote::None,
            (';' | '&' | '|' | '<' | '>', Quote::None) => {
                // `2>` redirects a descriptor: the number is no word.
                let descriptor = character == '>'
                    && word.as_ref().is_some_and(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
                if !descriptor {
                    words.extend(word);
                }
                return Ok(words);
            }
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    if escaped || quote != Quote::None {
        return Err(WordsError { what: "a quote, a bracket or a backslash is open at the end" });
    }
    words.extend(word);
    Ok(words)
}

/// An opened quote makes a word even if nothing is in it.
fn open(quote: &mut Quote, word: &mut Option<String>, opened: Quote) {
    *quote = opened;
    word.get_or_insert_default();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[track_caller]
    fn check(line: &str, words: &[&str]) {
        assert_eq!(split(line).unwrap(), words, "{line}");
    }

    #[test]
    fn words_and_quotes() {
        check("", &[]);
        check("  \t\n ", &[]);
        check("gunicorn -b 0.0.0.0:8000  app:app\n", &["gunicorn", "-b", "0.0.0.0:8000", "app:app"]);
        check("sh -c 'echo \"$HOME\" && ls'", &["sh", "-c", "echo \"$HOME\" && ls"]);
        check("a\"b c\"'d e'f", &["ab cd ef"]);
        check("a '' \"\" b", &["a", "", "", "b"]);
        check("it\\'s a\\ b \\\\", &["it's", "a b", "\\"]);
        check("'a\\nb' \"a\\nb\" a\\tb \"\\\"\"", &["a\\nb", "a\nb", "a\tb", "\""]);
    }

    #[test]
    fn substitutions_stay_text() {
        check("echo $(date -u '+%F') `id -u` $HOME ${X}", &["echo", "$(date -u '+%F')", "`id -u`", "$HOME", "${X}"]);
        check("echo \"(x)\" '(y)'", &["echo", "(x)", "(y)"]);
    }

    #[test]
    fn control_operators_end_the_command() {
        for line in ["echo a && b", "echo a; b", "echo a | b", "echo a > f", "echo a 2> f", "echo a < f"] {
            check(line, &["echo", "a"]);
        }
        check("echo a2> f", &["echo", "a2"]);
        check("echo a;'unclosed", &["echo", "a"]);
    }

    #[test]
    fn what_is_refused() {
        for line in ["'a", "\"a", "a\\", "`a", "$(a", "a (b)", "a ) b", "$(a (b))"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}

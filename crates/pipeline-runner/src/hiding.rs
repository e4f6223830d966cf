//! Leaving the values of secrets out of output.
//!
//! Whoever shows a line leaves out what a terminal would act on, and what it kept apart stands together then. So secrets are looked
//! for in what is left without it, and of control characters and escape sequences nothing but colours, tabs and ends of lines stays.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use coracle_model::{EnvName, Secret};

use crate::escapes::Reading;

/// Shorter secrets are not looked for: they would be found everywhere.
const SHORTEST_SECRET: usize = 6;
/// Engines drop what a line has beyond this, in the middle of a secret if need be.
const LONGEST_LINE: usize = 16 << 10;

/// Leaves values out of lines: those of secrets, and the lines of those that have several, as a program prints them. Clones hide
/// together.
#[derive(Debug, Clone, Default)]
pub struct Hiding(Arc<RwLock<Vec<Secret>>>);

impl Hiding {
    /// Hides these, from 6 characters on.
    pub fn new(secrets: &[(EnvName, Secret)]) -> Self {
        let hiding = Self::default();
        hiding.add(secrets);
        hiding
    }

    /// Hides these as well.
    pub fn add(&self, secrets: &[(EnvName, Secret)]) {
        let values = secrets.iter().map(|(_, value)| Reading::of(value.expose()).plain);
        let pieces = values.flat_map(|value| {
            let lines: Vec<String> = value.lines().map(str::to_owned).collect();
            std::iter::once(value).chain(lines)
        });
        let pieces = pieces.map(|piece| piece.trim().to_owned()).filter(|piece| piece.len() >= SHORTEST_SECRET);
        let mut hidden = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hidden.extend(pieces.map(Secret::new));
        hidden.sort_by(|one, other| one.expose().cmp(other.expose()));
        hidden.dedup();
    }

    /// The text without them, and without what a terminal would act on, colours aside. At the end of a line that was cut, the
    /// beginning of a secret is one.
    pub fn clean(&self, text: String) -> String {
        // One less: a carriage return at the end may have been taken off.
        let is_cut = text.len() + 1 >= LONGEST_LINE;
        let reading = Reading::of(&text);
        let hidden = self.places_in(&reading.plain, is_cut);
        if hidden.is_empty() && reading.plain.len() == text.len() { text } else { reading.without(&hidden) }
    }

    /// Where they stand, in order, those that overlap as one.
    fn places_in(&self, text: &str, is_cut: bool) -> Vec<Range<usize>> {
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for secret in secrets.iter().map(Secret::expose) {
            found.extend(places_of(secret, text));
            found.extend(beginning_of(secret, text).filter(|_| is_cut));
        }
        found.sort_by_key(|place| (place.start, place.end));
        let mut places: Vec<Range<usize>> = Vec::new();
        for place in found {
            match places.last_mut() {
                Some(last) if place.start < last.end => last.end = last.end.max(place.end),
                _ => places.push(place),
            }
        }
        places
    }
}

/// Where a secret stands, be it that it begins in itself.
fn places_of<'a>(secret: &'a str, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let first = secret.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text.get(from..)?.find(secret)?;
        from = at + first;
        Some(at..at + secret.len())
    })
}

/// Where a secret begins that does not end any more. A letter that was cut as well is one that nobody can read.
fn beginning_of(secret: &str, text: &str) -> Option<Range<usize>> {
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let mut lengths = secret.char_indices().rev().map(|(length, _)| length);
    let length = lengths.find(|length| *length > 0 && text.ends_with(&secret[..*length]))?;
    Some(text.len() - length..text.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret(name: &str, value: &str) -> (EnvName, Secret) {
        (name.parse().unwrap(), Secret::new(value))
    }

    #[test]
    fn secrets_are_hidden_by_lines_and_whole_where_they_overlap() {
        let secrets = [
            secret("A", "abcdef"),
            secret("B", "abcdef123"),
            secret("KEY", "begin key\n  c2VjcmV0\r\nend\n"),
            secret("PIN", "1234"),
            secret("AS", "aaaaaa"),
        ];
        let hiding = Hiding::new(&secrets[1..]);
        hiding.clone().add(&secrets[..1]);
        assert_eq!(
            hiding.clean("1234 abcdef123 abcdefg  c2VjcmV0. 123abcdef123abcdef".to_owned()),
            "1234 *** ***g  ***. 123******"
        );
        assert_eq!(hiding.clean("<begin key\n  c2VjcmV0\nend> <begin key>".to_owned()), "<***> <***>");
        assert_eq!(hiding.clean("aaaaaaaabcdefbcdef".to_owned()), "***bcdef");
    }

    #[test]
    fn what_a_terminal_acts_on_keeps_no_secret_apart() {
        let hiding = Hiding::new(&[secret("SEC", "supersecretvalue123"), secret("ODD", "with\x07bell\x1b[1m")]);
        for between in ["\0", "\x07", "\x08", "\r", "\x7f", "\u{9b}1m", "\x1b]0;x\x07", "\x1b(B", "\x1b[2J", "\x1b"] {
            let text = format!("<supersec{between}retvalue123>");
            assert_eq!(hiding.clean(text.clone()), "<***>", "{text:?}");
        }
        assert_eq!(hiding.clean("\x1b[1msuperse\x1b[0mcretvalue123 withbell".to_owned()), "\x1b[1m***\x1b[0m ***");
        assert_eq!(hiding.clean("\x1b[32mok\x1b[0m\ta\rb\0".to_owned()), "\x1b[32mok\x1b[0m\tab");
    }

    #[test]
    fn a_line_that_was_cut_does_not_end_with_the_beginning_of_a_secret() {
        let hiding = Hiding::new(&[secret("SEC", "supersecretvalue123"), secret("WORT", "schlüsselwort")]);
        let cut = |end: &str| {
            let text = "x".repeat(LONGEST_LINE - end.len()) + end;
            hiding.clean(text).trim_start_matches('x').to_owned()
        };
        assert_eq!(cut("supersecretvalu"), "***");
        assert_eq!(cut("super\x1b[1msecret\x1b["), "***\x1b[1m");
        assert_eq!(cut("schl\u{fffd}"), "***\u{fffd}");
        assert_eq!(cut("super!"), "super!");
        assert_eq!(hiding.clean("supersecretvalu".to_owned()), "supersecretvalu");
    }
}

//! Ranges of versions as `requires-python` (PEP 440), Poetry and `engines` (node-semver) write them, as far as it takes to
//! choose a line of releases: `3.12` or `20`, of which images and machines have the newest.

use crate::detect::{PlanError, Tree, unsuitable};

/// A range: alternatives, each of conditions that hold together.
pub(super) struct Range(Vec<Vec<Condition>>);

struct Condition {
    operator: Operator,
    /// As many numbers as are written down before a wildcard.
    numbers: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    /// `^`: up to the next first number.
    SameFirst,
    /// `~`: up to the next second number, or first if there is no second.
    SameSecond,
    /// `~=`: all but the last number stay.
    Compatible,
}

/// The longest first, since some begin like others.
const OPERATORS: [(&str, Operator); 11] = [
    ("===", Operator::Equal),
    ("==", Operator::Equal),
    ("~=", Operator::Compatible),
    ("!=", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::More),
    ("^", Operator::SameFirst),
    ("~", Operator::SameSecond),
    ("=", Operator::Equal),
];

impl Range {
    /// Reads a range; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.split("||").map(alternative).collect::<Option<_>>().map(Self)
    }

    /// Whether the newest release of a line is in it.
    pub(super) fn admits(&self, line: &[u32]) -> bool {
        self.0.iter().any(|conditions| conditions.iter().all(|condition| condition.admits(line)))
    }
}

fn alternative(text: &str) -> Option<Vec<Condition>> {
    // `18 - 20`: from the one up to the other.
    if let Some((low, high)) = text.split_once(" - ") {
        let bound = |operator, text| Some(Condition { operator, numbers: numbers(text)? });
        return Some(vec![bound(Operator::AtLeast, low)?, bound(Operator::AtMost, high)?]);
    }
    let mut rest = text.trim();
    let mut conditions = Vec::new();
    while !rest.is_empty() {
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)));
        let (operator, after) = found.unwrap_or((Operator::Equal, rest));
        let after = after.trim_start();
        let end = after.find([',', ' ', '\t', '<', '>', '=', '!', '~', '^']).unwrap_or(after.len());
        conditions.push(Condition { operator, numbers: numbers(&after[..end])? });
        rest = after[end..].trim_start_matches([',', ' ', '\t']);
    }
    Some(conditions)
}

/// The numbers before a wildcard: `20`, `v20.x`, `3.12.*`, `3.13.0rc1`; none for `*`.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let text = text.trim().trim_start_matches(['v', 'V']);
    if text.is_empty() {
        return None;
    }
    let mut numbers = Vec::new();
    for piece in text.split('.') {
        if matches!(piece, "*" | "x" | "X") {
            break;
        }
        let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
        let is_release = end == piece.len();
        // A pre-release or build counts as the release it leads to.
        if end == 0 || !(is_release || piece[end..].starts_with(['-', '+', 'a', 'b', 'r'])) {
            return None;
        }
        numbers.push(piece[..end].parse().ok()?);
        if !is_release {
            break;
        }
    }
    (numbers.len() <= 4).then_some(numbers)
}

impl Condition {
    fn admits(&self, line: &[u32]) -> bool {
        let common = line.len().min(self.numbers.len());
        let order = line[..common].cmp(&self.numbers[..common]);
        // Of a line that the condition names more exactly, it is the newest release that counts.
        let (same, more_exact) = (order.is_eq(), self.numbers.len() > line.len());
        let stays = |count: usize| line.iter().zip(&self.numbers).take(count).all(|(one, other)| one == other);
        match self.operator {
            Operator::Equal => same,
            Operator::NotEqual => !same || more_exact,
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_lt() || (same && !more_exact),
            Operator::More => order.is_gt() || (same && more_exact),
            Operator::AtLeast => order.is_ge(),
            Operator::SameFirst => order.is_ge() && stays(1),
            Operator::SameSecond => order.is_ge() && stays(2),
            Operator::Compatible => order.is_ge() && stays(self.numbers.len().saturating_sub(1)),
        }
    }
}

/// The first of these files that names a version, with the line that does.
pub(super) fn written<'a>(tree: &Tree<'_>, files: &[&'a str]) -> Result<Option<(&'a str, String)>, PlanError> {
    for path in files {
        let text = tree.source.read(path)?.unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        if let Some(line) = line {
            return Ok(Some((*path, line.to_owned())));
        }
    }
    Ok(None)
}

/// Refuses what a file (or a key of it) asks for, of which there are no images.
pub(super) fn refused((path, key): (&str, &str), what: &str, wanted: &str, supported: &[&str]) -> PlanError {
    let wanted: String = wanted.chars().take(40).collect();
    let message = format!("{path}{key} asks for {what} {wanted:?}, and what is supported is {}", in_words(supported));
    unsuitable(message, format!("name one of these in {path}, or bring a Dockerfile"))
}

/// A list as a person would write it: `18, 20 and 22`.
fn in_words(versions: &[&str]) -> String {
    match versions {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        versions => versions.join(""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_admit_lines_of_releases() {
        for (range, admitted, refused) in [
            (">=3.9", "3.9 3.12", "3.8"),
            (">=3.9,<3.12", "3.9 3.11", "3.12 3.8"),
            ("==3.10.*", "3.10", "3.11"),
            ("~=3.13.1", "3.13", "3.12 3.14"),
            ("~=3.10", "3.10 3.14", "3.9"),
            ("^3.12", "3.12 3.13", "3.11"),
            ("~3.12", "3.12", "3.11 3.13"),
            ("3.12.4", "3.12", "3.11"),
            (">3.11", "3.12", "3.11"),
            (">3.11.2", "3.11 3.12", "3.10"),
            ("<=3.11", "3.11 3.10", "3.12"),
            ("!=3.11.*,>=3.10", "3.10 3.12", "3.11"),
            ("!=3.11.3", "3.11", ""),
            ("<4", "3.14", ""),
            ("*", "3.10", ""),
            (">=18", "18 22", "16"),
            (">= 18 < 21", "18 20", "22"),
            ("20.x", "20", "22"),
            ("^20.1.0 || >=22", "20 22 24", "18"),
            ("18 - 20", "18 20", "22"),
            ("v20.11.1", "20", "18"),
            ("~20.11", "20", "22"),
        ] {
            let read = Range::parse(range).unwrap();
            let line = |text: &str| text.split('.').map(|number| number.parse().unwrap()).collect::<Vec<u32>>();
            for version in admitted.split_whitespace() {
                assert!(read.admits(&line(version)), "{range} {version}");
            }
            for version in refused.split_whitespace() {
                assert!(!read.admits(&line(version)), "{range} {version}");
            }
        }
        for none in ["; rm -rf /", "pypy3", ">=", "three", "3.x y"] {
            assert!(Range::parse(none).is_none(), "{none}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            if let Some(range) = Range::parse(&text) {
                range.admits(&[3, 11]);
            }
        }
    }
}

//! Patterns of names: branches, tags and paths. `*` and `?` stand for what is not a slash, `**` for any number of segments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Characters of the longest pattern.
const LONGEST: usize = 256;

/// A pattern of names that consist of segments with slashes between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
        let problem = if text.is_empty() || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
            "is not a pattern"
        } else if text.starts_with('/') {
            "must not begin with a slash"
        } else if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            "must not have empty segments, `.` or `..`"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(format!("{text:?} {problem}"))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Pattern {
    /// Whether it stands for exactly this name.
    pub fn is(&self, name: &str) -> bool {
        self.matched(name).last().copied().unwrap_or(false)
    }

    /// Whether it stands for this path or for a folder that the path is in.
    pub fn covers(&self, path: &str) -> bool {
        self.matched(path).contains(&true)
    }

    /// The path at and below which all is that it covers; `.` if that may be anywhere.
    pub fn root(&self) -> String {
        let fixed: Vec<&str> = self.0.split('/').take_while(|segment| !segment.contains(['*', '?'])).collect();
        if fixed.is_empty() { ".".to_owned() } else { fixed.join("/") }
    }

    /// For each number of leading segments, from one on, whether the pattern stands for them.
    fn matched(&self, name: &str) -> Vec<bool> {
        let names: Vec<&str> = name.split('/').collect();
        // `reach[n]`: what has been seen of the pattern can stand for the first n segments.
        let mut reach = vec![false; names.len() + 1];
        reach[0] = true;
        for piece in self.0.split('/') {
            let mut next = vec![false; names.len() + 1];
            if piece == "**" {
                let first = reach.iter().position(|reached| *reached).unwrap_or(next.len());
                next[first..].fill(true);
            } else {
                for (at, segment) in names.iter().enumerate() {
                    next[at + 1] = reach[at] && segment_is(piece, segment);
                }
            }
            reach = next;
        }
        reach.split_off(1)
    }
}

/// Whether one segment is what a piece of a pattern stands for.
fn segment_is(piece: &str, segment: &str) -> bool {
    let (piece, segment): (Vec<char>, Vec<char>) = (piece.chars().collect(), segment.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where to go on after the last `*` if what follows it does not fit: it takes one more character then.
    let mut star: Option<(usize, usize)> = None;
    while seen < segment.len() {
        match piece.get(at) {
            Some('*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(one) if *one == '?' || *one == segment[seen] => (at, seen) = (at + 1, seen + 1),
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (at, seen) = (after, taken + 1);
            }
        }
    }
    piece[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_matched_by_whole_segments() {
        for (text, name, matches) in [
            ("main", "main", true),
            ("main", "main2", false),
            ("main", "x/main", false),
            ("release/*", "release/1.2", true),
            ("release/*", "release/1/2", false),
            ("release/*", "release", false),
            ("**", "a/b/c", true),
            ("**/x.py", "x.py", true),
            ("**/x.py", "a/b/x.py", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("v?.*", "v1.22", true),
            ("v?.*", "v12", false),
            ("*a*b", "xaybab", true),
            ("*a*b", "xayba", false),
        ] {
            assert_eq!(pattern(text).is(name), matches, "{text} {name}");
        }
    }

    #[test]
    fn a_folder_covers_what_is_in_it() {
        for (text, path, covers) in [
            ("src", "src/a/b.py", true),
            ("src/", "src/a.py", true),
            ("src/**", "src/a/b.py", true),
            ("*.py", "app.py", true),
            ("*.py", "src/app.py", false),
            ("src", "srcs/a.py", false),
            ("src", "x/src/a.py", false),
            ("**/tests", "a/tests/b.py", true),
        ] {
            assert_eq!(pattern(text).covers(path), covers, "{text} {path}");
        }
    }

    #[test]
    fn a_pattern_cannot_be_made_slow() {
        let text = format!("{}b", "*a".repeat(100));
        assert!(!pattern(&text).is(&"a".repeat(20_000)));
        let text = ["**", "a"].repeat(50).join("/");
        assert!(!pattern(&text).is(&vec!["a"; 40].join("/")));
        for bad in ["", "/", "/src", "../x", "a//b", "a/./b", "a\nb", &"x".repeat(300)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }
}

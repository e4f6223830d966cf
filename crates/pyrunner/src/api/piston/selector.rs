//! Which versions a selector means, as node-semver reads ranges (its README, "Ranges"): `*`, `3`, `3.11.x`, `^3.9`, `~3.11.1`,
//! `>=3.8 <4`, `3.9 - 3.11`, and any of these with `||` between them. Interpreters that are served here are released ones, so
//! a selector that names a pre-release means none of them.

/// Major, minor, patch.
pub(super) type Version = (u64, u64, u64);

/// From the first version on up to the second one, which is not meant any more; `None`: without end.
type Span = (Version, Option<Version>);

/// `3.11.2`, and of what follows the third number nothing.
pub(super) fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|part| {
        let digits = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some((numbers.next()??, numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?))
}

/// Whether a selector means this version. One that cannot be read means nothing.
pub(super) fn selects(selector: &str, version: Version) -> bool {
    selector.split("||").any(|range| {
        spans(range).is_some_and(|spans| spans.iter().all(|(from, to)| *from <= version && to.is_none_or(|to| version < to)))
    })
}

/// The spans that all have to hold.
fn spans(range: &str) -> Option<Vec<Span>> {
    let words: Vec<&str> = range.split_whitespace().collect();
    if let [from, "-", to] = words[..] {
        return Some(vec![(Partial::read(from)?.span().0, Partial::read(to)?.span().1)]);
    }
    let mut spans = Vec::new();
    let mut operator = "";
    for word in words {
        let split = word.find(|character: char| !"<>=^~".contains(character)).unwrap_or(word.len());
        let (sign, rest) = word.split_at(split);
        if !sign.is_empty() {
            if !operator.is_empty() {
                return None;
            }
            operator = sign;
        }
        // An operator may stand apart from its version.
        if !rest.is_empty() {
            spans.push(Partial::read(rest)?.under(operator)?);
            operator = "";
        }
    }
    operator.is_empty().then_some(spans)
}

/// A version of which the last parts may be left open: `3`, `3.x`, `*`.
#[derive(Debug, Clone, Copy)]
struct Partial {
    major: Option<u64>,
    minor: Option<u64>,
    patch: Option<u64>,
}

impl Partial {
    fn read(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        let mut numbers = [None; 3];
        let mut open = false;
        for (number, part) in numbers.iter_mut().zip(&parts) {
            if matches!(*part, "x" | "X" | "*") {
                open = true;
            } else {
                let value = part.parse().ok()?;
                // What follows an open part is open as well.
                *number = (!open).then_some(value);
            }
        }
        let [major, minor, patch] = numbers;
        Some(Self { major, minor, patch })
    }

    fn first(self) -> Version {
        (self.major.unwrap_or(0), self.minor.unwrap_or(0), self.patch.unwrap_or(0))
    }

    /// All versions that begin so.
    fn span(self) -> Span {
        let next = |number: u64| number.saturating_add(1);
        let end = match (self.major, self.minor, self.patch) {
            (None, ..) => None,
            (Some(major), None, _) => Some((next(major), 0, 0)),
            (Some(major), Some(minor), None) => Some((major, next(minor), 0)),
            (Some(major), Some(minor), Some(patch)) => Some((major, minor, next(patch))),
        };
        (self.first(), end)
    }

    fn under(self, operator: &str) -> Option<Span> {
        let (from, to) = self.span();
        let nothing = ((0, 0, 0), Some((0, 0, 0)));
        Some(match operator {
            "" | "=" => (from, to),
            ">=" => (from, None),
            ">" => to.map_or(nothing, |to| (to, None)),
            "<" => ((0, 0, 0), Some(from)),
            "<=" => ((0, 0, 0), to),
            "~" | "~>" => (from, Self { patch: None, ..self }.span().1),
            "^" => (from, self.compatible_end()),
            _ => return None,
        })
    }

    /// Up to the next version whose leftmost number that is not zero is another one.
    fn compatible_end(self) -> Option<Version> {
        match (self.major, self.minor) {
            (Some(0), Some(0)) => self.span().1,
            (Some(0), Some(_)) => Self { patch: None, ..self }.span().1,
            _ => Self { minor: None, patch: None, ..self }.span().1,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn selectors_mean_what_node_semver_says() {
        for (selector, meant, not_meant) in [
            ("*", "3.11.2 0.0.1", ""),
            ("x", "3.11.2", ""),
            ("3", "3.0.0 3.11.2", "2.7.18 4.0.0"),
            ("v3.11", "3.11.0 3.11.9", "3.10.9 3.12.0"),
            ("3.11.2", "3.11.2", "3.11.1 3.11.3"),
            ("=3.11.2", "3.11.2", "3.11.3"),
            ("3.x", "3.11.2", "4.0.0"),
            ("3.*.7", "3.11.2", "2.9.7"),
            ("^3.9.4", "3.9.4 3.11.2", "3.9.3 4.0.0"),
            ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("^0.0", "0.0.9", "0.1.0"),
            ("^0", "0.9.9", "1.0.0"),
            ("~3.11.1", "3.11.2", "3.11.0 3.12.0"),
            ("~3", "3.11.2", "4.0.0"),
            ("~> 3.11", "3.11.2", "3.12.0"),
            (">=3.8 <3.12", "3.8.0 3.11.2", "3.7.9 3.12.0"),
            (">= 3.8", "3.8.0 4.0.0", "3.7.0"),
            (">3.11", "3.12.0", "3.11.9"),
            ("<=3.11", "3.11.9 2.0.0", "3.12.0"),
            ("<3", "2.9.9", "3.0.0"),
            (">*", "", "3.11.2"),
            ("3.9 - 3.11", "3.9.0 3.11.9", "3.8.9 3.12.0"),
            ("2 || ^3.10", "2.7.18 3.11.2", "3.9.0"),
            ("latest", "", "3.11.2"),
            ("3.11.2-rc1", "", "3.11.2"),
            ("3.11.2.1", "", "3.11.2"),
            ("^", "", "3.11.2"),
            (">< 3", "", "3.11.2"),
            ("99999999999999999999", "", "3.11.2"),
        ] {
            let holds = |text: &str| selects(selector, version(text).unwrap());
            assert!(meant.split_whitespace().all(holds), "{selector} means {meant}");
            assert!(!not_meant.split_whitespace().any(holds), "{selector} does not mean {not_meant}");
        }
    }

    #[test]
    fn versions_are_read_as_interpreters_tell_them() {
        assert_eq!(version("3.11.2"), Some((3, 11, 2)));
        assert_eq!(version("3.14.0rc1"), Some((3, 14, 0)));
        assert_eq!(version("3.13"), Some((3, 13, 0)));
        assert_eq!(version(""), None);
    }
}

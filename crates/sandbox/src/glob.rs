//! Patterns of file names: `*` and `?` and `[a-z]` within one name, `**` for any number of directories. Names are bytes.

/// Whether a path relative to the working directory matches.
pub(crate) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let pattern: Vec<&[u8]> = pattern.strip_prefix(b"./").unwrap_or(pattern).split(|byte| *byte == b'/').collect();
    let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    // Going through names with the set of places in the pattern where one could be keeps the effort at their product.
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    skip_directories(&pattern, &mut places);
    for name in path {
        let mut next = vec![false; pattern.len() + 1];
        for (at, piece) in pattern.iter().enumerate().filter(|(at, _)| places[*at]) {
            if *piece == b"**" {
                next[at] = true;
            } else if matches_name(piece, name) {
                next[at + 1] = true;
            }
        }
        skip_directories(&pattern, &mut next);
        places = next;
    }
    places[pattern.len()]
}

/// `**` may stand for no directory at all.
fn skip_directories(pattern: &[&[u8]], places: &mut [bool]) {
    for (at, piece) in pattern.iter().enumerate() {
        if places[at] && *piece == b"**" {
            places[at + 1] = true;
        }
    }
}

/// One name; the usual two-pointer walk, which goes back to the last `*` only.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, place));
                at += 1;
                continue;
            }
            Some(_) => {
                if let Some(next) = matches_byte(pattern, at, name[place]) {
                    at = next;
                    place += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((star, from)) = last_star else { return false };
        at = star + 1;
        place = from + 1;
        last_star = Some((star, from + 1));
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on if the piece of it at `at` matches this byte.
fn matches_byte(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => match matches_set(&pattern[at + 1..], byte) {
            Some((length, found)) => found.then_some(at + 1 + length),
            None => (byte == b'[').then_some(at + 1),
        },
        literal => (literal == byte).then_some(at + 1),
    }
}

/// The length of a set including its `]`, and whether it has the byte; `None` if it does not end.
fn matches_set(set: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let start = at;
    let mut found = false;
    loop {
        let low = *set.get(at)?;
        if low == b']' && at > start {
            return Some((at + 1, found != negated));
        }
        match (set.get(at + 1), set.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                found |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "d/e/a.txt", true),
            ("d/**", "d/e/f", true),
            ("d/**", "e/f", false),
            ("./a", "a", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*", "", true),
            ("", "a", false),
            ("**", "a/b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let pattern = "*a".repeat(200);
        assert!(!matches(pattern.as_bytes(), "a".repeat(150).as_bytes()));
        let pattern = "**/".repeat(100) + "x";
        assert!(!matches(pattern.as_bytes(), "a/".repeat(100).as_bytes()));
    }
}

//! Literal text that matches of a regular expression must begin or end with, told from how it is written. Understands the
//! plain cases, as `^[^.]+\.example\.com$` and `^/api/v[0-9]+`; of others it says nothing.

/// After `^`, up to the first thing that is not plain.
pub(super) fn start(source: &str) -> String {
    let Some(body) = source.strip_prefix('^').filter(|body| !has_choice(body)) else { return String::new() };
    let mut start = String::new();
    let mut rest = body.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' if rest.as_str().starts_with('.') => {
                rest.next();
                start.push('.');
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '/' => start.push(character),
            // What is repeated or may be left out is the character before.
            '*' | '?' | '{' => {
                start.pop();
                break;
            }
            _ => break,
        }
    }
    start
}

/// Before `$`, back to the first thing that is not plain.
pub(super) fn end(source: &str) -> String {
    let Some(body) = source.strip_suffix('$').filter(|body| !has_choice(body)) else { return String::new() };
    let bytes = body.as_bytes();
    let is_escaped = |at: usize| bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    let mut end = Vec::new();
    let mut at = bytes.len();
    // A `\$` is no end at all.
    if is_escaped(at) {
        return String::new();
    }
    while at > 0 {
        match (bytes[at - 1], is_escaped(at - 1)) {
            (b'.', true) => at -= 1,
            (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_', false) => {}
            _ => break,
        }
        at -= 1;
        end.push(if bytes[at] == b'\\' { b'.' } else { bytes[at] });
    }
    let end: String = end.iter().rev().map(|byte| char::from(*byte)).collect();
    // Before the first dot there may be what belongs to an escape, as the 41 of `\x41`.
    end.find('.').map(|dot| end[dot..].to_owned()).unwrap_or_default()
}

/// Whether there is a `|` outside of parentheses, or anything that makes this hard to say.
fn has_choice(body: &str) -> bool {
    let mut depth = 0_usize;
    let mut rest = body;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => match rest.chars().next() {
                Some('Q') | None => return true,
                Some(escaped) => rest = &rest[escaped.len_utf8()..],
            },
            '[' => match after_class(rest) {
                Some(after) => rest = after,
                None => return true,
            },
            '(' => depth += 1,
            ')' => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return true,
            },
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    depth != 0
}

/// What follows the class whose `[` has just been read; `None` if it is not a plain one.
fn after_class(text: &str) -> Option<&str> {
    let text = text.strip_prefix('^').unwrap_or(text);
    let end = text.find(']').filter(|end| *end > 0)?;
    (!text[..end].contains(['[', '\\'])).then(|| &text[end + 1..])
}

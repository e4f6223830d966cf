//! Percent-encodings in paths and queries, undone as far as rules look through them.

use std::borrow::Cow;

/// The path that rules see: percent-encodings are undone, except for characters that would mean something else then
/// (RFC 3986, 2.2: the reserved ones, and `%` itself); those keep theirs, in upper case. What is no percent-encoding stays as
/// it is. Allocates only if there is a `%`.
pub(crate) fn path(raw: &str) -> Cow<'_, [u8]> {
    let raw = raw.as_bytes();
    let Some(first) = raw.iter().position(|byte| *byte == b'%') else { return Cow::Borrowed(raw) };
    let mut path = Vec::with_capacity(raw.len());
    path.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some((byte, after)) = rest.split_first() {
        match encoded(rest) {
            Some(decoded) => {
                if is_reserved(decoded) {
                    path.extend_from_slice(&[b'%', rest[1].to_ascii_uppercase(), rest[2].to_ascii_uppercase()]);
                } else {
                    path.push(decoded);
                }
                rest = &rest[3..];
            }
            None => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    Cow::Owned(path)
}

/// The byte that a percent-encoding at the start of `text` stands for.
fn encoded(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

fn is_reserved(byte: u8) -> bool {
    b":/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// The keys and values of a query that are well-formed, as they were sent. A piece with a `;` or with a `%` that begins no
/// percent-encoding is none (as in Go's `net/url`).
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.as_bytes().split(|byte| *byte == b'&').filter(|piece| !piece.is_empty() && is_well_formed(piece)).map(|piece| {
        match piece.iter().position(|byte| *byte == b'=') {
            Some(at) => (&piece[..at], &piece[at + 1..]),
            None => (piece, &[][..]),
        }
    })
}

fn is_well_formed(piece: &[u8]) -> bool {
    let bad = |(at, byte): (usize, &u8)| *byte == b';' || (*byte == b'%' && encoded(&piece[at..]).is_none());
    !piece.iter().enumerate().any(bad)
}

/// The bytes of a key or value of a query: `+` is a space, percent-encodings are undone.
pub(crate) fn query_bytes(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let (byte, after) = match encoded(rest) {
            Some(byte) => (byte, &rest[3..]),
            None => (if *first == b'+' { b' ' } else { *first }, after),
        };
        rest = after;
        Some(byte)
    })
}

/// As [`query_bytes`], in one piece. Allocates only if something has to be undone.
pub(crate) fn query_text(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.iter().any(|byte| matches!(byte, b'%' | b'+')) { Cow::Owned(query_bytes(raw).collect()) } else { Cow::Borrowed(raw) }
}

//! Percent encoding (RFC 3986, section 2) of paths and of the URLs that clients are sent to.

use std::borrow::Cow;

/// Decodes once. What is no encoding stays as it is.
pub(crate) fn decode(path: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(path).into()
}

/// How many bytes of `path` its first `decoded` decoded bytes take.
pub(crate) fn encoded_len(path: &str, decoded: usize) -> usize {
    let bytes = path.as_bytes();
    let mut at = 0;
    for _ in 0..decoded {
        at += if escape(&bytes[at.min(bytes.len())..]).is_some() { 3 } else { 1 };
    }
    at.min(bytes.len())
}

/// Whether a `%` in it is not followed by two hexadecimal digits.
pub(crate) fn is_malformed(path: &str) -> bool {
    let bytes = path.as_bytes();
    (0..bytes.len()).any(|at| bytes[at] == b'%' && escape(&bytes[at..]).is_none())
}

/// The byte that is encoded at the start, if one is.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// Writes a path from a setting as it may stand in a request: what is encoded stays so, and whatever may not stand in a path
/// (`?` and `#` too) becomes encoded. It begins with a slash.
pub(crate) fn encode_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    if path.first() != Some(&b'/') {
        out.push('/');
    }
    push_encoded(&mut out, path, |byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]".contains(&byte));
    out
}

/// Writes a URL as it may stand in `Location`: spaces, control characters and everything that is not ASCII become encoded.
pub(crate) fn encode_url(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    push_encoded(&mut out, url.as_bytes(), |byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    out
}

/// Writes a text as a query's value may be written: a space is a `+`, and all but letters, digits and `-_.~` become encoded.
pub(crate) fn encode_query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3 / 2);
    for (at, part) in text.split(' ').enumerate() {
        if at > 0 {
            out.push('+');
        }
        // A percent sign is one here, whatever follows it.
        for (at, part) in part.split('%').enumerate() {
            if at > 0 {
                out.push_str("%25");
            }
            push_encoded(&mut out, part.as_bytes(), |byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        }
    }
    out
}

fn push_encoded(out: &mut String, bytes: &[u8], keep: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (at, byte) in bytes.iter().copied().enumerate() {
        if keep(byte) || byte == b'%' && escape(&bytes[at..]).is_some() {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Whether a path leads above its own root: some `..` in it has no segment before it to take back. Encoded dots and slashes
/// count as what they stand for, since a target may decode them.
pub(crate) fn climbs(path: &str) -> bool {
    if !path.contains("..") && !path.contains('%') {
        return false;
    }
    let mut depth = 0_i64;
    for segment in decode(path).split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// Whether this is a URL, or a reference to one (RFC 3986): of what a replacement can get wrong, the scheme, the host, the port
/// and the percent encodings.
pub(crate) fn is_reference(url: &str) -> bool {
    if url.is_empty() || url.bytes().any(|byte| byte.is_ascii_control()) {
        return false;
    }
    let (before_query, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    if is_malformed(before_query) {
        return false;
    }
    let rest = match before_query.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        // A colon in the first segment of a relative path would have been a scheme's.
        Some((first, _)) if !first.contains('/') => return false,
        _ => before_query,
    };
    match rest.strip_prefix("//") {
        Some(rest) => is_authority(rest.split('/').next().unwrap_or_default()),
        None => true,
    }
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A host with or without a port, user information before it or not.
fn is_authority(text: &str) -> bool {
    let (host, port) = crate::client::host_and_port(text.rsplit_once('@').map_or(text, |(_, host)| host));
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    port_fits && is_host(host)
}

/// A name, an IPv4 address, or an IPv6 address in brackets. Percent encodings are for what is not ASCII only.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        return v6
            .strip_suffix(']')
            .is_some_and(|v6| v6.split('%').next().unwrap_or_default().parse::<std::net::Ipv6Addr>().is_ok());
    }
    let bytes = host.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => escape(&bytes[at..]).is_some_and(|byte| !byte.is_ascii()),
        _ => byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"-._~!$&'()*+,;=".contains(byte),
    })
}

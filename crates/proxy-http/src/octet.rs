//! Which bytes may stand where (RFC 9110, section 5.6.2; RFC 3986, appendix A), as one table.

/// `tchar`.
pub(crate) const TOKEN: u8 = 1;
/// A byte of a request target: visible ASCII but `#`. Browsers send some that RFC 3986 would have encoded (`|`, `"`, `{`).
pub(crate) const TARGET: u8 = 2;
/// `unreserved` or `sub-delims`, but no comma.
pub(crate) const REG_NAME: u8 = 4;
/// A hexadecimal digit.
pub(crate) const HEX: u8 = 8;

const TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let b = byte as u8;
        let word = b.is_ascii_alphanumeric();
        if word || contains(b"!#$%&'*+-.^_`|~", b) {
            table[byte] |= TOKEN;
        }
        if b != b'#' {
            table[byte] |= TARGET;
        }
        if word || contains(b"-._~!$&'()*+;=", b) {
            table[byte] |= REG_NAME;
        }
        if b.is_ascii_hexdigit() {
            table[byte] |= HEX;
        }
        byte += 1;
    }
    table
};

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// Whether `byte` is of this class.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    TABLE[usize::from(byte)] & class != 0
}

/// Whether all of `bytes` are of this class.
#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |seen, byte| seen & TABLE[usize::from(*byte)]) != 0
}

/// Whether this is a token: at least one byte, all of them `tchar`.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether this is a field value: no control characters but HTAB (RFC 9110, section 5.5).
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    // Without a branch per byte, so that the compiler looks at sixteen at a time.
    !bytes.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// Whether lines of text have no control characters but HTAB, apart from their ends.
#[inline]
pub(crate) fn are_lines(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t') & (*b != b'\r') & (*b != b'\n')) | (*b == 0x7f))
}

/// Without spaces and tabs around it.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, without the empty ones.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|member| !member.is_empty())
}

/// A number of decimal digits only; none if it is empty, has anything else, or is too large for a signed 64-bit integer
/// (which is what many readers keep it in).
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let value = digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| value.wrapping_mul(10).wrapping_add(u64::from(digit)))
    })?;
    // Nineteen digits fit an unsigned one.
    (value <= i64::MAX as u64).then_some(value)
}

/// Writes a number in decimal digits.
pub(crate) fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Whether this is `uri-host [ ":" port ]` with a host (RFC 3986, section 3.2.2): a name, an IPv4 address, or an IPv6
/// address in brackets. Refused are user information, and in names commas (of two hosts made one) and percent encodings
/// (which some decode and some do not).
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = split_port(bytes);
    let port_is_fine = port.is_none_or(|port| {
        port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && decimal(port).unwrap_or_default() <= u64::from(u16::MAX)
    });
    port_is_fine && is_host(host)
}

/// The host and, after a colon, the port.
pub(crate) fn split_port(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let name_end = if bytes.first() == Some(&b'[') { memchr::memchr(b']', bytes).unwrap_or(bytes.len()) } else { 0 };
    match memchr::memchr(b':', &bytes[name_end..]) {
        Some(colon) => (&bytes[..name_end + colon], Some(&bytes[name_end + colon + 1..])),
        None => (bytes, None),
    }
}

fn is_host(host: &[u8]) -> bool {
    match host {
        [b'[', address @ .., b']'] => std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
        [] => false,
        _ => all(host, REG_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in ["a", "a.b:80", "1.2.3.4", "[::1]", "[::1]:8080", "a:", "xn--a_b.c", "EXAMPLE.com."] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:+80",
            "u@a",
            "u:p@a",
            "[::1",
            "::1",
            "[::1]x",
            "[a]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "a/b",
            "a b",
            "a\\b",
            "a%20b",
            "a,b",
            "a%2",
            "a%zz",
            "a?b",
            "a#b",
            "[]",
            "é",
            "a:000080",
            "[::1]]",
            "a[::1]",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn decimals_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0012"), Some(12));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in ["", "+5", "-1", " 5", "5 ", "0x5", "5,5", "9223372036854775808", "18446744073709551616", "1_0", "٣"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
        for value in [0, 7, 10, 65535, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(value, &mut out);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn values_have_no_control_characters_but_tabs() {
        for byte in 0..=255_u8 {
            let legal = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
            assert_eq!(is_value(&[b'a', byte, b'b']), legal, "{byte}");
        }
    }
}

//! Names that certificates are for, in the one form that everything inside uses: lower case, no dot at the end.

use std::net::IpAddr;

/// Endings that no public authority certifies (RFC 6761, RFC 6762, RFC 7686, RFC 8375, ICANN's `internal`).
const NOT_PUBLIC: &[&str] = &["localhost", "local", "invalid", "internal", "onion", "home.arpa", "lan", "corp", "home"];

/// The name in its one form; an error says what is wrong with it (RFC 1035, section 2.3.4; RFC 5890 for other scripts).
pub(crate) fn normal(name: &str) -> Result<String, String> {
    let lower = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let plain = lower.strip_prefix("*.").unwrap_or(&lower);
    if plain.parse::<IpAddr>().is_ok() {
        return Err(format!("{name} is an address; certificates are for names"));
    }
    if !plain.is_ascii() {
        return Err(format!("{name} has characters beyond ASCII; write it in its xn-- form"));
    }
    if lower.len() > 253 || !plain.split('.').all(is_label) {
        return Err(format!("{name:?} is not a host name"));
    }
    Ok(lower)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether the local authority is the only one that can certify it.
pub(crate) fn is_localhost(normal: &str) -> bool {
    normal == "localhost" || normal.ends_with(".localhost")
}

/// Why no public authority certifies a name; `None` if one might.
pub(crate) fn not_public(normal: &str) -> Option<String> {
    if let Some(ending) = NOT_PUBLIC.iter().find(|ending| is_or_is_under(normal, ending)) {
        return Some(format!(
            "no public authority certifies names in .{ending}; use the local authority or a certificate of your own"
        ));
    }
    if !normal.contains('.') {
        return Some(format!("{normal} is a single label, which no public authority certifies"));
    }
    if normal.contains('_') {
        return Some(format!("{normal} has an underscore, which no public authority certifies"));
    }
    None
}

/// Why it cannot be ordered by ACME whatever the authority; `None` if it can.
pub(crate) fn not_orderable(normal: &str) -> Option<String> {
    normal.starts_with("*.").then(|| {
        format!("{normal} is a wildcard, which needs DNS-01; name the hosts one by one, or give a certificate of your own")
    })
}

fn is_or_is_under(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The wildcard that covers a name, without its `*.` (RFC 6125, section 6.4.3: one label only).
pub(crate) fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_name_has_one_form() {
        assert_eq!(normal("Shop.Example.").unwrap(), "shop.example");
        assert_eq!(normal("*.LOCALHOST").unwrap(), "*.localhost");
        assert_eq!(normal("xn--bcher-kva.example").unwrap(), "xn--bcher-kva.example");
        for (bad, reason) in [
            ("127.0.0.1", "address"),
            ("::1", "address"),
            ("bücher.example", "xn--"),
            ("", "not a host name"),
            ("a..b", "not a host name"),
            ("-a.example", "not a host name"),
            ("../etc/passwd", "not a host name"),
            ("a/b.example", "not a host name"),
            ("a.*.example", "not a host name"),
        ] {
            assert!(normal(bad).unwrap_err().contains(reason), "{bad}");
        }
        assert!(normal(&"a.".repeat(200)).is_err());
        assert!(normal(&format!("{}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn names_that_no_public_authority_certifies_are_known() {
        for name in ["printer.local", "localhost", "a.localhost", "x.internal", "intranet", "a_b.example.org", "abc.onion"] {
            assert!(not_public(name).is_some(), "{name}");
        }
        for name in ["shop.example", "mylocal.example", "notlocal.org", "local.org"] {
            assert_eq!(not_public(name), None, "{name}");
        }
    }
}

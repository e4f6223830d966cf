//! What a case expects of header fields and URLs, beside what came.

use serde_json::Value;

use crate::report::Verdict;
use crate::wire::values;

/// The values that a case expects of a field: a text, a list, or none if it is empty or null.
pub(crate) fn expected_values(value: &Value) -> Vec<&str> {
    let all: Vec<&str> = match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => vec![text],
        _ => Vec::new(),
    };
    all.into_iter().filter(|value| !value.is_empty()).collect()
}

/// A field is there with these values, on one line or on several; with none, it is not there.
pub(crate) fn field(fields: &[(String, String)], name: &str, expected: &[&str]) -> Verdict {
    let got = values(fields, name);
    let joined = |values: &[&str]| {
        let joined = values.join(",").replace(", ", ",");
        // Its options are (RFC 9110, section 7.6.1).
        if name.eq_ignore_ascii_case("Connection") { joined.to_ascii_lowercase() } else { joined }
    };
    if got == expected || (!got.is_empty() && joined(&got) == joined(expected)) {
        return Ok(());
    }
    match expected {
        [] => Err(format!("expected no {name}, got {got:?}")),
        _ if got.is_empty() => Err(format!("expected {name} {expected:?}, got none")),
        _ => Err(format!("expected {name} {expected:?}, got {got:?}")),
    }
}

/// Every field of an object is there as it says.
pub(crate) fn all_fields(fields: &[(String, String)], expected: &Value) -> Verdict {
    let expected = expected.as_object().ok_or("the row expects fields, but names none")?;
    expected.iter().try_for_each(|(name, value)| field(fields, name, &expected_values(value)))
}

/// Two URLs lead to the same: an empty path is `/` (RFC 3986, section 6.2.3), as it is in every request.
pub(crate) fn same_url(one: &str, other: &str) -> bool {
    fn whole(url: &str) -> String {
        let after = url.find("://").map_or(0, |at| at + 3);
        match url[after..].find(['/', '?', '#']) {
            Some(at) if url[after + at..].starts_with('/') => url.to_owned(),
            Some(at) => format!("{}/{}", &url[..after + at], &url[after + at..]),
            None => format!("{url}/"),
        }
    }
    whole(one) == whole(other)
}

#[test]
fn an_empty_path_is_the_root() {
    assert!(
        same_url("https://a", "https://a/") && same_url("http://a?b", "http://a/?b") && same_url("http://a:1", "http://a:1/")
    );
    assert!(!same_url("https://a", "http://a") && !same_url("https://a/b", "https://a/b/"));
}

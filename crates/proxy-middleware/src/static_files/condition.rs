//! Conditions on the version of a file that a client has (RFC 9110, section 13).

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle_proxy_http::{Fields, Known};
use coracle_proxy_table::Encoding;

use crate::accept;

/// What tells one version of a file from another.
#[derive(Debug)]
pub(crate) struct Version {
    /// A strong tag, of the time to the nanosecond, the length, and the encoding.
    pub(crate) tag: String,
    /// To the second, as dates are written.
    pub(crate) modified: Option<SystemTime>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The file is sent; whether a part of it will do.
    Serve { ranges: bool },
    /// The client has it: 304.
    NotModified,
    /// The client means another version: 412.
    Failed,
}

impl Version {
    pub(crate) fn of(metadata: &Metadata, encoding: Option<Encoding>) -> Self {
        let since = metadata.modified().ok().and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        let suffix = encoding.map_or_else(String::new, |encoding| format!("-{}", accept::encoding_name(encoding)));
        let tag = format!("\"{:x}-{:x}{suffix}\"", since.unwrap_or_default().as_nanos(), metadata.len());
        Self { tag, modified: since.map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs())) }
    }

    /// Whether a list of tags has this one; `*` has all. Weak comparison takes `W/` for nothing.
    fn is_listed(&self, fields: &Fields, known: Known, weak: bool) -> bool {
        fields.get_all_known(known).any(|line| {
            let members = std::str::from_utf8(line).unwrap_or_default().split(',').map(str::trim);
            members.into_iter().any(|tag| tag == "*" || tag == self.tag || weak && tag.strip_prefix("W/") == Some(&self.tag))
        })
    }
}

/// In the order of section 13.2.2.
pub(crate) fn judge(fields: &Fields, version: &Version) -> Condition {
    let date = |known: Known| httpdate::parse_http_date(fields.get_known_str(known)?).ok();
    if fields.contains_known(Known::IfMatch) {
        if !version.is_listed(fields, Known::IfMatch, false) {
            return Condition::Failed;
        }
    } else if let (Some(date), Some(modified)) = (date(Known::IfUnmodifiedSince), version.modified)
        && modified > date
    {
        return Condition::Failed;
    }
    if fields.contains_known(Known::IfNoneMatch) {
        if version.is_listed(fields, Known::IfNoneMatch, true) {
            return Condition::NotModified;
        }
    } else if let (Some(date), Some(modified)) = (date(Known::IfModifiedSince), version.modified)
        && modified <= date
    {
        return Condition::NotModified;
    }
    let ranges = match fields.get_known_str(Known::IfRange) {
        Some(tag) if tag.contains('"') => tag == version.tag,
        Some(date) => httpdate::parse_http_date(date).is_ok_and(|date| version.modified == Some(date)),
        None => !fields.contains_known(Known::IfRange),
    };
    Condition::Serve { ranges }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn conditions_are_judged_in_their_order() {
        let version = Version { tag: "\"a\"".to_owned(), modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)) };
        let (then, before, after) =
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT", "Mon, 07 Nov 1994 00:00:00 GMT");
        let (whole, part) = (Condition::Serve { ranges: false }, Condition::Serve { ranges: true });
        for (fields, wanted) in [
            (&[][..], &part),
            (&[("If-None-Match", "\"a\"")], &Condition::NotModified),
            (&[("If-None-Match", "\"b\", W/\"a\"")], &Condition::NotModified),
            (&[("If-None-Match", "*")], &Condition::NotModified),
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", after)], &part),
            (&[("If-Modified-Since", then)], &Condition::NotModified),
            (&[("If-Modified-Since", before)], &part),
            (&[("If-Modified-Since", "yesterday")], &part),
            (&[("If-Match", "\"a\"")], &part),
            (&[("If-Match", "W/\"a\"")], &Condition::Failed),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], &Condition::Failed),
            (&[("If-Unmodified-Since", before)], &Condition::Failed),
            (&[("If-Unmodified-Since", then)], &part),
            (&[("If-Range", "\"a\"")], &part),
            (&[("If-Range", "W/\"a\"")], &whole),
            (&[("If-Range", "\"b\"")], &whole),
            (&[("If-Range", then)], &part),
            (&[("If-Range", after)], &whole),
        ] {
            let mut given = Fields::new();
            for (name, value) in fields {
                given.append(name, value).unwrap();
            }
            assert_eq!(judge(&given, &version), *wanted, "{fields:?}");
        }
    }
}

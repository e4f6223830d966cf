//! What the endpoints of other programs share: their clients send paths and base64 more freely than ours, and read errors in
//! the words of the program that they were written for.

use axum::response::Response;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::Serialize;

use crate::problem::Problem;
use crate::program::{Encoding, FileBody};

/// Base64 as loosely as it is read elsewhere: characters of no alphabet are skipped, RFC 4648 section 5's are taken, and
/// padding may be missing unless it is `padded`.
pub(super) fn base64(text: &str, padded: bool) -> Option<Vec<u8>> {
    let mut digits: Vec<u8> = text
        .bytes()
        .filter_map(|byte| match byte {
            b'-' if !padded => Some(b'+'),
            b'_' if !padded => Some(b'/'),
            b'+' | b'/' | b'=' => Some(byte),
            byte => byte.is_ascii_alphanumeric().then_some(byte),
        })
        .collect();
    let padding = if padded {
        DecodePaddingMode::RequireCanonical
    } else {
        digits.truncate(digits.iter().position(|digit| *digit == b'=').unwrap_or(digits.len()));
        // One digit is less than a byte.
        if digits.len() % 4 == 1 {
            digits.pop();
        }
        DecodePaddingMode::Indifferent
    };
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(padding);
    GeneralPurpose::new(&STANDARD, config).decode(digits).ok()
}

/// Bytes as a file that our own API takes.
pub(super) fn file(name: String, content: &[u8]) -> FileBody {
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    FileBody { name, content, encoding: Encoding::Base64 }
}

/// Puts another program's answer in the place of a problem; its status and its header fields stay.
pub(super) fn reword<T: Serialize>(response: Response, words: impl FnOnce(StatusCode, &str) -> T) -> Response {
    let Some(problem) = response.extensions().get::<Problem>().cloned() else { return response };
    let (mut parts, _) = response.into_parts();
    let (head, body) = super::answers::json(parts.status, &words(parts.status, &problem.detail)).into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    if let Some(value) = head.headers.get(CONTENT_TYPE) {
        parts.headers.insert(CONTENT_TYPE, value.clone());
    }
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_loosely() {
        assert_eq!(base64("aGk=", true).as_deref(), Some(&b"hi"[..]));
        assert_eq!(base64("aG\nk= ", true).as_deref(), Some(&b"hi"[..]));
        assert_eq!(base64("", true).as_deref(), Some(&b""[..]));
        assert_eq!(base64("aGk", true), None);
        assert_eq!(base64("aGk", false).as_deref(), Some(&b"hi"[..]));
        assert_eq!(base64("-_-_A", false).as_deref(), Some(&[0xfb, 0xff, 0xbf][..]));
    }
}

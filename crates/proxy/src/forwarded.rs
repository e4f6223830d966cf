//! What a target is told about the client: `X-Forwarded-*` and `X-Request-Id`.
//!
//! Whatever a client claims about itself is replaced by what this proxy knows. (A list of proxies that may be believed
//! would be asked in [`replace`].)

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use http::header::{HOST, HeaderName, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets the headers. `prefix` is the part of the path that the target does not see.
pub(crate) fn replace(headers: &mut HeaderMap, peer: &HeaderValue, prefix: &str) {
    let spoofed: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
    headers.insert(FOR, peer.clone());
    headers.insert(PROTO, HeaderValue::from_static("http"));
    match headers.get(HOST).cloned() {
        Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
        None => drop(headers.remove(FORWARDED_HOST)),
    }
    if let Ok(prefix) = HeaderValue::try_from(prefix)
        && !prefix.is_empty()
    {
        headers.insert(PREFIX, prefix);
    }
}

/// Headers by which a client could claim to be somebody else and that are not set anyway. With `_` for `-` they mean the
/// same to everything that speaks CGI or WSGI.
fn is_claim(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'f') => name == "forwarded",
        Some(b'x') => {
            matches!(
                name,
                "x-forwarded-prefix" | "x-forwarded-port" | "x-forwarded-ssl" | "x-forwarded-scheme" | "x-forwarded-server"
            ) || (name.contains('_') && {
                let name = name.replace('_', "-");
                name.starts_with("x-forwarded-") || name == "x-request-id" || name == "x-real-ip"
            })
        }
        _ => false,
    }
}

/// Makes ids that differ between requests and between proxies.
pub(crate) struct RequestIds {
    seed: [u64; 2],
    count: AtomicU64,
}

impl RequestIds {
    /// With a seed of its own.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { seed: [getrandom::u64()?, getrandom::u64()?], count: AtomicU64::new(0) })
    }

    /// Keeps the request's id if it is sane, or gives it one. Returns it.
    pub(crate) fn ensure<'h>(&self, headers: &'h mut HeaderMap) -> &'h HeaderValue {
        if headers.get_all(REQUEST_ID).iter().count() != 1 || !headers.get(REQUEST_ID).is_some_and(is_sane) {
            headers.insert(REQUEST_ID, self.next());
        }
        // It has just been made sure that there is one.
        headers.entry(REQUEST_ID).or_insert_with(|| HeaderValue::from_static("-"))
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut text = [0_u8; 32];
        for (half, word) in [self.seed[0], self.seed[1] ^ count].into_iter().enumerate() {
            for digit in 0..16 {
                let nibble = (mix(word ^ (half as u64)) >> (60 - 4 * digit)) & 0xf;
                text[half * 16 + digit] = b"0123456789abcdef"[nibble as usize];
            }
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Spreads a count over 64 bits without losing one (the finaliser of SplitMix64).
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_replaced_by_facts() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "app.example.com:8080"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=6.6.6.6"),
            ("x-custom", "kept"),
            ("x_other", "kept"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        replace(&mut headers, &HeaderValue::from_static("10.0.0.1"), "/app");
        let mut seen: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "host: app.example.com:8080",
                "x-custom: kept",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: app.example.com:8080",
                "x-forwarded-prefix: /app",
                "x-forwarded-proto: http",
                "x_other: kept",
            ]
        );
    }

    #[test]
    fn request_ids_are_kept_when_sane_and_made_otherwise() {
        let ids = RequestIds::new().unwrap();
        let mut seen = std::collections::HashSet::new();
        for given in ["", "has space", "\u{e9}", &"x".repeat(129)] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given.as_bytes()).unwrap());
            let made = ids.ensure(&mut headers).clone();
            assert!(made.len() == 32 && seen.insert(made), "{given:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-123"));
        assert_eq!(ids.ensure(&mut headers), "abc-123");
    }
}

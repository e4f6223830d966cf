//! `X-Request-Id`: by which a request is found again in everybody's logs.

use std::sync::atomic::{AtomicU64, Ordering};

use coracle_proxy_http::{Fields, Known};

/// Makes ids that differ between requests and between proxies.
#[derive(Default)]
pub(crate) struct RequestIds {
    seed: [u64; 2],
    count: AtomicU64,
}

impl RequestIds {
    /// With a seed of its own.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { seed: [getrandom::u64()?, getrandom::u64()?], count: AtomicU64::new(0) })
    }

    /// Keeps the request's id if it is sane, or gives it one.
    pub(crate) fn ensure(&self, fields: &mut Fields) {
        let mut given = fields.get_all_known(Known::XRequestId);
        let (first, second) = (given.next(), given.next());
        let keeps = second.is_none() && first.is_some_and(is_sane);
        drop(given);
        if keeps {
            return;
        }
        let id = self.next();
        if let Err(error) = fields.set_known(Known::XRequestId, id) {
            tracing::debug!(%error, "a request has no id");
        }
    }

    fn next(&self) -> [u8; 32] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut text = [0_u8; 32];
        for (half, word) in [self.seed[0], self.seed[1] ^ count].into_iter().enumerate() {
            let mixed = mix(word ^ (half as u64)).to_be_bytes();
            for (digits, byte) in text[half * 16..].chunks_exact_mut(2).zip(mixed) {
                digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
                digits[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
            }
        }
        text
    }
}

/// Spreads a count over 64 bits without losing one (the finaliser of SplitMix64).
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_kept_when_sane_and_made_otherwise() {
        let ids = RequestIds::new().unwrap();
        let mut seen = std::collections::HashSet::new();
        for given in ["", "has space", "\u{e9}", &"x".repeat(129)] {
            let mut fields = Fields::new();
            fields.append("x-request-id", given).unwrap();
            ids.ensure(&mut fields);
            let made = fields.get_str("x-request-id").unwrap().to_owned();
            assert!(made.len() == 32 && seen.insert(made), "{given:?}");
        }
        let mut fields = Fields::new();
        fields.append("X-Request-Id", "abc-123").unwrap();
        ids.ensure(&mut fields);
        assert_eq!(fields.get_str("x-request-id"), Some("abc-123"));
    }
}

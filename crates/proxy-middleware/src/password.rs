//! Passwords as `htpasswd` hashes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// The highest bcrypt cost that is verified: it takes some ten seconds, and 31 would take days.
const DEAREST: u32 = 18;

/// A hashed password. Has no `Debug`: the hash is a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Hash {
    /// `$2a$`, `$2b$`, `$2x$`, `$2y$`.
    Bcrypt(String),
    /// `$apr1$salt$digest`, and `$1$`, which differs in nothing else.
    Md5 { magic: &'static str, salt: String, digest: String },
    /// `{SHA}` and the digest in base64.
    Sha1([u8; 20]),
    /// Anything else. Nothing matches it.
    Unknown,
}

impl Hash {
    pub(crate) fn parse(text: &str) -> Self {
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            let cost = text.get(4..6).and_then(|cost| cost.parse::<u32>().ok());
            let fits = cost.is_some_and(|cost| cost <= DEAREST);
            return if fits { Self::Bcrypt(text.to_owned()) } else { Self::Unknown };
        }
        if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(digest).ok().and_then(|digest| digest.try_into().ok());
            return digest.map_or(Self::Unknown, Self::Sha1);
        }
        for magic in ["$apr1$", "$1$"] {
            if let Some((salt, digest)) = text.strip_prefix(magic).and_then(|rest| rest.split_once('$')) {
                // More than eight characters of salt do not count.
                let salt = salt.chars().take(8).collect();
                return Self::Md5 { magic, salt, digest: digest.to_owned() };
            }
        }
        Self::Unknown
    }

    /// Takes milliseconds, for bcrypt tens or hundreds of them.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Md5 { magic, salt, digest } => {
                md5_crypt(password, magic, salt.as_bytes()).as_bytes().ct_eq(digest.as_bytes()).into()
            }
            Self::Sha1(digest) => Sha1::digest(password).as_slice().ct_eq(digest).into(),
            Self::Unknown => false,
        }
    }

    /// What a change of it changes too.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bcrypt(hash) => hash.clone(),
            Self::Md5 { magic, salt, digest } => format!("{magic}{salt}${digest}"),
            Self::Sha1(digest) => STANDARD.encode(digest),
            Self::Unknown => String::new(),
        }
    }

    /// Grows with the time that [`Hash::verify`] takes.
    pub(crate) fn cost(&self) -> u32 {
        match self {
            // "$2y$12$…"
            Self::Bcrypt(hash) => 100 + hash.get(4..6).and_then(|cost| cost.parse().ok()).unwrap_or(0),
            Self::Md5 { .. } => 2,
            Self::Sha1(_) => 1,
            Self::Unknown => 0,
        }
    }
}

/// The MD5-based scheme of FreeBSD's crypt, a thousand rounds, in the alphabet of crypt.
fn md5_crypt(password: &[u8], magic: &str, salt: &[u8]) -> String {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for chunk in password.chunks(16) {
        outer.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The original writes a zero byte where one would expect a bit.
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        let (first, last) = if round % 2 == 1 { (password, &digest[..]) } else { (&digest[..], password) };
        next.update(first);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(last);
        digest = next.finalize();
    }
    crypt_alphabet(&digest)
}

/// Sixteen bytes in groups of three, least significant six bits first, in the order that crypt gives them.
fn crypt_alphabet(digest: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let at = |index: usize| u32::from(digest[index]);
    let mut out = String::with_capacity(22);
    let mut push = |mut bits: u32, count: usize| {
        for _ in 0..count {
            out.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for (high, middle, low) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push(at(high) << 16 | at(middle) << 8 | at(low), 4);
    }
    push(at(11), 2);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "open sesame", by `openssl passwd -apr1`, `openssl passwd -1`, `openssl dgst -sha1` and the C library's bcrypt.
    const HASHES: [&str; 4] = [
        "$apr1$Zq3xT0aB$gd6F3ErCOV2BKbUHks00c.",
        "$1$Zq3xT0aB$b2fyNkbWrbRIxldUpqLDM/",
        "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=",
        "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
    ];

    #[test]
    fn hashes_that_other_programs_made_are_verified() {
        for hash in HASHES {
            let parsed = Hash::parse(hash);
            assert!(parsed.verify(b"open sesame"), "{hash}");
            for wrong in [&b"open sesam"[..], b"open sesame ", b"", b"x"] {
                assert!(!parsed.verify(wrong), "{hash}");
            }
        }
    }

    #[test]
    fn what_is_no_hash_matches_nothing() {
        for text in [
            "",
            "open sesame",
            "{SHA}",
            "{SHA}AAAA",
            "$apr1$salt",
            "$2y$",
            "$2y$04$short",
            "$2y$31$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
            "$6$salt$x",
            "{PLAIN}x",
        ] {
            let parsed = Hash::parse(text);
            assert!(!parsed.verify(b"open sesame") && !parsed.verify(b"") && !parsed.verify(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn dear_hashes_cost_more() {
        let costs = ["plain", HASHES[2], HASHES[0], HASHES[3]].map(|text| Hash::parse(text).cost());
        assert!(costs.is_sorted_by(|a, b| a < b), "{costs:?}");
    }
}

//! Whether a request is really from the forge that shares a secret with us. What is signed is the body as it came, so it is
//! hashed while it is read, and nothing of it is looked at before.
//!
//! - GitHub: `X-Hub-Signature-256: sha256=HEX`, HMAC-SHA256 of the body. (The older `X-Hub-Signature`, SHA-1, is not taken.)
//! - Forgejo, Gitea: `X-Forgejo-Signature` or `X-Gitea-Signature: HEX`, the same sum.
//! - Bitbucket: `X-Hub-Signature: sha256=HEX`, the same sum.
//! - GitLab: with a signing token, `webhook-signature: v1,BASE64 …`, HMAC-SHA256 of `ID.TIME.BODY` (Standard Webhooks), whose
//!   time has to be near; else `X-Gitlab-Token`, the secret itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_model::Secret;
use http::HeaderMap;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::forge::Forge;

/// What secrets of Standard Webhooks begin with.
const MARK: &str = "whsec_";

/// Bytes of a sum.
const SUM: usize = 32;

/// The most sums that one header may offer: a secret is being changed for another.
const MOST_SUMS: usize = 4;

/// Seconds by which the sender's clock may be off, and that a request may be under way (Standard Webhooks).
const TOLERANCE: u64 = 300;

/// A request that is not shown to be from whom it says it is. It says no more: whoever sends it learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is missing or wrong")]
pub struct Unverified;

/// A body that is being verified while it comes in.
pub struct Verification(Kind);

enum Kind {
    /// One of these sums has to come out.
    Sum { context: Box<hmac::Context>, shown: Vec<[u8; SUM]> },
    /// The secret itself was shown, and was right.
    Shown,
}

impl Verification {
    /// Begins with the headers of a request. `now` is in seconds of Unix time.
    pub fn begin(forge: Forge, secret: &Secret, headers: &HeaderMap, now: u64) -> Result<Self, Unverified> {
        let key = secret.expose().as_bytes();
        let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let prefixed = |name: &str| value(name).and_then(|value| value.strip_prefix("sha256="));
        let hex = match forge {
            Forge::GitHub => prefixed("x-hub-signature-256"),
            Forge::Bitbucket => prefixed("x-hub-signature"),
            // One that is there and wrong is not mended by another.
            Forge::Forgejo => value("x-forgejo-signature").or_else(|| value("x-gitea-signature")),
            Forge::GitLab if headers.contains_key("webhook-signature") => return Self::standard(secret, headers, now),
            Forge::GitLab => {
                let shown = headers.get("x-gitlab-token").ok_or(Unverified)?;
                return match is_same(shown.as_bytes(), key) {
                    true => Ok(Self(Kind::Shown)),
                    false => Err(Unverified),
                };
            }
        };
        let shown = hex.and_then(unhexed).ok_or(Unverified)?;
        Ok(Self::of_sum(key, vec![shown]))
    }

    fn of_sum(key: &[u8], shown: Vec<[u8; SUM]>) -> Self {
        let context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        Self(Kind::Sum { context: Box::new(context), shown })
    }

    fn standard(secret: &Secret, headers: &HeaderMap, now: u64) -> Result<Self, Unverified> {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Unverified);
        let (id, moment, offered) = (value("webhook-id")?, value("webhook-timestamp")?, value("webhook-signature")?);
        let sent: u64 = moment.parse().map_err(|_| Unverified)?;
        let key = secret.expose().strip_prefix(MARK).and_then(|text| STANDARD.decode(text).ok()).ok_or(Unverified)?;
        let sums =
            offered.split(' ').take(MOST_SUMS).filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()?.try_into().ok());
        let sums: Vec<[u8; SUM]> = sums.collect();
        if sums.is_empty() || now.abs_diff(sent) > TOLERANCE {
            return Err(Unverified);
        }
        let mut verification = Self::of_sum(&key, sums);
        verification.update(format!("{id}.{moment}.").as_bytes());
        Ok(verification)
    }

    /// Takes a piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        if let Kind::Sum { context, .. } = &mut self.0 {
            context.update(piece);
        }
    }

    /// Decides at the end of the body.
    pub fn finish(self) -> Result<(), Unverified> {
        let Kind::Sum { context, shown } = self.0 else { return Ok(()) };
        let sum = context.sign();
        // All of them are compared, whichever is right.
        let right = shown.iter().fold(subtle::Choice::from(0), |right, one| right | one.as_slice().ct_eq(sum.as_ref()));
        if right.into() { Ok(()) } else { Err(Unverified) }
    }
}

/// Compares sums instead of texts: neither the time it takes nor the length tells anything.
fn is_same(shown: &[u8], secret: &[u8]) -> bool {
    let sum = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    sum(shown).as_ref().ct_eq(sum(secret).as_ref()).into()
}

fn unhexed(text: &str) -> Option<[u8; SUM]> {
    let digits: Vec<u8> =
        text.bytes().map(|byte| char::from(byte).to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

/// A new secret of 256 random bits, in the form that Standard Webhooks prescribes; other forges take any text. `None`: there is
/// no randomness.
pub fn new_secret() -> Option<Secret> {
    let mut random = [0; SUM];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(Secret::new(format!("{MARK}{}", STANDARD.encode(random))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The secret of GitHub's and Bitbucket's published examples.
    const SECRET: &str = "It's a Secret to Everybody";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn verified(forge: Forge, secret: &str, pairs: &[(&'static str, &str)], body: &[u8], now: u64) -> bool {
        let Ok(mut verification) = Verification::begin(forge, &secret.into(), &headers(pairs), now) else { return false };
        for piece in body.chunks(3) {
            verification.update(piece);
        }
        verification.finish().is_ok()
    }

    #[test]
    fn published_examples_are_verified() {
        // <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation>
        let sum = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(verified(Forge::GitHub, SECRET, &[("x-hub-signature-256", &format!("sha256={sum}"))], b"Hello, World!", 0));
        for header in ["x-forgejo-signature", "x-gitea-signature"] {
            assert!(verified(Forge::Forgejo, SECRET, &[(header, sum)], b"Hello, World!", 0));
        }
        // <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>, "Testing the webhook payload validation".
        let sum = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
        assert!(verified(Forge::Bitbucket, SECRET, &[("x-hub-signature", sum)], b"Hello World!", 0));
        // <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
        let standard = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,x"),
        ];
        let (secret, body) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", br#"{"test": 2432232314}"#);
        assert!(verified(Forge::GitLab, secret, &standard, body, 1_614_265_330 + 300));
        assert!(!verified(Forge::GitLab, secret, &standard, body, 1_614_265_330 + 301), "it is too old");
        assert!(!verified(Forge::GitLab, secret, &standard, body, 1_614_265_330 - 301), "it is from the future");
        assert!(!verified(Forge::GitLab, "plain", &standard, body, 1_614_265_330));
    }

    #[test]
    fn what_is_unsigned_or_signed_otherwise_is_not() {
        let sum = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let (body, full) = (b"Hello, World!", format!("sha256={sum}"));
        for forge in Forge::ALL {
            assert!(!verified(forge, SECRET, &[], body, 0), "{forge}");
        }
        let github = |value: &str, body: &[u8]| verified(Forge::GitHub, SECRET, &[("x-hub-signature-256", value)], body, 0);
        assert!(github(&full, body) && github(&full.to_uppercase().replace("SHA", "sha"), body));
        for wrong in ["", "sha256=", sum, &full[..70], &format!("{full}00"), &full.replace('7', "8"), "sha256=é", "sha1=00"] {
            assert!(!github(wrong, body), "{wrong}");
        }
        assert!(!github(&full, b"Hello, World?") && !github(&full, b""));
        assert!(!verified(Forge::GitHub, "other", &[("x-hub-signature-256", &full)], body, 0));
        // The old header is no way around the new one, nor one forge's for another's.
        assert!(!verified(Forge::GitHub, SECRET, &[("x-hub-signature", &full)], body, 0));
        let both = [("x-forgejo-signature", "00"), ("x-gitea-signature", sum)];
        assert!(!verified(Forge::Forgejo, SECRET, &both, body, 0), "a wrong one is not mended by a right one");
    }

    #[test]
    fn gitlabs_plain_token_is_the_secret_and_no_way_around_a_signature() {
        assert!(verified(Forge::GitLab, SECRET, &[("x-gitlab-token", SECRET)], b"", 0));
        for wrong in ["", "It's", "It's a Secret to Everybody!", "it's a secret to everybody"] {
            assert!(!verified(Forge::GitLab, SECRET, &[("x-gitlab-token", wrong)], b"", 0), "{wrong}");
        }
        assert!(!verified(Forge::GitLab, SECRET, &[("x-gitlab-token", SECRET), ("webhook-signature", "v1,AA")], b"", 0));
    }

    #[test]
    fn secrets_are_random_and_of_the_standards_form() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, other);
        assert_eq!(STANDARD.decode(one.expose().strip_prefix(MARK).unwrap()).unwrap().len(), 32);
    }
}

//! What tells one delivery from another.

use http::HeaderMap;

use crate::forge::Forge;

/// Bytes of an id; all forges send UUIDs, GitLab's may be longer.
const LONGEST: usize = 100;

/// The id of a delivery, by which it is known again when it comes a second time. Except for GitLab's `webhook-id` it is not
/// signed: it tells honest repetitions, and whoever forges one needs the signed body as well.
pub fn delivery_id(forge: Forge, headers: &HeaderMap) -> Option<&str> {
    let names: &[&str] = match forge {
        Forge::GitHub => &["x-github-delivery"],
        Forge::Forgejo => &["x-forgejo-delivery", "x-gitea-delivery"],
        Forge::GitLab => &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"],
        Forge::Bitbucket => &["x-request-uuid"],
    };
    let id = names.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_{}:.".contains(&byte);
    ((1..=LONGEST).contains(&id.len()) && id.bytes().all(plain)).then_some(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_short_plain_words() {
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-github-delivery"), value.parse().unwrap())]);
            delivery_id(Forge::GitHub, &headers).map(str::to_owned)
        };
        assert_eq!(with("72d3162e-cc78-11e3-81ab-4c9367dc0958").as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
        assert_eq!((with("a b"), with(""), with(&"x".repeat(101))), (None, None, None));
        assert_eq!(delivery_id(Forge::GitHub, &HeaderMap::new()), None);
    }
}

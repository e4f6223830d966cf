//! The cookie that leads a client back to the target it had.
//!
//! Its value is a digest of the target's id: it tells nobody an address or a name, and it is the same after a restart of the
//! proxy, on another proxy with the same table, and when the target has moved to another address.

use coracle_proxy_http::{Fields, Known};
use coracle_proxy_table::{SameSite, Sticky, TargetId};
use ring::digest;

/// Hexadecimal digits of a cookie's value.
const DIGITS: usize = 24;

/// The cookies of a service's targets.
pub(crate) struct Stickiness {
    name: String,
    /// What stands behind the value.
    attributes: String,
    /// In the order of the targets.
    values: Vec<String>,
}

impl Stickiness {
    /// For these targets.
    pub(crate) fn new<'t>(plan: &Sticky, targets: impl Iterator<Item = &'t TargetId>) -> Self {
        let mut attributes = "; Path=/".to_owned();
        if let Some(seconds) = plan.max_age_s {
            attributes += &format!("; Max-Age={seconds}");
        }
        if plan.secure {
            attributes += "; Secure";
        }
        if plan.http_only {
            attributes += "; HttpOnly";
        }
        attributes += match plan.same_site {
            None => "",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::None) => "; SameSite=None",
        };
        Self { name: plan.cookie.clone(), attributes, values: targets.map(value).collect() }
    }

    /// The target that a request's cookies lead to: its index.
    pub(crate) fn wanted(&self, fields: &Fields) -> Option<usize> {
        let pairs = fields.get_all_known(Known::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
        let mut values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(self.name.as_bytes())?.strip_prefix(b"="));
        // A client may have several of that name, of other paths or domains.
        values.find_map(|given| self.values.iter().position(|value| value.as_bytes() == given))
    }

    /// The `Set-Cookie` that leads to a target.
    pub(crate) fn cookie(&self, index: usize) -> String {
        format!("{}={}{}", self.name, self.values[index], self.attributes)
    }
}

fn value(id: &TargetId) -> String {
    let digest = digest::digest(&digest::SHA256, format!("coracle sticky cookie\0{}", id.0).as_bytes());
    let digits = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).take(DIGITS);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stickiness(change: impl FnOnce(&mut Sticky)) -> Stickiness {
        let mut plan = Sticky { cookie: "lb".into(), secure: false, http_only: false, same_site: None, max_age_s: None };
        change(&mut plan);
        Stickiness::new(&plan, [TargetId("10.0.0.1:80".into()), TargetId("10.0.0.2:80".into())].iter())
    }

    #[test]
    fn cookies_have_the_attributes_asked_for_and_tell_no_address() {
        assert_eq!(stickiness(|_| ()).cookie(1), format!("lb={}; Path=/", stickiness(|_| ()).values[1]));
        let all = stickiness(|plan| {
            (plan.secure, plan.http_only, plan.same_site, plan.max_age_s) = (true, true, Some(SameSite::Strict), Some(60));
        });
        let cookie = all.cookie(0);
        assert!(cookie.ends_with("; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Strict"), "{cookie}");
        assert!(all.values.iter().all(|value| value.len() == DIGITS && value.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_ne!(all.values[0], all.values[1]);
    }

    #[test]
    fn only_a_whole_cookie_of_that_name_leads_anywhere() {
        let sticky = stickiness(|_| ());
        let value = sticky.values[1].clone();
        for (line, wanted) in [
            (format!("lb={value}"), Some(1)),
            (format!("a=b; lb={value};c=d"), Some(1)),
            (format!("lb=other; lb={value}"), Some(1)),
            (format!("xlb={value}"), None),
            (format!("lb={value}0"), None),
            ("lb=".to_owned(), None),
            (String::new(), None),
        ] {
            let mut fields = Fields::new();
            fields.append("Cookie", &line).unwrap();
            assert_eq!(sticky.wanted(&fields), wanted, "{line}");
        }
        assert_eq!(sticky.wanted(&Fields::new()), None);
    }
}

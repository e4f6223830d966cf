//! What a request must have for a rule to match it: worked out from the rule, so that it can be filed. Never more than is
//! true; less is allowed.

use std::borrow::Cow;

use crate::expression::Expression;
use crate::matcher::{HostName, Matcher};

/// A host that a rule is filed under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostKey {
    /// This name.
    Exact(String),
    /// Any name that ends with a dot and this.
    Below(String),
}

/// The hosts that the rule can match, all of them; `None` if they cannot be told.
pub(crate) fn hosts(expression: &Expression) -> Option<Vec<HostKey>> {
    collected(expression, &host_of)
}

/// The hosts that the rule names for everything that it matches, as they were written, expressions left aside; `None` if it
/// matches something without naming its host.
pub(crate) fn named_hosts(expression: &Expression) -> Option<Vec<String>> {
    let named = |matcher: &Matcher| match matcher {
        Matcher::Host(name) => Some(name.to_string()),
        _ => None,
    };
    collected(expression, &named)
}

fn collected<K: Ord>(expression: &Expression, key_of: &impl Fn(&Matcher) -> Option<K>) -> Option<Vec<K>> {
    let mut keys = Vec::new();
    let told = collect_hosts(expression, true, key_of, &mut keys);
    keys.sort_unstable();
    keys.dedup();
    told.then_some(keys)
}

/// Whether it asks for nothing but one of the hosts that it is filed under, all of them names.
pub(crate) fn is_hosts_alone(expression: &Expression) -> bool {
    match expression {
        Expression::Is(matcher) => matches!(matcher, Matcher::Host(HostName::Exact(_))),
        Expression::Any(parts) => parts.iter().all(is_hosts_alone),
        Expression::All(_) | Expression::Not(_) => false,
    }
}

/// Adds the hosts that `expression` (or its opposite) can match; if they cannot be told, adds nothing and says so.
fn collect_hosts<K>(expression: &Expression, positive: bool, key_of: &impl Fn(&Matcher) -> Option<K>, into: &mut Vec<K>) -> bool {
    match (expression, positive) {
        (Expression::Not(part), _) => collect_hosts(part, !positive, key_of, into),
        // The opposite of "any of them" is "all of their opposites".
        (Expression::All(parts), true) | (Expression::Any(parts), false) => {
            let known = parts.iter().filter_map(|part| {
                let mut keys = Vec::new();
                collect_hosts(part, positive, key_of, &mut keys).then_some(keys)
            });
            match known.min_by_key(Vec::len) {
                Some(fewest) => {
                    into.extend(fewest);
                    true
                }
                None => false,
            }
        }
        (Expression::Any(parts), true) | (Expression::All(parts), false) => {
            let before = into.len();
            let told = parts.iter().all(|part| collect_hosts(part, positive, key_of, into));
            if !told {
                into.truncate(before);
            }
            told
        }
        (Expression::Is(matcher), true) => {
            let key = key_of(matcher);
            let told = key.is_some();
            into.extend(key);
            told
        }
        (Expression::Is(_), false) => false,
    }
}

fn host_of(matcher: &Matcher) -> Option<HostKey> {
    match matcher {
        Matcher::Host(HostName::Exact(name)) => Some(HostKey::Exact(name.clone())),
        Matcher::Host(HostName::OneBelow(parent) | HostName::AnyBelow(parent)) => Some(HostKey::Below(parent.clone())),
        Matcher::HostRegexp(pattern) => {
            // Only whole labels can be looked up: what ends with `xample.com` is a name below `com`.
            let end = pattern.literal_end();
            let (_, domain) = end.split_once('.')?;
            (!domain.is_empty()).then(|| HostKey::Below(domain.to_owned()))
        }
        _ => None,
    }
}

/// How the path must begin; empty if that cannot be told.
pub(crate) fn path_prefix(expression: &Expression) -> String {
    prefix_of(expression, true).into_owned()
}

fn prefix_of(expression: &Expression, positive: bool) -> Cow<'_, str> {
    match (expression, positive) {
        (Expression::Not(part), _) => prefix_of(part, !positive),
        (Expression::All(parts), true) | (Expression::Any(parts), false) => {
            parts.iter().map(|part| prefix_of(part, positive)).max_by_key(|prefix| prefix.len()).unwrap_or_default()
        }
        (Expression::Any(parts), true) | (Expression::All(parts), false) => {
            parts.iter().map(|part| prefix_of(part, positive)).reduce(common).unwrap_or_default()
        }
        (Expression::Is(Matcher::Path(path) | Matcher::PathPrefix(path)), true) => Cow::Borrowed(path),
        (Expression::Is(Matcher::PathRegexp(pattern)), true) => Cow::Owned(pattern.literal_start()),
        (Expression::Is(_), _) => Cow::Borrowed(""),
    }
}

/// The text that both begin with.
fn common<'a>(mut one: Cow<'a, str>, other: Cow<'a, str>) -> Cow<'a, str> {
    let mut length = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    while !one.is_char_boundary(length) {
        length -= 1;
    }
    match &mut one {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..length]),
        Cow::Owned(text) => {
            text.truncate(length);
            one
        }
    }
}

//! Middlewares that change the path a target sees.

use serde::{Deserialize, Serialize};

/// Takes the first of these prefixes that fits off the path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripPrefix {
    /// The prefixes, tried in this order; decoded, as `/a b`.
    pub prefixes: Vec<String>,
}

/// Takes what the first of these regular expressions matches at the start of the path off it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripPrefixRegex {
    /// The regular expressions, tried in this order against the decoded path.
    pub regex: Vec<String>,
}

/// Puts something before the path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddPrefix {
    /// What is put before the path, as `/api`.
    pub prefix: String,
}

/// Puts another path in place of the one asked for; the query stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacePath {
    /// The path; may have percent-encoded bytes.
    pub path: String,
}

/// Puts another text in place of whatever a regular expression matches in the path; the query stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacePathRegex {
    /// What is looked for, in the path as the client sent it.
    pub regex: String,
    /// What each match becomes; `$1` and `${1}` stand for groups.
    pub replacement: String,
}

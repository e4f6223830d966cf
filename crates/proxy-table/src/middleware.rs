//! What is done with a request on its way to a service, and with the answer on its way back.

use serde::{Deserialize, Serialize};

/// One middleware, by its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Middleware {
    /// Takes the first of these prefixes that fits off the path, and tells the target in `X-Forwarded-Prefix`.
    StripPrefix(StripPrefix),
}

/// Takes the first of these prefixes that fits off the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripPrefix {
    /// The prefixes, tried in this order.
    pub prefixes: Vec<String>,
}

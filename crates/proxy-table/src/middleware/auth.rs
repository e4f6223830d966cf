//! Middlewares that decide who may pass.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::IpStrategy;
use crate::is_default;

/// Asks for a name and a password (RFC 7617). At least one user, here or in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// Who may pass. A name that is here and in the file is the one here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Credential>,
    /// A file with one `name:hash` per line (`#` begins a comment); read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<String>,
    /// What the browser shows; without one, `coracle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// A request header that tells the target the user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_field: Option<String>,
    /// Takes `Authorization` off before the request goes to the target.
    #[serde(skip_serializing_if = "is_default")]
    pub remove_header: bool,
}

/// `name:hash`, as `htpasswd` writes it: bcrypt (`$2y$`, `$2a$`, `$2b$`), Apache's MD5 (`$apr1$`) or `{SHA}`. Its debug output
/// has the name only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credential(pub String);

impl Credential {
    /// The user's name; empty if there is no colon, since the text may then be the secret.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(name, _)| name)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.name())
    }
}

/// Asks another service whether the request may pass: 2xx lets it, any other answer is the client's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// The URL to ask, `http://` or `https://`.
    pub address: String,
    /// Whom to trust over `https://`; without it, whoever the system's authorities vouch for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: AuthTls,
    /// Passes the client's `X-Forwarded-*` on as they came, in place of making them anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust_forward_header: bool,
    /// Headers of the service's answer that go into the request to the target, in place of whatever the client wrote there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth_response_headers: Vec<String>,
    /// The same by a regular expression on their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_response_headers_regex: Option<String>,
    /// The request's headers that the service sees; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth_request_headers: Vec<String>,
    /// Cookies that the service sets and that go into the target's answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_auth_cookies_to_response: Vec<String>,
    /// The header of the service's answer that names the user: one more of `auth_response_headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_field: Option<String>,
    /// Leaves a relative `Location` in the service's answer as it is, in place of making it absolute by `address`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preserve_location_header: bool,
    /// Asks by the request's method, in place of GET.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preserve_request_method: bool,
    /// Milliseconds for its whole answer; then 504.
    #[serde(default = "ten_seconds", skip_serializing_if = "is_ten_seconds")]
    pub timeout_ms: u64,
}

/// Whom a service asked over TLS is trusted by, and what it is shown. Files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthTls {
    /// PEM certificates of the only authorities to trust, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// A PEM chain to show to services that ask for one; with `key_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// The PEM key of `cert_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Takes any certificate, for any name. Whoever stands between can let anybody in then.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure_skip_verify: bool,
}

/// Lets only some addresses in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpAllowList {
    /// Addresses and networks (`10.0.0.0/8`, `2001:db8::/32`).
    pub source_range: Vec<String>,
    /// How the client's address is found; without one, it is the one the proxy sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategy>,
    /// The status for everybody else; without one, 403.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_status_code: Option<u16>,
}

fn ten_seconds() -> u64 {
    10_000
}

fn is_ten_seconds(value: &u64) -> bool {
    *value == ten_seconds()
}

//! Header fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::is_default;

/// Sets, changes and removes header fields; security headers; CORS. What is left out is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Request headers to set; an empty value removes. `Host` sets the host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_request_headers: BTreeMap<String, String>,
    /// Response headers to set; an empty value removes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_response_headers: BTreeMap<String, String>,

    /// CORS: `Access-Control-Allow-Credentials: true`.
    #[serde(skip_serializing_if = "is_default")]
    pub access_control_allow_credentials: bool,
    /// CORS: request headers that may be used; told to preflights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_headers: Vec<String>,
    /// CORS: methods that may be used; told to preflights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_methods: Vec<String>,
    /// CORS: origins that may ask (`https://shop.example`), or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_origin_list: Vec<String>,
    /// CORS: the same by regular expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_origin_list_regex: Vec<String>,
    /// CORS: response headers that scripts may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_expose_headers: Vec<String>,
    /// CORS: seconds for which a browser may keep the answer to a preflight; always told to preflights.
    #[serde(skip_serializing_if = "is_default")]
    pub access_control_max_age: i64,
    /// CORS: adds `Origin` to `Vary`.
    #[serde(skip_serializing_if = "is_default")]
    pub add_vary_header: bool,

    /// Hosts that may be asked for; others get 500, as with Traefik. Empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// Request headers in which the host asked for may be, for `allowed_hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts_proxy_headers: Vec<String>,
    /// Request headers and their values that mean the client came over TLS, as `X-Forwarded-Proto` = `https`; for `sts_seconds`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ssl_proxy_headers: BTreeMap<String, String>,
    /// `Strict-Transport-Security` on answers over TLS: its `max-age`, in seconds; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub sts_seconds: u64,
    /// … with `includeSubDomains`.
    #[serde(skip_serializing_if = "is_default")]
    pub sts_include_subdomains: bool,
    /// … with `preload`.
    #[serde(skip_serializing_if = "is_default")]
    pub sts_preload: bool,
    /// … without TLS too.
    #[serde(skip_serializing_if = "is_default")]
    pub force_sts_header: bool,
    /// `X-Frame-Options: DENY`.
    #[serde(skip_serializing_if = "is_default")]
    pub frame_deny: bool,
    /// `X-Frame-Options` with this value; goes before `frame_deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_frame_options_value: Option<String>,
    /// `X-Content-Type-Options: nosniff`.
    #[serde(skip_serializing_if = "is_default")]
    pub content_type_nosniff: bool,
    /// `X-XSS-Protection: 1; mode=block`.
    #[serde(skip_serializing_if = "is_default")]
    pub browser_xss_filter: bool,
    /// `X-XSS-Protection` with this value; goes before `browser_xss_filter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_browser_xss_value: Option<String>,
    /// `Content-Security-Policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_security_policy: Option<String>,
    /// `Content-Security-Policy-Report-Only`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_security_policy_report_only: Option<String>,
    /// `Public-Key-Pins`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// `Referrer-Policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer_policy: Option<String>,
    /// `Permissions-Policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_policy: Option<String>,
    /// Leaves `allowed_hosts` and `Strict-Transport-Security` aside, for work on one's own machine.
    #[serde(skip_serializing_if = "is_default")]
    pub is_development: bool,
}

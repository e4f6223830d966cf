//! Traefik's middlewares for HTTP and their settings.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::decode::switch;
use crate::go_duration::GoDuration;

/// One middleware. Exactly one kind must be set for it to be one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Middleware {
    pub(crate) add_prefix: Option<AddPrefix>,
    pub(crate) strip_prefix: Option<StripPrefix>,
    pub(crate) strip_prefix_regex: Option<StripPrefixRegex>,
    pub(crate) replace_path: Option<ReplacePath>,
    pub(crate) replace_path_regex: Option<ReplacePathRegex>,
    pub(crate) chain: Option<Chain>,
    pub(crate) ip_white_list: Option<IpAllowList>,
    pub(crate) ip_allow_list: Option<IpAllowList>,
    pub(crate) headers: Option<Box<Headers>>,
    pub(crate) errors: Option<ErrorPage>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) redirect_regex: Option<RedirectRegex>,
    pub(crate) redirect_scheme: Option<RedirectScheme>,
    pub(crate) basic_auth: Option<Auth>,
    pub(crate) digest_auth: Option<Auth>,
    pub(crate) forward_auth: Option<Box<ForwardAuth>>,
    pub(crate) in_flight_req: Option<InFlightReq>,
    pub(crate) buffering: Option<Buffering>,
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    #[serde(deserialize_with = "switch")]
    pub(crate) compress: Option<Compress>,
    #[serde(rename = "passTLSClientCert")]
    pub(crate) pass_tls_client_cert: Option<Value>,
    pub(crate) retry: Option<Retry>,
    #[serde(deserialize_with = "switch")]
    pub(crate) content_type: Option<ContentType>,
    pub(crate) grpc_web: Option<Value>,
    pub(crate) plugin: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AddPrefix {
    pub(crate) prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StripPrefix {
    pub(crate) prefixes: Vec<String>,
    /// Whether a path of which nothing is left becomes `/`.
    pub(crate) force_slash: bool,
}

impl Default for StripPrefix {
    fn default() -> Self {
        Self { prefixes: Vec::new(), force_slash: true }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StripPrefixRegex {
    pub(crate) regex: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ReplacePath {
    pub(crate) path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ReplacePathRegex {
    pub(crate) regex: String,
    pub(crate) replacement: String,
}

/// Other middlewares, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Chain {
    pub(crate) middlewares: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IpAllowList {
    pub(crate) source_range: Vec<String>,
    #[serde(deserialize_with = "switch")]
    pub(crate) ip_strategy: Option<IpStrategy>,
    pub(crate) reject_status_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IpStrategy {
    pub(crate) depth: u64,
    #[serde(rename = "excludedIPs")]
    pub(crate) excluded_ips: Vec<String>,
    pub(crate) ipv6_subnet: Option<u8>,
}

/// What makes two requests come from one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SourceCriterion {
    #[serde(deserialize_with = "switch")]
    pub(crate) ip_strategy: Option<IpStrategy>,
    pub(crate) request_header_name: String,
    pub(crate) request_host: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ErrorPage {
    pub(crate) status: Vec<String>,
    pub(crate) status_rewrites: BTreeMap<String, i64>,
    pub(crate) service: String,
    pub(crate) query: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RateLimit {
    pub(crate) average: i64,
    pub(crate) period: GoDuration,
    pub(crate) burst: i64,
    pub(crate) source_criterion: Option<SourceCriterion>,
    pub(crate) redis: Option<Value>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { average: 0, period: GoDuration::milliseconds(1000), burst: 1, source_criterion: None, redis: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RedirectRegex {
    pub(crate) regex: String,
    pub(crate) replacement: String,
    pub(crate) permanent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RedirectScheme {
    pub(crate) scheme: String,
    pub(crate) port: String,
    pub(crate) permanent: bool,
}

/// Basic or digest authentication. Neither its debug output nor its JSON has hashes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Auth {
    #[serde(serialize_with = "names_of")]
    pub(crate) users: Vec<String>,
    pub(crate) users_file: String,
    pub(crate) realm: String,
    pub(crate) remove_header: bool,
    pub(crate) header_field: String,
}

/// `name:…` of each user.
fn names_of<S: Serializer>(users: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(users.iter().map(|user| format!("{}:…", user.split_once(':').map_or("", |(name, _)| name))))
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("users", &self.users.len()).field("realm", &self.realm).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ForwardAuth {
    pub(crate) address: String,
    pub(crate) tls: Option<Value>,
    pub(crate) trust_forward_header: bool,
    pub(crate) auth_response_headers: Vec<String>,
    pub(crate) auth_response_headers_regex: String,
    pub(crate) auth_request_headers: Vec<String>,
    pub(crate) add_auth_cookies_to_response: Vec<String>,
    pub(crate) header_field: String,
    pub(crate) forward_body: bool,
    pub(crate) max_body_size: Option<i64>,
    pub(crate) preserve_location_header: bool,
    pub(crate) preserve_request_method: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct InFlightReq {
    pub(crate) amount: u64,
    pub(crate) source_criterion: Option<SourceCriterion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Buffering {
    pub(crate) max_request_body_bytes: u64,
    pub(crate) mem_request_body_bytes: u64,
    pub(crate) max_response_body_bytes: u64,
    pub(crate) mem_response_body_bytes: u64,
    pub(crate) retry_expression: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CircuitBreaker {
    pub(crate) expression: String,
    pub(crate) check_period: GoDuration,
    pub(crate) fallback_duration: GoDuration,
    pub(crate) recovery_duration: GoDuration,
    pub(crate) response_code: u16,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            expression: String::new(),
            check_period: GoDuration::milliseconds(100),
            fallback_duration: GoDuration::milliseconds(10_000),
            recovery_duration: GoDuration::milliseconds(10_000),
            response_code: 503,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Compress {
    pub(crate) excluded_content_types: Vec<String>,
    pub(crate) included_content_types: Vec<String>,
    pub(crate) min_response_body_bytes: u64,
    pub(crate) encodings: Vec<String>,
    pub(crate) default_encoding: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
    pub(crate) initial_interval: GoDuration,
    pub(crate) timeout: GoDuration,
    pub(crate) max_request_body_bytes: Option<i64>,
    pub(crate) status: Vec<String>,
    pub(crate) disable_retry_on_network_error: bool,
    pub(crate) retry_non_idempotent_method: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContentType {
    pub(crate) auto_detect: bool,
}

/// Header fields, security headers, CORS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Headers {
    pub(crate) custom_request_headers: BTreeMap<String, String>,
    pub(crate) custom_response_headers: BTreeMap<String, String>,
    pub(crate) access_control_allow_credentials: bool,
    pub(crate) access_control_allow_headers: Vec<String>,
    pub(crate) access_control_allow_methods: Vec<String>,
    pub(crate) access_control_allow_origin: String,
    pub(crate) access_control_allow_origin_list: Vec<String>,
    pub(crate) access_control_allow_origin_list_regex: Vec<String>,
    pub(crate) access_control_expose_headers: Vec<String>,
    pub(crate) access_control_max_age: i64,
    pub(crate) add_vary_header: bool,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) hosts_proxy_headers: Vec<String>,
    pub(crate) ssl_redirect: bool,
    pub(crate) ssl_temporary_redirect: bool,
    pub(crate) ssl_host: String,
    pub(crate) ssl_proxy_headers: BTreeMap<String, String>,
    pub(crate) ssl_force_host: bool,
    pub(crate) sts_seconds: u64,
    pub(crate) sts_include_subdomains: bool,
    pub(crate) sts_preload: bool,
    #[serde(rename = "forceSTSHeader")]
    pub(crate) force_sts_header: bool,
    pub(crate) frame_deny: bool,
    pub(crate) custom_frame_options_value: String,
    pub(crate) content_type_nosniff: bool,
    pub(crate) browser_xss_filter: bool,
    #[serde(rename = "customBrowserXSSValue")]
    pub(crate) custom_browser_xss_value: String,
    pub(crate) content_security_policy: String,
    pub(crate) content_security_policy_report_only: String,
    pub(crate) public_key: String,
    pub(crate) referrer_policy: String,
    pub(crate) feature_policy: String,
    pub(crate) permissions_policy: String,
    pub(crate) is_development: bool,
}

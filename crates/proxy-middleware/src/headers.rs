//! Header fields: custom ones, the security set, and CORS (the Fetch standard, section 3.3).
//!
//! On an answer, the security set comes first, then custom fields, which may take it back, then CORS.

use std::collections::BTreeMap;

use coracle_proxy_http::{Fields, Known, RequestHead, ResponseHead};
use coracle_proxy_table::Headers as Settings;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use crate::answer::{Answer, put};
use crate::client::{Client, host_and_port};
use crate::{expression, pages, wrong};

/// A field to set; without a value, to remove.
type Change = (String, Option<String>);

/// See [`Settings`].
pub(crate) struct Headers {
    request: Vec<Change>,
    /// The host to put in place of the one asked for.
    host: Option<String>,
    response: Vec<Change>,
    security: Vec<Change>,
    transport: Option<Transport>,
    cors: Option<Cors>,
    hosts: Option<Hosts>,
}

/// What is sent to targets may be secret, so only the names are shown.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.request.iter().chain(&self.response).map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Headers").field("names", &names).field("cors", &self.cors).finish_non_exhaustive()
    }
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(crate) struct Asked {
    origin: Option<Box<[u8]>>,
    secure: bool,
}

impl Headers {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        let mut request = changes("custom_request_headers", &settings.custom_request_headers)?;
        let host = request.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.and_then(|at| request.swap_remove(at).1);
        if host.as_ref().is_some_and(|host| RequestHead::default().set_host(host).is_err()) {
            return Err(wrong("custom_request_headers", "the value of Host is no host"));
        }
        Ok(Self {
            request,
            host,
            response: changes("custom_response_headers", &settings.custom_response_headers)?,
            security: security(settings)?,
            transport: Transport::compile(settings)?,
            cors: Cors::compile(settings)?,
            hosts: Hosts::compile(settings)?,
        })
    }

    pub(crate) fn request(&self, client: &Client, head: &mut RequestHead) -> Result<Option<Asked>, Answer> {
        if let Some(hosts) = &self.hosts {
            hosts.check(head)?;
        }
        let asked = (self.cors.is_some() || self.transport.is_some()).then(|| Asked {
            origin: head.fields.get_known(Known::Origin).filter(|_| self.cors.is_some()).map(Into::into),
            secure: self.transport.as_ref().is_some_and(|transport| transport.applies(client, head)),
        });
        if let Some(cors) = &self.cors
            && let Some(answer) = cors.preflight(head)
        {
            return Err(answer);
        }
        apply(&self.request, &mut head.fields);
        if let Some(host) = &self.host
            && head.set_host(host).is_err()
        {
            return Err(pages::refusal(head, StatusCode::BAD_REQUEST, ""));
        }
        Ok(asked)
    }

    pub(crate) fn response(&self, asked: Option<&Asked>, head: &mut ResponseHead) {
        apply(&self.security, &mut head.fields);
        if let Some(transport) = self.transport.as_ref().filter(|_| asked.is_some_and(|asked| asked.secure)) {
            put(&mut head.fields, Known::StrictTransportSecurity, &transport.value);
        }
        apply(&self.response, &mut head.fields);
        if let Some(cors) = &self.cors {
            cors.response(asked.and_then(|asked| asked.origin.as_deref()), &mut head.fields);
        }
    }
}

fn apply(changes: &[Change], fields: &mut Fields) {
    for (name, value) in changes {
        match value {
            Some(value) => set(fields, name, value.as_bytes()),
            None => {
                fields.remove(name);
            }
        }
    }
}

/// Sets a field whose name and value were checked when the middleware was compiled, or came in a request.
fn set(fields: &mut Fields, name: &str, value: &[u8]) {
    if let Err(error) = fields.set(name, value) {
        tracing::debug!(name, %error, "a header field was left out");
    }
}

/// Fields that frame messages or belong to one connection: setting them would let one message be read as two.
const FRAMING: &[&str] =
    &["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a field frames messages or belongs to one connection.
pub(crate) fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}

fn changes(setting: &str, fields: &BTreeMap<String, String>) -> Result<Vec<Change>, String> {
    let change = |(name, value): (&String, &String)| {
        let value = value.trim_matches([' ', '\t']);
        if is_framing(name) {
            return Err(wrong(setting, format_args!("{name} is the connection's and cannot be changed")));
        }
        checked(setting, name, value)
    };
    fields.iter().map(change).collect()
}

fn checked(setting: &str, name: &str, value: &str) -> Result<Change, String> {
    if name.parse::<HeaderName>().is_err() {
        return Err(wrong(setting, format_args!("{name:?} is no name of a header field")));
    }
    if HeaderValue::from_str(value).is_err() && HeaderValue::from_bytes(value.as_bytes()).is_err() {
        return Err(wrong(setting, format_args!("the value of {name} has control characters")));
    }
    Ok((name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())))
}

fn security(settings: &Settings) -> Result<Vec<Change>, String> {
    let frame = settings.custom_frame_options_value.as_deref().or(settings.frame_deny.then_some("DENY"));
    let xss = settings.custom_browser_xss_value.as_deref().or(settings.browser_xss_filter.then_some("1; mode=block"));
    let said = [
        ("custom_frame_options_value", "X-Frame-Options", frame),
        ("content_type_nosniff", "X-Content-Type-Options", settings.content_type_nosniff.then_some("nosniff")),
        ("custom_browser_xss_value", "X-XSS-Protection", xss),
        ("content_security_policy", "Content-Security-Policy", settings.content_security_policy.as_deref()),
        (
            "content_security_policy_report_only",
            "Content-Security-Policy-Report-Only",
            settings.content_security_policy_report_only.as_deref(),
        ),
        ("referrer_policy", "Referrer-Policy", settings.referrer_policy.as_deref()),
        ("permissions_policy", "Permissions-Policy", settings.permissions_policy.as_deref()),
        ("public_key", "Public-Key-Pins", settings.public_key.as_deref()),
    ];
    let said = said.into_iter().filter_map(|(setting, name, value)| Some((setting, name, value.filter(|v| !v.is_empty())?)));
    said.map(|(setting, name, value)| checked(setting, name, value)).collect()
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Debug)]
struct Transport {
    value: String,
    always: bool,
    secure_fields: Vec<(String, String)>,
}

impl Transport {
    fn compile(settings: &Settings) -> Result<Option<Self>, String> {
        if settings.sts_seconds == 0 || settings.is_development {
            return Ok(None);
        }
        let mut value = format!("max-age={}", settings.sts_seconds);
        if settings.sts_include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if settings.sts_preload {
            value.push_str("; preload");
        }
        let secure_fields = settings.ssl_proxy_headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Some(Self { value, always: settings.force_sts_header, secure_fields }))
    }

    fn applies(&self, client: &Client, head: &RequestHead) -> bool {
        let said = |(name, value): &(String, String)| head.fields.get_str(name).is_some_and(|said| said == value);
        self.always || client.secure(head) || self.secure_fields.iter().any(said)
    }
}

/// `allowed_hosts`.
#[derive(Debug)]
struct Hosts {
    allowed: Vec<String>,
    fields: Vec<String>,
}

impl Hosts {
    fn compile(settings: &Settings) -> Result<Option<Self>, String> {
        if settings.allowed_hosts.is_empty() || settings.is_development {
            return Ok(None);
        }
        Ok(Some(Self { allowed: settings.allowed_hosts.clone(), fields: settings.hosts_proxy_headers.clone() }))
    }

    /// 500 for other hosts, as Traefik's users know it.
    fn check(&self, head: &RequestHead) -> Result<(), Answer> {
        let said = self.fields.iter().find_map(|name| head.fields.get_str(name)).unwrap_or_else(|| head.host());
        let bare = host_and_port(said).0;
        if self.allowed.iter().any(|host| host.eq_ignore_ascii_case(said) || host.eq_ignore_ascii_case(bare)) {
            return Ok(());
        }
        Err(pages::refusal(head, StatusCode::INTERNAL_SERVER_ERROR, "This host is not served here."))
    }
}

/// Who may read answers from other origins.
#[derive(Debug)]
struct Cors {
    origins: Vec<String>,
    expressions: Vec<Regex>,
    credentials: bool,
    methods: String,
    headers: String,
    expose: String,
    max_age: String,
    vary: bool,
}

impl Cors {
    fn compile(settings: &Settings) -> Result<Option<Self>, String> {
        let none = settings.access_control_allow_origin_list.is_empty()
            && settings.access_control_allow_origin_list_regex.is_empty()
            && settings.access_control_allow_methods.is_empty()
            && settings.access_control_allow_headers.is_empty()
            && settings.access_control_expose_headers.is_empty()
            && settings.access_control_max_age == 0
            && !settings.access_control_allow_credentials
            && !settings.add_vary_header;
        if none {
            return Ok(None);
        }
        let joined = |setting: &str, list: &[String]| {
            let value = list.join(",");
            checked(setting, "Access-Control", &value).map(|_| value)
        };
        let regexes = &settings.access_control_allow_origin_list_regex;
        let regexes = regexes.iter().map(|text| expression("access_control_allow_origin_list_regex", text));
        joined("access_control_allow_origin_list", &settings.access_control_allow_origin_list)?;
        Ok(Some(Self {
            origins: settings.access_control_allow_origin_list.clone(),
            expressions: regexes.collect::<Result<_, _>>()?,
            credentials: settings.access_control_allow_credentials,
            methods: joined("access_control_allow_methods", &settings.access_control_allow_methods)?,
            headers: joined("access_control_allow_headers", &settings.access_control_allow_headers)?,
            expose: joined("access_control_expose_headers", &settings.access_control_expose_headers)?,
            max_age: settings.access_control_max_age.to_string(),
            vary: settings.add_vary_header,
        }))
    }

    /// The value of `Access-Control-Allow-Origin`.
    fn allowed<'a>(&'a self, origin: &'a [u8]) -> Option<&'a [u8]> {
        let listed = self.origins.iter().find(|listed| *listed == "*" || listed.as_bytes() == origin);
        let by_expression =
            || std::str::from_utf8(origin).is_ok_and(|text| self.expressions.iter().any(|regex| regex.is_match(text)));
        match listed {
            Some(listed) => Some(listed.as_bytes()),
            None => by_expression().then_some(origin),
        }
    }

    /// The answer to a preflight, if the request is one.
    fn preflight(&self, head: &RequestHead) -> Option<Answer> {
        if head.method != Method::OPTIONS || !head.fields.contains("Access-Control-Request-Method") {
            return None;
        }
        let origin = head.fields.get_known(Known::Origin)?;
        let mut answer = Answer::empty(StatusCode::OK);
        let allowed = self.allowed(origin).map(<[u8]>::to_vec);
        let said = [
            ("Access-Control-Allow-Credentials", self.credentials.then_some(&b"true"[..])),
            ("Access-Control-Allow-Headers", Some(self.headers.as_bytes())),
            ("Access-Control-Allow-Methods", Some(self.methods.as_bytes())),
            ("Access-Control-Allow-Origin", allowed.as_deref()),
            ("Access-Control-Max-Age", Some(self.max_age.as_bytes())),
        ];
        set_all(&said, &mut answer.head.fields);
        self.add_vary(&mut answer.head.fields);
        Some(answer)
    }

    fn response(&self, origin: Option<&[u8]>, fields: &mut Fields) {
        let said = [
            ("Access-Control-Allow-Origin", self.allowed(origin.unwrap_or_default())),
            ("Access-Control-Allow-Credentials", self.credentials.then_some(&b"true"[..])),
            ("Access-Control-Expose-Headers", Some(self.expose.as_bytes())),
        ];
        set_all(&said, fields);
        self.add_vary(fields);
    }

    fn add_vary(&self, fields: &mut Fields) {
        if self.vary {
            add_vary(fields, "Origin");
        }
    }
}

/// Sets those that have a value.
fn set_all(said: &[(&str, Option<&[u8]>)], fields: &mut Fields) {
    for (name, value) in said {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            set(fields, name, value);
        }
    }
}

/// Adds a name to `Vary`, unless it is there, or everything.
pub(crate) fn add_vary(fields: &mut Fields, name: &str) {
    if fields.has_token(Known::Vary, name) || fields.has_token(Known::Vary, "*") {
        return;
    }
    let mut value: Vec<u8> = fields.get_all_known(Known::Vary).collect::<Vec<_>>().join(&b", "[..]);
    if !value.is_empty() {
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(name.as_bytes());
    put(fields, Known::Vary, value);
}

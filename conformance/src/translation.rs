//! Traefik's middleware settings, in Go's names, as the settings of our table.

use std::time::Duration;

use coracle_proxy_table::Middleware;
use serde_json::{Map, Value, json};

/// Traefik's name of a kind, and ours.
const KINDS: &[(&str, &str)] = &[
    ("addprefix", "add-prefix"),
    ("basicauth", "basic-auth"),
    ("buffering", "body-limit"),
    ("circuitbreaker", "circuit-breaker"),
    ("compress", "compress"),
    ("errors", "error-pages"),
    ("forwardauth", "forward-auth"),
    ("headers", "headers"),
    ("inflightreq", "in-flight-limit"),
    ("ipallowlist", "ip-allow-list"),
    ("ipwhitelist", "ip-allow-list"),
    ("ratelimit", "rate-limit"),
    ("redirectregex", "redirect-regex"),
    ("redirectscheme", "redirect-scheme"),
    ("replacepath", "replace-path"),
    ("replacepathregex", "replace-path-regex"),
    ("retry", "retry"),
    ("stripprefix", "strip-prefix"),
    ("stripprefixregex", "strip-prefix-regex"),
];

/// A middleware of a table; nothing if the kind is unknown. `name` is `kind` or `kind.aspect`.
pub(crate) fn middleware(name: &str, config: &Value) -> Option<Value> {
    let kind = name.split('.').next().unwrap_or_default();
    let (_, kind) = KINDS.iter().find(|(theirs, _)| *theirs == kind)?;
    let flat = json!({ *kind: settings(kind, config) });
    if is_known(&flat) {
        return Some(flat);
    }
    // Some rows wrap the settings, under the name of the Go variable they came from.
    let wrapped = config.as_object().filter(|members| members.len() == 1).and_then(|members| members.values().next());
    let Some(inner) = wrapped.filter(|inner| inner.is_object()) else { return Some(flat) };
    let unwrapped = json!({ *kind: settings(kind, inner) });
    // Others have nothing but the headers to set.
    match name.split_once('.').map(|(_, aspect)| aspect) {
        Some("customrequestheaders") if !is_known(&unwrapped) => Some(json!({ *kind: { "custom_request_headers": inner } })),
        Some("customresponseheaders") if !is_known(&unwrapped) => Some(json!({ *kind: { "custom_response_headers": inner } })),
        _ => Some(unwrapped),
    }
}

fn is_known(middleware: &Value) -> bool {
    serde_json::from_value::<Middleware>(middleware.clone()).is_ok()
}

fn settings(kind: &str, config: &Value) -> Value {
    let members = config.as_object().cloned().unwrap_or_default();
    let setting = |(name, value): (String, Value)| translated(kind, &snake_case(&name), value);
    Value::Object(members.into_iter().filter(|(_, value)| !value.is_null()).map(setting).collect::<Map<_, _>>())
}

fn translated(kind: &str, name: &str, value: Value) -> (String, Value) {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    match (kind, name) {
        ("redirect-scheme", "port") => (name.to_owned(), number(&value).map_or(value, Value::from)),
        ("body-limit", "max_request_body_bytes") => ("max_bytes".to_owned(), value),
        ("headers", "custom_headers") => ("custom_request_headers".to_owned(), value),
        (_, "period" | "initial_interval" | "check_period" | "fallback_duration" | "recovery_duration" | "timeout") => {
            (format!("{name}_ms"), milliseconds(&value).map_or(value, Value::from))
        }
        (_, "ip_strategy" | "source_criterion") => (name.to_owned(), settings(kind, &value)),
        _ => (name.to_owned(), value),
    }
}

/// Go's durations: nanoseconds, or a text as `1m30s`.
fn milliseconds(value: &Value) -> Option<u64> {
    if let Some(nanoseconds) = value.as_u64() {
        return u64::try_from(Duration::from_nanos(nanoseconds).as_millis()).ok();
    }
    let (mut total, mut rest) = (0.0, value.as_str()?);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let factor = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" | "" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = next;
    }
    Some(total as u64)
}

/// `STSSeconds` and `stsSeconds` as `sts_seconds`.
fn snake_case(name: &str) -> String {
    // Plurals and versions of acronyms, which no rule of capitals finds.
    let name = name.replace("IPs", "Ips").replace("IPv6", "Ipv6");
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_small = at > 0 && (letters[at - 1].is_ascii_lowercase() || letters[at - 1].is_ascii_digit());
        let before_small = at > 0 && letters[at - 1] != '_' && letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_small || before_small) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[test]
fn names_of_go_become_names_of_tables() {
    for (go, ours) in [
        ("SourceRange", "source_range"),
        ("sourceRange", "source_range"),
        ("STSSeconds", "sts_seconds"),
        ("STSIncludeSubdomains", "sts_include_subdomains"),
        ("ExcludedIPs", "excluded_ips"),
        ("IPStrategy", "ip_strategy"),
        ("IPv6Subnet", "ipv6_subnet"),
        ("SSLProxyHeaders", "ssl_proxy_headers"),
        ("BrowserXSSFilter", "browser_xss_filter"),
        ("AccessControlAllowOriginListRegex", "access_control_allow_origin_list_regex"),
    ] {
        assert_eq!(snake_case(go), ours);
    }
    assert_eq!(milliseconds(&json!("1m30s")), Some(90_000));
    assert_eq!(milliseconds(&json!(1_000_000)), Some(1));
}

#[test]
fn settings_are_found_whether_they_are_wrapped_or_not() {
    let flat = middleware("redirectscheme", &json!({ "Scheme": "https", "Port": "8443" }));
    let wrapped = middleware("redirectscheme", &json!({ "config": { "Scheme": "https", "Port": "8443" } }));
    assert_eq!(flat, wrapped);
    assert_eq!(flat, Some(json!({ "redirect-scheme": { "scheme": "https", "port": 8443 } })));
    let headers = json!({ "CustomRequestHeaders": { "X-A": "b" } });
    assert_eq!(middleware("headers.any", &headers), Some(json!({ "headers": { "custom_request_headers": { "X-A": "b" } } })));
    let bare = middleware("headers.customresponseheaders", &json!({ "config": { "Testing": "foo" } }));
    assert_eq!(bare, Some(json!({ "headers": { "custom_response_headers": { "Testing": "foo" } } })));
    assert_eq!(middleware("nobody-knows", &json!({})), None);
}

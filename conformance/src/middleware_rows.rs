//! Rows about middlewares, and about what Traefik's entry points do with every request.

use coracle_proxy_table::Dialect;
use serde_json::Value;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cases::{Row, is_set, text, texts};
use crate::expectation::{all_fields, expected_values, field, same_url};
use crate::report::Verdict;
use crate::request::{Request, SOMEBODY, address, sendable};
use crate::subject::{Setting, Subjects, Wanted};
use crate::translation;
use crate::upstream::Seen;
use crate::wire::Answer;

/// By which rows say that a configuration is to be refused.
const REFUSALS: &[&str] = &["config_error", "errorExpected", "expectedError", "expectError", "expectsError", "error"];
/// By which they say what is expected otherwise. A row that expects something else cannot pass: nobody looks at it.
const EXPECTATIONS: &[&str] = &[
    "expected",
    "expectedHeader",
    "expectedHeaders",
    "expectedHost",
    "expectedPath",
    "expectedRawPath",
    "expectedRequestURI",
    "expectedStatus",
    "expectedStatusCode",
    "expectedURL",
    // What a URL within Traefik has for its host says nothing that an upstream could see.
    "expectedURLHost",
    "headers",
    "location",
    "note",
    "status",
    "upstream_sees",
    "www_authenticate",
];
/// By which they describe requests.
const REQUESTS: &[&str] = &[
    "addSchemeHeaders",
    "basic",
    "headers",
    "host",
    "incomingHeaders",
    "method",
    "notAppendXForwardedFor",
    "path",
    "remoteAddr",
    "reqHeaders",
    "requestHeaders",
    "secured",
    "tls",
    "url",
    "websocket",
];

/// What is asked when a row does not say.
const SOMEWHERE: &str = "http://localhost/";

pub(crate) async fn verdict(row: &Row, subjects: &mut Subjects) -> Verdict {
    let name = text(row, "mw").ok_or("the row names no middleware")?;
    understood(&row["expect"], EXPECTATIONS)?;
    understood(&row["request"], REQUESTS)?;
    let request = request(row, name)?;
    let setting = Setting { tls: request.url.tls, ..setting(row, name)? };
    subjects.upstreams.answer_with(if name.starts_with("headers") { &[("Foo", "bar")] } else { &[] });
    let route = route(row, name)?;
    let name_over_tls = request.url.tls.then(|| request.url.host());
    let published = subjects.publish(&setting, &[route], name_over_tls).await.map_err(|error| format!("{error:#}"))?;
    match (wants_refusal(row), published) {
        (true, Err(refused)) if (400..500).contains(&refused.status) => return Ok(()),
        (true, Err(refused)) => return Err(format!("expected a refusal, got status {}: {}", refused.status, refused.why)),
        (true, Ok(())) => return Err("expected the configuration to be refused, but it was taken".to_owned()),
        (false, Err(refused)) => return Err(format!("the configuration was refused: {}", refused.why)),
        (false, Ok(())) => {}
    }
    let answer = subjects.ask(&setting, &request).await;
    subjects.upstreams.answer_with(&[]);
    judge(row, name, &request, &answer.map_err(|error| format!("{error:#}"))?)
}

fn wants_refusal(row: &Row) -> bool {
    REFUSALS.iter().any(|word| is_set(&row["expect"], word) || is_set(&row["request"], word) || is_set(row, word))
}

fn understood(part: &Value, known: &[&str]) -> Verdict {
    let mut keys = part.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let unknown = keys.find(|key| !known.contains(key) && !REFUSALS.contains(key));
    unknown.map_or(Ok(()), |key| Err(format!("nothing is known here of {key:?}")))
}

/// How the proxy is started for a row.
fn setting(row: &Row, name: &str) -> Result<Setting, String> {
    let config = &row["config"];
    let mut setting = match name {
        "(entrypoint) forwarded headers trust" if is_set(config, "insecure") => Setting::believing_everybody(),
        "(entrypoint) forwarded headers trust" => Setting { trusted: texts(&config["trustedIps"]), ..Setting::default() },
        "(entrypoint) Connection header" => {
            Setting { connection_fields: texts(&config["connectionHeaders"]), ..Setting::default() }
        }
        "(entrypoint) encoded characters" => {
            let config = config.get("config").unwrap_or(config);
            let allowed = config.as_object().into_iter().flatten().filter(|(_, value)| value.as_bool() == Some(true));
            let named = allowed.map(|(key, _)| encoded_character(key)).collect::<Result<_, _>>()?;
            Setting { encoded_characters: Some(named), ..Setting::default() }
        }
        unknown if unknown.starts_with('(') => return Err(format!("nothing is known here of {unknown}")),
        // What a client says about the connection it has to another proxy counts, as it does in Traefik's own tests.
        _ => Setting::believing_everybody(),
    };
    setting.scheme_fields = is_set(&row["request"], "addSchemeHeaders") || is_set(config, "addSchemeHeaders");
    // What a proxy calls itself is what the row's client calls it, where the row is about that.
    if row["expect"]["expectedHeaders"].get("X-Forwarded-Server").is_some() {
        setting.server = text(&row["request"], "host").map(str::to_owned);
    }
    setting.append_peer = !is_set(config, "notAppendXForwardedFor") && !is_set(&row["request"], "notAppendXForwardedFor");
    Ok(setting)
}

/// `AllowEncodedSlash` as `slash`.
fn encoded_character(key: &str) -> Result<String, String> {
    Ok(match key.strip_prefix("AllowEncoded") {
        Some("Slash") => "slash",
        Some("BackSlash" | "Backslash") => "backslash",
        Some("NullCharacter" | "Null") => "nul",
        Some("Semicolon" | "SemiColon") => "semicolon",
        Some("Percent") => "percent",
        Some("QuestionMark") => "question-mark",
        Some("Hash") => "hash",
        _ => return Err(format!("nothing is known here of {key}")),
    }
    .to_owned())
}

/// The request of a row, in all the ways in which rows describe one.
fn request(row: &Row, name: &str) -> Result<Request, String> {
    let told = &row["request"];
    let websocket = is_set(told, "websocket");
    let usual = if name.starts_with("headers") { "http://example.org/foo" } else { SOMEWHERE };
    let is_preflight = told["requestHeaders"].get("Access-Control-Request-Method").is_some();
    let method = text(told, "method").unwrap_or(if is_preflight { "OPTIONS" } else { "GET" });
    let mut request = Request::new(method, text(told, "url").unwrap_or(usual));
    request.url.tls |= is_set(told, "secured") || is_set(told, "tls");
    if let Some(path) = text(told, "path") {
        request.url.target = sendable(path);
    }
    if let Some(host) = text(told, "host") {
        host.clone_into(&mut request.url.authority);
    }
    for key in ["headers", "incomingHeaders", "reqHeaders", "requestHeaders"] {
        for (name, value) in told[key].as_object().into_iter().flatten() {
            for value in expected_values(value) {
                request = request.with(name, value);
            }
        }
    }
    if name == "headers.customrequestheaders" && request.fields.is_empty() {
        request = request.with("Foo", "bar");
    }
    if let (Some(user), Some(password)) = (told["basic"][0].as_str(), told["basic"][1].as_str()) {
        request = request.with("Authorization", &format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    }
    if websocket {
        request = request.with("Connection", "Upgrade").with("Upgrade", "websocket");
        request = request.with("Sec-WebSocket-Version", "13").with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    if let Some(client) = text(told, "remoteAddr").filter(|client| !client.is_empty()) {
        // Whoever connects has an address; where the case has none, it is that of somebody nobody names.
        request.client = address(client).unwrap_or(SOMEBODY);
    }
    Ok(request)
}

fn route(row: &Row, name: &str) -> Result<Wanted, String> {
    let mut route = Wanted::new("route", "PathPrefix(`/`)", Dialect::V3);
    if !name.starts_with('(') {
        let middleware = translation::middleware(name, &row["config"]);
        route.middlewares = vec![middleware.ok_or_else(|| format!("nothing is known here of {name}"))?];
    }
    Ok(route)
}

fn judge(row: &Row, name: &str, request: &Request, answer: &Answer) -> Verdict {
    let expect = &row["expect"];
    status(expect, answer)?;
    location(expect, answer)?;
    if let Some(fields) = expect.get("headers").filter(|fields| fields.is_object()) {
        all_fields(&answer.fields, fields)?;
    }
    if let Some(challenge) = text(expect, "www_authenticate") {
        field(&answer.fields, "WWW-Authenticate", &[challenge])?;
    }
    let seen = answer.seen();
    if let Some(fields) = expect.get("upstream_sees") {
        all_fields(&upstream(seen.as_ref(), answer)?.fields, fields)?;
    }
    match name {
        "(entrypoint) forwarded headers trust" => forwarded(expect, request, upstream(seen.as_ref(), answer)?),
        "(entrypoint) Connection header" => connection(expect, request, upstream(seen.as_ref(), answer)?),
        _ if name.starts_with("headers") => headers(row, name, seen.as_ref(), answer),
        _ => path(expect, name, seen.as_ref()),
    }
}

fn upstream<'a>(seen: Option<&'a Seen>, answer: &Answer) -> Result<&'a Seen, String> {
    seen.ok_or_else(|| format!("nothing reached the upstream; the client got {}: {}", answer.status, answer.body))
}

fn status(expect: &Value, answer: &Answer) -> Verdict {
    let keys = ["expectedStatus", "expectedStatusCode", "status", "expected"];
    let Some(expected) = keys.iter().find_map(|key| expect[*key].as_u64()) else { return Ok(()) };
    let got = u64::from(answer.status);
    if got == expected { Ok(()) } else { Err(format!("expected status {expected}, got {got}: {}", first_line(&answer.body))) }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Where the client is sent. Rows name a URL beside statuses too that send it nowhere; it means nothing there.
fn location(expect: &Value, answer: &Answer) -> Verdict {
    let Some(expected) = text(expect, "expectedURL").or(text(expect, "location")) else { return Ok(()) };
    if !(300..400).contains(&answer.status) {
        return Ok(());
    }
    match answer.values("Location")[..] {
        [got] if same_url(got, expected) => Ok(()),
        ref got => Err(format!("expected Location {expected:?}, got {got:?}")),
    }
}

/// What became of the path, and what the upstream is told of it.
fn path(expect: &Value, name: &str, seen: Option<&Seen>) -> Verdict {
    let expected = text(expect, "expectedPath");
    let Some(seen) = seen else {
        return expected.map_or(Ok(()), |path| Err(format!("expected path {path:?} upstream, but nothing reached it")));
    };
    let got = seen.path();
    if let Some(raw) = text(expect, "expectedRawPath").filter(|raw| !raw.is_empty()) {
        same("raw path", raw, got)?;
    }
    if let Some(target) = text(expect, "expectedRequestURI").filter(|target| !target.is_empty()) {
        same("target", target, &seen.target)?;
    }
    if let Some(path) = expected {
        let decoded = percent_encoding::percent_decode_str(got).decode_utf8_lossy();
        // No request can have an empty path.
        same("path", if path.is_empty() { "/" } else { path }, &decoded)?;
    }
    let told = match name {
        "stripprefix" | "stripprefixregex" => "X-Forwarded-Prefix",
        "replacepath" | "replacepathregex" => "X-Replaced-Path",
        _ => return Ok(()),
    };
    field(&seen.fields, told, &text(expect, "expectedHeader").into_iter().collect::<Vec<_>>())
}

fn same(what: &str, expected: &str, got: &str) -> Verdict {
    if expected == got { Ok(()) } else { Err(format!("expected {what} {expected:?} upstream, got {got:?}")) }
}

/// What an upstream is told about the client. Rows look at what is left of the client's own claims, before the client itself
/// is added to `X-Forwarded-For`; an upstream sees it there as well.
fn forwarded(expect: &Value, request: &Request, seen: &Seen) -> Verdict {
    let expected = expect.get("expectedHeaders").and_then(Value::as_object).ok_or("the row expects no headers")?;
    for (name, value) in expected {
        let name = header_name(name);
        let mut values = expected_values(value);
        let client = request.client.to_string();
        if name.eq_ignore_ascii_case("X-Forwarded-For") && field(&seen.fields, &name, &values).is_err() {
            values.push(&client);
        }
        field(&seen.fields, &name, &values)?;
    }
    Ok(())
}

/// What is left of a request whose `Connection` names some of its fields: what the row expects, and nothing else of it.
fn connection(expect: &Value, request: &Request, seen: &Seen) -> Verdict {
    let expected = &expect["expected"];
    if expected.is_object() {
        all_fields(&seen.fields, expected)?;
    }
    let is_expected = |name: &str| expected.as_object().is_some_and(|all| all.keys().any(|key| key.eq_ignore_ascii_case(name)));
    let sent = request.fields.iter().map(|(name, _)| name);
    sent.filter(|name| !is_expected(name)).try_for_each(|name| field(&seen.fields, name, &[]))
}

/// Some rows have a header by the name of Go's constant for it: `xForwardedProto`.
fn header_name(name: &str) -> String {
    if name.contains(['-', '_']) || !name.starts_with('x') {
        return name.to_owned();
    }
    let mut header = String::new();
    for (at, letter) in name.replace("IP", "Ip").replace("URI", "Uri").replace("TLS", "Tls").char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            header.push('-');
        }
        header.push(if at == 0 { letter.to_ascii_uppercase() } else { letter });
    }
    header
}

/// Fields that were set, changed or removed: of the request, or of the answer.
fn headers(row: &Row, name: &str, seen: Option<&Seen>, answer: &Answer) -> Verdict {
    let expect = &row["expect"];
    if let Some(host) = text(expect, "expectedHost") {
        field(&upstream(seen, answer)?.fields, "Host", &[host])?;
    }
    let Some(expected) = expect.get("expected").filter(|expected| expected.is_object()) else { return Ok(()) };
    let is_request = name.contains("request");
    let fields = if is_request { &upstream(seen, answer)?.fields } else { &answer.fields };
    all_fields(fields, expected)?;
    // What the settings speak of and the row does not expect is not there.
    let is_expected = |name: &str| expected.as_object().is_some_and(|all| all.keys().any(|key| key.eq_ignore_ascii_case(name)));
    let settings = translation::middleware(name, &row["config"]).unwrap_or_default();
    let custom = &settings["headers"][if is_request { "custom_request_headers" } else { "custom_response_headers" }];
    let spoken_of = custom.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let about_origins = fields.iter().map(|(name, _)| name.as_str());
    let about_origins = about_origins.filter(|name| !is_request && name.to_ascii_lowercase().starts_with("access-control-"));
    let mut unexpected = spoken_of.chain(about_origins).filter(|name| !name.eq_ignore_ascii_case("host") && !is_expected(name));
    unexpected.try_for_each(|name| field(fields, name, &[]))
}

#[test]
fn constants_of_go_become_headers() {
    assert_eq!(header_name("xForwardedScheme"), "X-Forwarded-Scheme");
    assert_eq!(header_name("xRealIP"), "X-Real-Ip");
    assert_eq!(header_name("X_forwarded_for"), "X_forwarded_for");
    assert_eq!(header_name("X-Forwarded-For"), "X-Forwarded-For");
}

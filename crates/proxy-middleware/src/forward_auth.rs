//! Asks another service whether a request may pass.

use std::time::Duration;

use coracle_proxy_http::{Fields, Known, RequestHead, ResponseHead};
use coracle_proxy_table::{AuthTls, ForwardAuth as Settings};
use http::{HeaderName, Method, StatusCode};
use regex::Regex;

use crate::answer::{Answer, put};
use crate::client::Client;
use crate::fetch::{Fetch, FetchedResponse};
use crate::headers::is_framing;
use crate::{expression, pages, url, wrong};

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct ForwardAuth {
    address: String,
    trust: bool,
    /// Fields of its answer that go into the request.
    copied: Vec<String>,
    copied_expression: Option<Regex>,
    /// The request's fields that it sees; empty for all.
    shown: Vec<String>,
    cookies: Vec<String>,
    keep_location: bool,
    keep_method: bool,
    timeout: Duration,
    tls: AuthTls,
}

/// `Set-Cookie` values for the target's answer.
pub(crate) type Cookies = Vec<Vec<u8>>;

impl ForwardAuth {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        let origin = origin(&settings.address).filter(|_| url::is_reference(&settings.address));
        if origin.is_none_or(|(scheme, host)| !["http", "https"].contains(&scheme) || host.is_empty() || host.contains('@')) {
            return Err(wrong("address", "must be a URL that begins with http:// or https:// and has no user in it"));
        }
        let AuthTls { cert_file, key_file, .. } = &settings.tls;
        if cert_file.is_some() != key_file.is_some() {
            return Err(wrong("tls", "cert_file and key_file stand together"));
        }
        if settings.tls != AuthTls::default() && !settings.address.get(..6).is_some_and(|it| it.eq_ignore_ascii_case("https:")) {
            return Err(wrong("tls", "has no effect: the address does not begin with https://"));
        }
        if settings.timeout_ms == 0 {
            return Err(wrong("timeout_ms", "must be at least 1"));
        }
        let mut copied = names("auth_response_headers", &settings.auth_response_headers)?;
        copied.extend(names("header_field", settings.header_field.as_slice())?);
        if let Some(framing) = copied.iter().find(|name| is_framing(name) || name.eq_ignore_ascii_case("host")) {
            return Err(wrong("auth_response_headers", format_args!("{framing} cannot be changed")));
        }
        let copied_expression = settings.auth_response_headers_regex.as_deref().filter(|text| !text.is_empty());
        // Names have no case.
        let copied_expression = copied_expression.map(|text| expression("auth_response_headers_regex", &format!("(?i){text}")));
        Ok(Self {
            address: settings.address.clone(),
            trust: settings.trust_forward_header,
            copied,
            copied_expression: copied_expression.transpose()?,
            shown: names("auth_request_headers", &settings.auth_request_headers)?,
            cookies: settings.add_auth_cookies_to_response.clone(),
            keep_location: settings.preserve_location_header,
            keep_method: settings.preserve_request_method,
            timeout: Duration::from_millis(settings.timeout_ms),
            tls: settings.tls.clone(),
        })
    }

    pub(crate) async fn request(
        &self,
        client: &Client,
        head: &mut RequestHead,
        fetch: &dyn Fetch,
    ) -> Result<Option<Cookies>, Answer> {
        let fields = self.question(client, head);
        let method = if self.keep_method { head.method.clone() } else { Method::GET };
        let asked = tokio::time::timeout(self.timeout, fetch.fetch(&self.address, &method, &fields, &self.tls)).await;
        match asked {
            Ok(Ok(response)) if response.status.is_success() => {
                self.copy(&response.fields, &mut head.fields);
                Ok(self.cookies_of(&response.fields))
            }
            Ok(Ok(response)) => Err(self.refusal(response)),
            Ok(Err(error)) => {
                tracing::warn!(address = self.address, %error, "an authentication service gave no answer");
                Err(pages::refusal(head, StatusCode::BAD_GATEWAY, "Whether you may come in could not be found out."))
            }
            Err(_late) => {
                tracing::warn!(address = self.address, "an authentication service took too long");
                Err(pages::refusal(head, StatusCode::GATEWAY_TIMEOUT, "Whether you may come in could not be found out in time."))
            }
        }
    }

    /// The request's fields without those of its connection and its body, and where it came from.
    fn question(&self, client: &Client, head: &RequestHead) -> Fields {
        let mut fields = Fields::new();
        for (known, name, value) in head.fields.iter_known() {
            let shown = self.shown.is_empty() || self.shown.iter().any(|shown| shown.eq_ignore_ascii_case(name));
            let private = is_framing(name)
                || matches!(known, Known::Host | Known::Expect | Known::Http2Settings | Known::ProxyAuthorization)
                || head.fields.has_token(Known::Connection, name)
                || is_forwarded(known);
            if shown && !private {
                append(&mut fields, name, value);
            }
        }
        let ip = client.ip.to_string();
        let proto = if client.secure(head) { "https" } else { "http" };
        let said = |known: Known| head.fields.get_known_str(known).filter(|_| self.trust);
        let before = said(Known::XForwardedFor).map(|before| format!("{before}, {}", client.peer.ip()));
        put(&mut fields, Known::XForwardedFor, before.as_ref().unwrap_or(&ip));
        put(&mut fields, Known::XForwardedMethod, said(Known::XForwardedMethod).unwrap_or(head.method.as_str()));
        put(&mut fields, Known::XForwardedProto, said(Known::XForwardedProto).unwrap_or(proto));
        put(&mut fields, Known::XForwardedHost, said(Known::XForwardedHost).unwrap_or(head.host()));
        put(&mut fields, Known::XForwardedUri, said(Known::XForwardedUri).unwrap_or(head.target()));
        fields
    }

    /// What the service writes goes in place of what the client wrote; what it does not write is removed all the same.
    fn copy(&self, answer: &Fields, request: &mut Fields) {
        for name in &self.copied {
            request.remove(name);
            for value in answer.get_all(name) {
                append(request, name, value);
            }
        }
        if let Some(expression) = &self.copied_expression {
            let copied = |name: &str| expression.is_match(name) && !is_framing(name) && !name.eq_ignore_ascii_case("host");
            request.retain(|name, _| !copied(name));
            for (name, value) in answer.iter().filter(|(name, _)| copied(name)) {
                append(request, name, value);
            }
        }
    }

    fn cookies_of(&self, answer: &Fields) -> Option<Cookies> {
        let wanted = |cookie: &&[u8]| self.cookies.iter().any(|name| cookie_name(cookie) == name.as_bytes());
        let cookies: Cookies = answer.get_all_known(Known::SetCookie).filter(wanted).map(<[u8]>::to_vec).collect();
        Some(cookies).filter(|cookies| !cookies.is_empty())
    }

    /// The service's answer, for the client.
    fn refusal(&self, response: FetchedResponse) -> Answer {
        let mut answer = Answer::new(response.status, "text/plain", response.body);
        answer.head.fields.remove_known(Known::ContentType);
        for (known, name, value) in response.fields.iter_known() {
            if known == Known::Location && !self.keep_location {
                let location = std::str::from_utf8(value).unwrap_or_default();
                append(&mut answer.head.fields, name, url::encode_url(&absolute(&self.address, location)).as_bytes());
            } else if !is_framing(name) && !response.fields.has_token(Known::Connection, name) {
                append(&mut answer.head.fields, name, value);
            }
        }
        answer
    }
}

/// Puts the cookies into an answer, in place of the target's own of the same names.
pub(crate) fn add_cookies(cookies: &Cookies, head: &mut ResponseHead) {
    let theirs = |value: &[u8]| cookies.iter().any(|cookie| cookie_name(cookie) == cookie_name(value));
    head.fields.retain_known(|known, _, value| known != Known::SetCookie || !theirs(value));
    for cookie in cookies {
        append(&mut head.fields, "Set-Cookie", cookie);
    }
}

/// Fields that say where a request came from: they are made anew.
fn is_forwarded(known: Known) -> bool {
    matches!(
        known,
        Known::XForwardedFor | Known::XForwardedMethod | Known::XForwardedProto | Known::XForwardedHost | Known::XForwardedUri
    )
}

fn cookie_name(cookie: &[u8]) -> &[u8] {
    cookie.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

fn append(fields: &mut Fields, name: &str, value: &[u8]) {
    if let Err(error) = fields.append(name, value) {
        tracing::debug!(name, %error, "a header field was left out");
    }
}

fn names(setting: &str, names: &[String]) -> Result<Vec<String>, String> {
    let bad = names.iter().find(|name| name.parse::<HeaderName>().is_err());
    bad.map_or_else(|| Ok(names.to_vec()), |name| Err(wrong(setting, format_args!("{name:?} is no name of a header field"))))
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((scheme, rest.split(['/', '?', '#']).next().unwrap_or_default()))
}

/// What a reference in an answer of `base` leads to (RFC 3986, section 5.2, without the removal of dot segments, which whoever
/// follows it does).
fn absolute(base: &str, reference: &str) -> String {
    let Some((scheme, authority)) = origin(base) else { return reference.to_owned() };
    let has_scheme = reference.split_once(':').is_some_and(|(scheme, _)| url::is_scheme(scheme));
    let path = base[scheme.len() + 3 + authority.len()..].split(['?', '#']).next().unwrap_or_default();
    match reference {
        _ if has_scheme => reference.to_owned(),
        _ if reference.starts_with("//") => format!("{scheme}:{reference}"),
        _ if reference.starts_with('/') => format!("{scheme}://{authority}{reference}"),
        _ if reference.is_empty() || reference.starts_with(['?', '#']) => format!("{scheme}://{authority}{path}{reference}"),
        _ => format!("{scheme}://{authority}{}/{reference}", path.rsplit_once('/').map_or("", |(directory, _)| directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_by_the_address() {
        for (base, reference, wanted) in [
            ("http://auth:9/check?a", "/login", "http://auth:9/login"),
            ("https://auth/a/check", "login?x", "https://auth/a/login?x"),
            ("https://auth", "login", "https://auth/login"),
            ("https://auth/check", "?x", "https://auth/check?x"),
            ("https://auth/check", "//other/x", "https://other/x"),
            ("https://auth/check", "https://else.example/x", "https://else.example/x"),
        ] {
            assert_eq!(absolute(base, reference), wanted);
        }
    }
}

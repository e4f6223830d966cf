//! Sends clients elsewhere: 302 and 301 for GET, 307 and 308 for other methods, which then keep their method and body.

use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::{CanonicalHost, RedirectRegex, RedirectScheme};
use http::{Method, StatusCode};
use regex::Regex;

use crate::answer::Answer;
use crate::client::{Client, host_and_port};
use crate::{expression, pages, url, wrong};

/// See [`RedirectRegex`].
#[derive(Debug)]
pub(crate) struct ByRegex {
    regex: Regex,
    replacement: String,
    permanent: bool,
}

impl ByRegex {
    pub(crate) fn compile(settings: &RedirectRegex) -> Result<Self, String> {
        Ok(Self {
            regex: expression("regex", &settings.regex)?,
            replacement: settings.replacement.clone(),
            permanent: settings.permanent,
        })
    }

    /// The URL that is matched has the port as the client wrote it, and the scheme of the connection.
    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        let asked = format!("{}://{}{}", scheme(client.tls), head.host(), target(head));
        if !self.regex.is_match(&asked) {
            return Ok(());
        }
        let elsewhere = self.regex.replace_all(&asked, &self.replacement);
        if elsewhere == asked {
            return Ok(());
        }
        if !url::is_reference(&elsewhere) {
            return Err(pages::refusal(head, StatusCode::BAD_GATEWAY, "The redirect of this address gives no URL."));
        }
        Err(redirect(head, &elsewhere, self.permanent))
    }
}

/// See [`RedirectScheme`].
#[derive(Debug)]
pub(crate) struct ByScheme {
    scheme: String,
    /// With a colon before it; empty for none.
    port: String,
    permanent: bool,
}

impl ByScheme {
    pub(crate) fn compile(settings: &RedirectScheme) -> Result<Self, String> {
        if !url::is_scheme(&settings.scheme) {
            return Err(wrong("scheme", "must be a scheme, as \"https\""));
        }
        let scheme = settings.scheme.to_ascii_lowercase();
        let usual = usual_port(&scheme);
        let port = settings.port.filter(|port| Some(*port) != usual).map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self { scheme, port, permanent: settings.permanent })
    }

    /// Compares whole URLs: a request by the right scheme but another port is sent on as well.
    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        let (host, port) = host_and_port(head.host());
        if host.is_empty() {
            // HTTP/1.0 without a host: there is no URL to send it to.
            return Ok(());
        }
        let came_by = scheme(client.secure(head));
        let usual = usual_port(came_by);
        let port = port.filter(|port| port.parse::<u16>().ok() != usual);
        let same_port = self.port.strip_prefix(':') == port;
        if came_by == self.scheme && same_port {
            return Ok(());
        }
        Err(redirect(head, &format!("{}://{host}{}{}", self.scheme, self.port, target(head)), self.permanent))
    }
}

/// See [`CanonicalHost`].
#[derive(Debug)]
pub(crate) struct ToHost {
    host: String,
    permanent: bool,
}

impl ToHost {
    pub(crate) fn compile(settings: &CanonicalHost) -> Result<Self, String> {
        let host = settings.host.to_ascii_lowercase();
        if host.is_empty() || !url::is_host(&host) || !host.is_ascii() {
            return Err(wrong("host", "must be a host name without scheme and port"));
        }
        Ok(Self { host, permanent: settings.permanent })
    }

    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        let (host, port) = host_and_port(head.host());
        if host.is_empty() || host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(&self.host) {
            return Ok(());
        }
        let scheme = scheme(client.secure(head));
        let port = port.filter(|port| port.parse::<u16>().ok() != usual_port(scheme));
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Err(redirect(head, &format!("{scheme}://{}{port}{}", self.host, target(head)), self.permanent))
    }
}

/// The target as it stands in a URL: `*` stands for the server as a whole.
fn target(head: &RequestHead) -> &str {
    if head.target().starts_with('/') { head.target() } else { "/" }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn redirect(head: &RequestHead, location: &str, permanent: bool) -> Answer {
    let status = match (permanent, head.method == Method::GET) {
        (true, true) => StatusCode::MOVED_PERMANENTLY,
        (true, false) => StatusCode::PERMANENT_REDIRECT,
        (false, true) => StatusCode::FOUND,
        (false, false) => StatusCode::TEMPORARY_REDIRECT,
    };
    let phrase = status.canonical_reason().unwrap_or_default();
    Answer::new(status, "text/plain; charset=utf-8", phrase).with(Known::Location, url::encode_url(location))
}

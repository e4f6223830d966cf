//! Requests as cases describe them, in the bytes that a careful client would send.

use std::net::{IpAddr, SocketAddr};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The client when a case names none (RFC 5737).
pub(crate) const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// What stands in no path (RFC 3986, section 3.3). What is encoded already stays.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'^')
    .add(b'#')
    .add(b'?');
/// What cannot be sent in a query at all. Clients send the rest as it is.
const NOT_IN_QUERIES: &AsciiSet = &CONTROLS.add(b' ').add(b'#');

/// A URL, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// With the port, if one is named.
    pub(crate) authority: String,
    /// Path and query, as they are sent.
    pub(crate) target: String,
}

impl Url {
    /// `scheme://authority/path?query`; of what is left out, the usual.
    pub(crate) fn parse(text: &str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        Self {
            tls: matches!(scheme.to_ascii_lowercase().as_str(), "https" | "wss"),
            authority: authority.rsplit('@').next().unwrap_or_default().to_owned(),
            target: sendable(target.split('#').next().unwrap_or_default()),
        }
    }

    /// The host without its port and brackets.
    pub(crate) fn host(&self) -> &str {
        match self.authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        }
    }
}

/// Path and query in the characters that go over the wire.
pub(crate) fn sendable(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut sent = utf8_percent_encode(if path.is_empty() { "/" } else { path }, NOT_IN_PATHS).to_string();
    if let Some(query) = query {
        sent.push('?');
        sent.extend(utf8_percent_encode(query, NOT_IN_QUERIES));
    }
    sent
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: Url,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) client: IpAddr,
}

impl Request {
    pub(crate) fn new(method: &str, url: &str) -> Self {
        Self { method: method.to_owned(), url: Url::parse(url), fields: Vec::new(), client: SOMEBODY }
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.url.target, self.url.authority);
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\r\n");
        }
        if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            text += "Content-Length: 0\r\n";
        }
        (text + "\r\n").into_bytes()
    }
}

/// An address as cases write it: with a port, without one, or nothing.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let bracketed = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    text.parse().or_else(|_not_bare| with_port()).ok().or_else(|| bracketed().ok())
}

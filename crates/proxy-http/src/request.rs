//! The head of a request.

use http::{Method, Version};

use crate::body_length::BodyLength;
use crate::error::{BadHost, BadTarget};
use crate::fields::Fields;
use crate::known::Known;
use crate::octet;

/// Which of the four forms the target came in (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`; [`RequestHead::target`] and [`RequestHead::host`] have its parts.
    Absolute {
        /// Whether the scheme was `https`.
        https: bool,
    },
    /// `host:port`, of CONNECT only. This is no forward proxy: whoever gets it answers 405.
    Authority,
    /// `*`, of OPTIONS only.
    Asterisk,
}

/// The head of a request. Made to be used again: see [`RequestHead::clear`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method. An extended CONNECT of HTTP/2 (RFC 8441) is a GET with an upgrade here.
    pub method: Method,
    /// The fields, `Host` among them: it is the only place where the host is kept.
    pub fields: Fields,
    version: Version,
    form: TargetForm,
    target: String,
    path_len: usize,
}

impl Default for RequestHead {
    /// `GET /` without fields.
    fn default() -> Self {
        Self {
            method: Method::GET,
            fields: Fields::new(),
            version: Version::HTTP_11,
            form: TargetForm::Origin,
            target: "/".to_owned(),
            path_len: 1,
        }
    }
}

/// A target longer than this is given back when the head is cleared, in bytes.
const KEPT_TARGET: usize = 4096;

impl RequestHead {
    /// A head with these parts, as of HTTP/1.1. An empty `host` leaves `Host` out.
    ///
    /// # Errors
    /// [`BadTarget`] if the target is not in origin form (or `*` with OPTIONS) or the host is no host.
    pub fn new(method: Method, target: &str, host: &str) -> Result<Self, BadTarget> {
        let mut head = Self { method, ..Self::default() };
        head.set_target(target)?;
        if !host.is_empty() {
            head.set_host(host).map_err(|BadHost| BadTarget)?;
        }
        Ok(head)
    }

    /// Back to `GET /` without fields; keeps the room.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.fields.clear();
        if self.target.capacity() > KEPT_TARGET {
            self.target = String::new();
        }
        self.put_target(Version::HTTP_11, TargetForm::Origin, "", "/");
    }

    /// The version it came in: HTTP/1.0, 1.1 or 2.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The form in which the target came.
    pub fn form(&self) -> TargetForm {
        self.form
    }

    /// The target in origin form, path and query, every byte as it came; `*`, or `host:port` for CONNECT.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The target without its query; not decoded.
    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// What follows the first `?`; not decoded.
    pub fn query(&self) -> Option<&str> {
        self.target.get(self.path_len + 1..)
    }

    /// Puts another target in origin form in place, or `*` for OPTIONS.
    ///
    /// # Errors
    /// [`BadTarget`] if it does not begin with `/`, has spaces, control characters, `#`, non-ASCII, or a `\` in its path.
    pub fn set_target(&mut self, target: &str) -> Result<(), BadTarget> {
        let form = match target.as_bytes() {
            [b'/', ..] if is_origin(target.as_bytes()) => TargetForm::Origin,
            b"*" if self.method == Method::OPTIONS => TargetForm::Asterisk,
            _ => return Err(BadTarget),
        };
        self.put_target(self.version, form, "", target);
        Ok(())
    }

    /// The authority asked for, with its port if one was given; empty if there is none (HTTP/1.0).
    pub fn host(&self) -> &str {
        self.fields.get_known_str(Known::Host).unwrap_or_default()
    }

    /// Puts another authority in place.
    ///
    /// # Errors
    /// [`BadHost`] if it is not `uri-host [ ":" port ]`.
    pub fn set_host(&mut self, host: &str) -> Result<(), BadHost> {
        if !octet::is_authority(host.as_bytes()) {
            return Err(BadHost);
        }
        self.fields.set_known(Known::Host, host).map_err(|_too_large| BadHost)
    }

    /// The protocol that the connection shall change to: there is exactly one `Upgrade`, `Connection` names it, the version
    /// is not HTTP/1.0, and it is not `h2c`, which would slip past everything that is decided per request.
    pub fn upgrade(&self) -> Option<&str> {
        let mut protocols = self.fields.get_all_known(Known::Upgrade);
        let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return None };
        let fits = self.version != Version::HTTP_10
            && !protocol.is_empty()
            && self.fields.has_token(Known::Connection, "upgrade")
            && !octet::list(protocol).any(|name| name.eq_ignore_ascii_case(b"h2c"));
        std::str::from_utf8(protocol).ok().filter(|_| fits)
    }

    /// Writes it as a request of HTTP/1.1 that can be read in one way only: the target in origin form, `Host` first (empty if
    /// there is none), then the other fields in their order, then what frames the body. Whatever the fields say about the
    /// body's length is left out.
    pub fn write_to(&self, out: &mut Vec<u8>, body: BodyLength) {
        let host = self.fields.get_known(Known::Host).unwrap_or_default();
        out.reserve(self.fields.written_len() + self.target.len() + 96);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
        self.fields.write_to(out, |known| !matches!(known, Known::Host | Known::ContentLength | Known::TransferEncoding));
        match body {
            BodyLength::None => (),
            BodyLength::Fixed(length) => write_length(length, out),
            // A request cannot end with its connection.
            BodyLength::Chunked | BodyLength::UntilClose => out.extend_from_slice(CHUNKED),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Puts a target in place that has been checked; `slash` comes before it.
    pub(crate) fn put_target(&mut self, version: Version, form: TargetForm, slash: &str, target: &str) {
        self.version = version;
        self.form = form;
        self.target.clear();
        self.target.push_str(slash);
        self.target.push_str(target);
        self.path_len = memchr::memchr(b'?', self.target.as_bytes()).unwrap_or(self.target.len());
    }
}

/// The only transfer coding that there is.
pub(crate) const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

pub(crate) fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    octet::write_decimal(length, out);
    out.extend_from_slice(b"\r\n");
}

/// Whether these bytes may stand in a path and query. `\` is a `/` to some, so it may not stand in a path; browsers send it
/// in queries.
pub(crate) fn is_origin(target: &[u8]) -> bool {
    octet::all(target, octet::TARGET) && memchr::memchr2(b'\\', b'?', target).is_none_or(|at| target[at] == b'?')
}

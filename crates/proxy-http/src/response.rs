//! The head of a response.

use http::{StatusCode, Version};

use crate::body_length::BodyLength;
use crate::fields::Fields;
use crate::known::Known;
use crate::octet;
use crate::request::{CHUNKED, write_length};

/// The head of a response. Made to be used again: see [`ResponseHead::clear`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub fields: Fields,
    version: Version,
    /// What came behind the status, where that is not the usual phrase.
    reason: Vec<u8>,
    /// Which status the reason belongs to.
    reason_of: StatusCode,
}

impl Default for ResponseHead {
    /// 200 without fields.
    fn default() -> Self {
        Self::new(StatusCode::OK)
    }
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: StatusCode) -> Self {
        Self { status, fields: Fields::new(), version: Version::HTTP_11, reason: Vec::new(), reason_of: status }
    }

    /// Back to 200 without fields; keeps the room.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.put_status(Version::HTTP_11, StatusCode::OK, b"OK");
    }

    /// The version it came in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The phrase behind the status, as it came or as is usual.
    pub fn reason(&self) -> &[u8] {
        if self.reason.is_empty() || self.reason_of != self.status { usual_reason(self.status) } else { &self.reason }
    }

    /// Writes it as a response of HTTP/1.1 with one frame only. The fields are written in their order, except for what they
    /// say about the body's length:
    ///
    /// * [`BodyLength::Fixed`] and [`BodyLength::Chunked`] write the one field that says so.
    /// * [`BodyLength::UntilClose`] writes none, and `keep_alive` counts as false.
    /// * [`BodyLength::None`] is for messages that end with their head: informational, 204, 304, and answers to HEAD. The
    ///   latter two keep a `Content-Length` that is a number, as it tells about what GET would have sent. A response that
    ///   merely has nothing to say is `Fixed(0)`.
    ///
    /// Without `keep_alive` the `Connection` field is replaced by `Connection: close` (not for informational ones). A client
    /// of HTTP/1.0 that is kept needs `Connection: keep-alive`, which the caller sets.
    pub fn write_to(&self, out: &mut Vec<u8>, body: BodyLength, keep_alive: bool) {
        let reason = self.reason();
        out.reserve(self.fields.written_len() + reason.len() + 96);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        let closes = !(self.status.is_informational() || keep_alive && body != BodyLength::UntilClose);
        self.fields.write_to(out, |known| match known {
            Known::ContentLength | Known::TransferEncoding => false,
            Known::Connection => !closes,
            _ => true,
        });
        match body {
            BodyLength::Fixed(length) => write_length(length, out),
            BodyLength::Chunked => out.extend_from_slice(CHUNKED),
            BodyLength::None => {
                if let Some(length) = self.told_length() {
                    write_length(length, out);
                }
            }
            BodyLength::UntilClose => (),
        }
        if closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The length that an answer to HEAD, or a 304, tells about what it does not bring.
    pub(crate) fn told_length(&self) -> Option<u64> {
        if self.status.is_informational() || self.status == StatusCode::NO_CONTENT {
            return None;
        }
        self.fields.get_known(Known::ContentLength).and_then(octet::decimal)
    }

    pub(crate) fn put_status(&mut self, version: Version, status: StatusCode, reason: &[u8]) {
        (self.version, self.status, self.reason_of) = (version, status, status);
        self.reason.clear();
        if reason != usual_reason(status) {
            self.reason.extend_from_slice(reason);
        }
    }
}

fn usual_reason(status: StatusCode) -> &'static [u8] {
    status.canonical_reason().unwrap_or_default().as_bytes()
}

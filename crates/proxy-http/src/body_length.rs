//! How long a body is, and how that is found out (RFC 9112, section 6.3).

use http::{Method, StatusCode, Version};

use crate::error::ParseError;
use crate::fields::Fields;
use crate::known::Known;
use crate::octet;

/// How the end of a message's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body, and can be none: the message ends with its head.
    None,
    /// So many bytes. A request with `Content-Length: 0` is this with 0.
    Fixed(u64),
    /// It is sent in chunks.
    Chunked,
    /// It ends when the connection does. Responses only.
    UntilClose,
}

impl BodyLength {
    /// Whether the message certainly has no byte of content.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Fixed(0))
    }
}

/// What the fields of a message say about its frame. Gathered in one pass.
#[derive(Default)]
pub(crate) struct Framing<'f> {
    hosts: usize,
    host: &'f [u8],
    lengths: usize,
    length: &'f [u8],
    codings: usize,
    coding: &'f [u8],
    expectations: usize,
    expectation: &'f [u8],
    close: bool,
    keep_alive: bool,
    /// A name that CGI-like readers take for a framing field.
    lookalike: bool,
}

impl<'f> Framing<'f> {
    pub(crate) fn of(fields: &'f Fields) -> Self {
        let mut framing = Self::default();
        for (known, name, value) in fields.entries() {
            match known {
                Known::Host => (framing.hosts, framing.host) = (framing.hosts + 1, value),
                Known::ContentLength => (framing.lengths, framing.length) = (framing.lengths + 1, value),
                Known::TransferEncoding => (framing.codings, framing.coding) = (framing.codings + 1, value),
                Known::Expect => (framing.expectations, framing.expectation) = (framing.expectations + 1, value),
                Known::Connection => {
                    for option in octet::list(value) {
                        framing.close |= option.eq_ignore_ascii_case(b"close");
                        framing.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                Known::Other => framing.lookalike |= is_lookalike(name),
                _ => (),
            }
        }
        framing
    }

    /// One `Host` of the right form; HTTP/1.0 may do without.
    pub(crate) fn check_host(&self, version: Version) -> Result<(), ParseError> {
        match self.hosts {
            0 if version == Version::HTTP_10 => Ok(()),
            // Empty is what a client sends that has no authority to ask for (RFC 9112, section 3.2).
            1 if self.host.is_empty() || octet::is_authority(self.host) => Ok(()),
            _ => Err(ParseError::Host),
        }
    }

    /// Whether the client waits for `100 Continue` before it sends the body. HTTP/1.0 does not know of it.
    pub(crate) fn expects_continue(&self, version: Version) -> Result<bool, ParseError> {
        match self.expectations {
            0 => Ok(false),
            // Readers disagree about what `Expect: x, 100-continue` makes them wait for.
            1 if self.expectation.eq_ignore_ascii_case(b"100-continue") => Ok(version != Version::HTTP_10),
            _ => Err(ParseError::Expectation),
        }
    }

    /// Whether the connection may be used again, as far as the sender is concerned.
    pub(crate) fn persists(&self, version: Version) -> bool {
        !self.close && (version != Version::HTTP_10 || self.keep_alive)
    }

    /// Whether a body in chunks follows.
    fn is_chunked(&self, version: Version) -> Result<bool, ParseError> {
        match self.codings {
            0 => Ok(false),
            _ if self.lengths > 0 => Err(ParseError::Framing),
            1 if version == Version::HTTP_10 => Err(ParseError::TransferEncoding),
            1 if self.coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
            1 => Err(refused_coding(self.coding)),
            _ => Err(ParseError::TransferEncoding),
        }
    }

    /// The value of the only `Content-Length`.
    pub(crate) fn length(&self) -> Result<Option<u64>, ParseError> {
        match self.lengths {
            0 => Ok(None),
            // A list of equal numbers is refused as well: whoever repeats it may not mean it.
            1 => octet::decimal(self.length).map(Some).ok_or(ParseError::ContentLength),
            _ => Err(ParseError::ContentLength),
        }
    }

    /// Whether a field is there that some take for one that frames.
    pub(crate) fn has_lookalike(&self) -> bool {
        self.lookalike
    }

    /// The length of a request's body.
    pub(crate) fn of_request(&self, version: Version) -> Result<BodyLength, ParseError> {
        if self.lookalike {
            return Err(ParseError::Framing);
        }
        if self.is_chunked(version)? {
            return Ok(BodyLength::Chunked);
        }
        Ok(self.length()?.map_or(BodyLength::None, BodyLength::Fixed))
    }

    /// The length of a response's body, and whether its connection may be used again.
    pub(crate) fn of_response(
        &self,
        version: Version,
        status: StatusCode,
        asked: &Method,
    ) -> Result<(BodyLength, bool), ParseError> {
        let persists = self.persists(version);
        let connects = *asked == Method::CONNECT && status.is_success();
        if status.is_informational() || status == StatusCode::NO_CONTENT || connects {
            // It has no body by definition. Where it claims one, nobody knows what follows.
            let claims = self.codings > 0 || self.length()?.is_some_and(|length| length > 0);
            return Ok((BodyLength::None, persists && !claims));
        }
        let chunked = self.is_chunked(version)?;
        let length = self.length()?;
        if *asked == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((BodyLength::None, persists));
        }
        Ok(match length {
            _ if chunked => (BodyLength::Chunked, persists),
            Some(length) => (BodyLength::Fixed(length), persists),
            None => (BodyLength::UntilClose, false),
        })
    }
}

/// Whether everything that speaks CGI or WSGI takes this for a framing field. (The names that differ from it in other
/// bytes are other names to everybody.)
pub(crate) fn is_lookalike(name: &[u8]) -> bool {
    match name.len() {
        14 => name.eq_ignore_ascii_case(b"content_length"),
        17 => name.eq_ignore_ascii_case(b"transfer_encoding"),
        _ => false,
    }
}

/// A coding that exists is not implemented; anything else is malformed.
fn refused_coding(value: &[u8]) -> ParseError {
    let mut other = false;
    for coding in value.split(|b| *b == b',').map(octet::trim) {
        if !octet::is_token(coding) {
            return ParseError::TransferEncoding;
        }
        other |= !coding.eq_ignore_ascii_case(b"chunked");
    }
    if other { ParseError::Coding } else { ParseError::TransferEncoding }
}

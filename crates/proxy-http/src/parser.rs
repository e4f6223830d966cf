//! The strict reader of heads (RFC 9112, sections 2 to 6).
//!
//! Nothing is repaired: what two readers could understand differently is refused, even where a specification lets a
//! recipient be lenient. That is: a line end other than CRLF, folded lines, white space before a colon, control characters,
//! framing that is said twice. What is tolerated: one empty line before a request (RFC 9112, section 2.2), a response without
//! the space before its empty reason phrase, any bytes but control characters in a reason phrase and in field values; a
//! `Content_Length` or `Transfer_Encoding` in a response, which is dropped.

use std::sync::LazyLock;

use http::{Method, StatusCode, Version};
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memchr2};

use crate::body_length::{BodyLength, Framing, is_lookalike};
use crate::error::ParseError;
use crate::fields::Fields;
use crate::known::Known;
use crate::octet;
use crate::request::{RequestHead, TargetForm, is_origin};
use crate::response::ResponseHead;

/// How much of a head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the first line, without its end.
    pub line: usize,
    /// Bytes of the whole head, its end included.
    pub head: usize,
    /// Number of fields.
    pub fields: usize,
}

impl Default for HeadLimits {
    /// Lines of 8 kB, heads of 32 kB, 100 fields.
    fn default() -> Self {
        Self { line: 8 * 1024, head: 32 * 1024, fields: 100 }
    }
}

/// What a head says about its message and connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// How many bytes of the buffer the head takes; the body begins there.
    pub head_len: usize,
    /// Where the body ends.
    pub body: BodyLength,
    /// Whether the sender lets the connection be used for another message after this one.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// What a head ends with.
const EMPTY_LINE: &[u8] = b"\r\n\r\n";
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EMPTY_LINE));

/// Where the search for the end of a head has come to. One per message, so that a head that comes byte by byte is looked
/// through once.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadSearch {
    seen: usize,
    lines: bool,
}

impl HeadSearch {
    /// The length of the head that `buf` begins with, its empty line included; `None` if more bytes are needed. `buf` holds
    /// all bytes of earlier calls and those that came since.
    ///
    /// # Errors
    /// [`ParseError`] if no further byte could make a head of it: it is too large, or a line ends with LF alone.
    pub fn find(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Option<usize>, ParseError> {
        let seen = self.seen.min(buf.len());
        let from = seen.saturating_sub(EMPTY_LINE.len() - 1);
        match END.find(&buf[from..]) {
            Some(at) if from + at + EMPTY_LINE.len() <= limits.head => return Ok(Some(from + at + EMPTY_LINE.len())),
            Some(_) => return Err(ParseError::TooLarge),
            None => (),
        }
        for lf in memchr_iter(b'\n', &buf[seen..]).map(|at| seen + at) {
            if lf == 0 || buf[lf - 1] != b'\r' {
                return Err(ParseError::LineEnd);
            }
            // An empty line may come before the first one.
            self.lines |= lf > 1;
        }
        self.seen = buf.len();
        if !self.lines && buf.len() > limits.line + 3 {
            return Err(ParseError::TargetTooLong);
        }
        if buf.len() > limits.head {
            return Err(ParseError::TooLarge);
        }
        match buf.first() {
            Some(first) if !octet::is(*first, octet::TOKEN) && *first != b'\r' => Err(ParseError::RequestLine),
            _ => Ok(None),
        }
    }
}

/// Reads the head of a request that `buf` begins with; `None` if more bytes are needed. What is in `head` is replaced; after
/// an error it is unspecified.
///
/// Looks for the end from the beginning every time: a connection whose head may come in pieces keeps a [`HeadSearch`] and
/// calls [`parse_request_head`].
///
/// # Errors
/// [`ParseError`]; the connection is to be closed after the answer.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Option<Parsed>, ParseError> {
    match HeadSearch::default().find(buf, limits)? {
        Some(end) => parse_request_head(&buf[..end], limits, head).map(Some),
        None => Ok(None),
    }
}

/// Reads the head of a request that is exactly `bytes`, as [`HeadSearch::find`] found it.
///
/// # Errors
/// As [`parse_request`].
pub fn parse_request_head(bytes: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Parsed, ParseError> {
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let (line, section) = first_line(&bytes[skipped..], ParseError::RequestLine)?;
    if line.len() > limits.line {
        return Err(ParseError::TargetTooLong);
    }
    let authority = read_request_line(line, head)?;
    read_fields(section, limits.fields, &mut head.fields)?;
    let version = head.version();
    let framing = Framing::of(&head.fields);
    framing.check_host(version)?;
    let expects_continue = framing.expects_continue(version)?;
    let body = framing.of_request(version)?;
    let keep_alive = framing.persists(version);
    if let Some(authority) = authority {
        // It wins over the field, which is replaced by it (RFC 9112, section 3.2.2).
        head.fields.set_known(Known::Host, authority).map_err(|_too_large| ParseError::TooLarge)?;
    }
    Ok(Parsed { head_len: bytes.len(), body, keep_alive, expects_continue: expects_continue && !body.is_empty() })
}

/// Reads the head of a response to a request of this method; `None` if more bytes are needed. What is in `head` is replaced;
/// after an error it is unspecified.
///
/// # Errors
/// [`ParseError`]; the client is to be answered 502.
pub fn parse_response(
    buf: &[u8],
    request_method: &Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Option<Parsed>, ParseError> {
    match HeadSearch::default().find(buf, limits)? {
        Some(end) => parse_response_head(&buf[..end], request_method, limits, head).map(Some),
        None => Ok(None),
    }
}

/// Reads the head of a response that is exactly `bytes`, as [`HeadSearch::find`] found it.
///
/// # Errors
/// As [`parse_response`].
pub fn parse_response_head(
    bytes: &[u8],
    request_method: &Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, ParseError> {
    let (line, section) = first_line(bytes, ParseError::StatusLine)?;
    if line.len() > limits.line {
        return Err(ParseError::TooLarge);
    }
    read_status_line(line, head)?;
    read_fields(section, limits.fields, &mut head.fields)?;
    let framing = Framing::of(&head.fields);
    let (body, keep_alive) = framing.of_response(head.version(), head.status, request_method)?;
    if framing.has_lookalike() {
        // No client takes it for the frame, but another proxy on the way might.
        head.fields.keep(|_, name| !is_lookalike(name));
    }
    Ok(Parsed { head_len: bytes.len(), body, keep_alive, expects_continue: false })
}

/// The first line without its end, and the field lines with theirs.
fn first_line(bytes: &[u8], empty: ParseError) -> Result<(&[u8], &[u8]), ParseError> {
    let Some((before_end, b"\r\n")) = bytes.split_last_chunk::<2>().map(|(head, end)| (head, end.as_slice())) else {
        return Err(empty);
    };
    match memchr2(b'\r', b'\n', bytes) {
        Some(cr) if bytes[cr..].first_chunk() != Some(b"\r\n") => Err(ParseError::LineEnd),
        Some(0) | None => Err(empty),
        Some(cr) => Ok((&bytes[..cr], before_end.get(cr + 2..).ok_or(empty)?)),
    }
}

/// Reads `method SP target SP HTTP/1.x`. The authority is that of an absolute target.
fn read_request_line<'l>(line: &'l [u8], head: &mut RequestHead) -> Result<Option<&'l [u8]>, ParseError> {
    let method_end = memchr(b' ', line).ok_or(ParseError::RequestLine)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr(b' ', rest).ok_or(ParseError::RequestLine)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    head.method = read_method(method)?;
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(ParseError::Version),
        _ => return Err(ParseError::RequestLine),
    };
    read_target(target, version, head)
}

/// A method that nobody takes for another one.
pub(crate) fn read_method(bytes: &[u8]) -> Result<Method, ParseError> {
    /// No method of the registry is longer.
    const LONGEST: usize = 24;
    if !octet::is_token(bytes) || bytes.len() > LONGEST {
        return Err(ParseError::Method);
    }
    // Methods are compared with their case, but not by everybody, and the frame of the answer depends on them.
    let standard = || Method::from_bytes(&bytes.to_ascii_uppercase()).is_ok_and(|upper| is_standard(&upper));
    if bytes.iter().any(u8::is_ascii_lowercase) && standard() {
        return Err(ParseError::Method);
    }
    Method::from_bytes(bytes).map_err(|_invalid| ParseError::Method)
}

fn is_standard(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::CONNECT, Method::OPTIONS, Method::TRACE]
        .iter()
        .chain([&Method::PATCH])
        .any(|standard| standard == method)
}

fn read_target<'l>(target: &'l [u8], version: Version, head: &mut RequestHead) -> Result<Option<&'l [u8]>, ParseError> {
    let text = std::str::from_utf8(target).map_err(|_invalid| ParseError::Target)?;
    if head.method == Method::CONNECT {
        let (_, port) = octet::split_port(target);
        if !octet::is_authority(target) || port.is_none_or(<[u8]>::is_empty) {
            return Err(ParseError::Target);
        }
        head.put_target(version, TargetForm::Authority, "", text);
        return Ok(None);
    }
    match target {
        [b'/', ..] if is_origin(target) => {
            head.put_target(version, TargetForm::Origin, "", text);
            Ok(None)
        }
        b"*" if head.method == Method::OPTIONS => {
            head.put_target(version, TargetForm::Asterisk, "", text);
            Ok(None)
        }
        [b'h' | b'H', ..] => read_absolute(text, version, head).map(Some),
        _ => Err(ParseError::Target),
    }
}

/// Reads `http[s]://authority[/path][?query]` and returns the authority.
fn read_absolute<'l>(target: &'l str, version: Version, head: &mut RequestHead) -> Result<&'l [u8], ParseError> {
    let (scheme, rest) = target.split_once("://").ok_or(ParseError::Target)?;
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") {
        return Err(ParseError::Target);
    }
    let (authority, path) = rest.split_at(memchr2(b'/', b'?', rest.as_bytes()).unwrap_or(rest.len()));
    if !octet::is_authority(authority.as_bytes()) || !is_origin(path.as_bytes()) {
        return Err(ParseError::Target);
    }
    let (slash, path) = match path {
        // Asking about the server as a whole looks like this in absolute form (RFC 9112, section 3.2.4).
        "" if head.method == Method::OPTIONS => ("", "*"),
        _ if path.starts_with('/') => ("", path),
        _ => ("/", path),
    };
    head.put_target(version, TargetForm::Absolute { https }, slash, path);
    Ok(authority.as_bytes())
}

/// Reads `HTTP/1.x SP 3DIGIT [ SP reason ]`.
fn read_status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), ParseError> {
    let (version, rest) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => (Version::HTTP_11, rest),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => (Version::HTTP_10, rest),
        _ => return Err(ParseError::StatusLine),
    };
    let (status, reason) = match rest {
        [a, b, c] => ([*a, *b, *c], b"".as_slice()),
        [a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(ParseError::StatusLine),
    };
    let status = StatusCode::from_bytes(&status).map_err(|_invalid| ParseError::StatusLine)?;
    if !octet::is_value(reason) {
        return Err(ParseError::StatusLine);
    }
    head.put_status(version, status, reason);
    Ok(())
}

/// Reads field lines, each with its CRLF, into `fields`, whose former content is dropped.
pub(crate) fn read_fields(section: &[u8], most: usize, fields: &mut Fields) -> Result<(), ParseError> {
    if u32::try_from(section.len()).is_err() {
        return Err(ParseError::TooLarge);
    }
    fields.load(section);
    let mut at = 0;
    while at < section.len() {
        let line = &section[at..];
        let name_len = memchr(b':', line).unwrap_or(line.len());
        let name = &line[..name_len];
        if !octet::is_token(name) || name_len == line.len() {
            return Err(refused_name(name));
        }
        let mut value = name_len + 1;
        while let Some(b' ' | b'\t') = line.get(value) {
            value += 1;
        }
        let end = value + memchr2(b'\r', b'\n', &line[value..]).ok_or(ParseError::LineEnd)?;
        if line[end..].first_chunk() != Some(b"\r\n") {
            return Err(ParseError::LineEnd);
        }
        let mut value_end = end;
        while value_end > value && matches!(line[value_end - 1], b' ' | b'\t') {
            value_end -= 1;
        }
        if fields.len() == most {
            return Err(ParseError::TooLarge);
        }
        let len = u16::try_from(name_len).map_err(|_too_long| ParseError::TooLarge)?;
        fields.push_parsed(at, len, at + value, value_end - value, Known::of(name));
        at += end + 2;
    }
    // All values at once: the names have no control characters, and every line end has been looked at.
    if octet::are_lines(section) { Ok(()) } else { Err(ParseError::FieldValue) }
}

/// What is wrong with the bytes up to the next colon.
fn refused_name(name: &[u8]) -> ParseError {
    match name.first() {
        Some(b' ' | b'\t') => ParseError::Folded,
        Some(b'\r' | b'\n') => ParseError::LineEnd,
        _ => ParseError::FieldName,
    }
}

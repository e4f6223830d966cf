//! Why a message is refused.

use http::StatusCode;

/// Why bytes are no message that could be passed on. None of these quotes the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The first line is no request line: `method SP target SP HTTP/1.x CRLF`.
    #[error("the request line is malformed")]
    RequestLine,
    /// The method is no token, is too long, or spells a standard method in another case.
    #[error("the method is malformed")]
    Method,
    /// The target is in none of the four forms or has bytes that may not stand in it.
    #[error("the request target is malformed")]
    Target,
    /// The request line is longer than is allowed.
    #[error("the request line is too long")]
    TargetTooLong,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is not supported")]
    Version,
    /// The first line of a response is no status line.
    #[error("the status line is malformed")]
    StatusLine,
    /// A line ends otherwise than by CRLF, or a CR stands within one.
    #[error("a line does not end with CRLF")]
    LineEnd,
    /// A field line is folded, or starts with white space.
    #[error("a field line starts with white space")]
    Folded,
    /// A field name is empty, no token, or followed by white space.
    #[error("a field name is malformed")]
    FieldName,
    /// A field value has control characters.
    #[error("a field value is malformed")]
    FieldValue,
    /// More bytes or more fields than are allowed.
    #[error("the header section is too large")]
    TooLarge,
    /// There is no `Host`, more than one, or it names no host.
    #[error("the Host field is missing, repeated or malformed")]
    Host,
    /// `Content-Length` is no number or stands there twice.
    #[error("the Content-Length field is malformed or repeated")]
    ContentLength,
    /// `Transfer-Encoding` is malformed, repeated, or of a version that has none.
    #[error("the Transfer-Encoding field is malformed or repeated")]
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding is not supported")]
    Coding,
    /// There are both `Content-Length` and `Transfer-Encoding`, or a spelling of them that some readers take for them.
    #[error("the length of the body can be read in two ways")]
    Framing,
    /// `Expect` asks for something other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// A field that HTTP/2 does not have, or pseudo-header fields that contradict each other (RFC 9113, section 8.2.2).
    #[error("the HTTP/2 request is malformed")]
    Http2,
}

impl ParseError {
    /// What a client is answered that sent such a request: 400, 414, 417, 431, 501 or 505. (A response of this kind is
    /// always answered 502.) The connection is to be closed in any case, because it is unknown where the next message
    /// begins.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why something is no header field. Neither the name nor the value is quoted: it may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadField {
    /// The name is empty or no token.
    #[error("the field name is no token")]
    Name,
    /// The value has control characters.
    #[error("the field value has control characters")]
    Value,
    /// The head would be larger than four gigabytes, or the name than 64 kB.
    #[error("the field is too large")]
    Size,
}

/// Why something is no request target (in origin form, or `*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request target is malformed")]
pub struct BadTarget;

/// Why something is no `host [ ":" port ]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host is malformed")]
pub struct BadHost;

//! What is refused and what is passed on, byte by byte.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chunked;
mod encoded;
mod fields;
mod forwarded;
mod hop;
mod http2;
mod properties;
mod proxy_header;
mod requests;
mod responses;

use coracle_proxy_http::{HeadLimits, ParseError, Parsed, RequestHead, parse_request};

/// Reads a request that is complete.
fn request(bytes: impl AsRef<[u8]>) -> Result<(Parsed, RequestHead), ParseError> {
    let mut head = RequestHead::default();
    let parsed = parse_request(bytes.as_ref(), &HeadLimits::default(), &mut head)?;
    Ok((parsed.expect("the head is complete"), head))
}

/// A request that must be fine, with these field lines.
#[track_caller]
fn request_with(lines: &str) -> RequestHead {
    request(format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).unwrap().1
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

//! Headers that concern one connection only and are not passed on (RFC 9110, section 7.6.1), and framing that could be
//! read in two ways (RFC 9112, section 6.3).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Version};

use crate::refusal::Refusal;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a request asks of its connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The protocol to change to.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// Takes the headers off a request that are meant for this proxy.
pub(crate) fn strip_request(headers: &mut HeaderMap, version: Version) -> Asked {
    let upgrade = headers.remove(UPGRADE);
    let trailers = headers.get_all(TE).iter().any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("trailers")));
    let asks_upgrade = strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // HTTP/2 over an upgraded connection would slip past everything that is decided per request.
    let upgrade = upgrade.filter(|protocol| {
        asks_upgrade && version == Version::HTTP_11 && !tokens(protocol).any(|name| name.eq_ignore_ascii_case("h2c"))
    });
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    Asked { upgrade }
}

/// Takes the headers off an answer that are meant for this proxy. Those of a switch of protocols are passed on.
pub(crate) fn strip_response(headers: &mut HeaderMap, switches: bool) {
    let upgrade = headers.remove(UPGRADE);
    strip(headers);
    if let (true, Some(protocol)) = (switches, upgrade) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Whether `Connection` names `upgrade`.
fn strip(headers: &mut HeaderMap) -> bool {
    let mut asks_upgrade = false;
    let mut named = Vec::new();
    for token in headers.get_all(CONNECTION).iter().flat_map(tokens) {
        if token.eq_ignore_ascii_case("upgrade") {
            asks_upgrade = true;
        } else if !token.eq_ignore_ascii_case("close") && !token.eq_ignore_ascii_case("keep-alive") {
            // Without these two the message would mean something else.
            named.extend(HeaderName::try_from(token).ok().filter(|name| name != HOST && name != CONTENT_LENGTH));
        }
    }
    for name in [CONNECTION, PROXY_CONNECTION, KEEP_ALIVE, TE, TRANSFER_ENCODING].into_iter().chain(named) {
        headers.remove(name);
    }
    asks_upgrade
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// Refuses requests whose body could end in two places. hyper has refused the others already: differing lengths, a last
/// coding that is not `chunked`, any coding in HTTP/1.0. It lets `Transfer-Encoding` win over `Content-Length`, as it
/// may, and forgets that there were both; so `head`, the bytes as they came, is looked at.
pub(crate) fn check_framing(headers: &HeaderMap, head: &[u8]) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::Coding);
    }
    for line in head.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty()).skip(1) {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            return Err(Refusal::Malformed("both Transfer-Encoding and Content-Length"));
        }
    }
    // Sent before the answer to the request before it was through, so that nobody saw where it begins.
    Err(Refusal::Malformed("a chunked request may not be pipelined"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn headers_of_the_connection_are_taken_off() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, content-length, host"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("host", "h"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_request(&mut headers, Version::HTTP_11), Asked::default());
        assert_eq!(headers, map(&[("te", "trailers"), ("content-length", "3"), ("host", "h"), ("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_is_passed_on_only_if_it_is_one() {
        let websocket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let mut headers = map(&websocket);
        assert!(strip_request(&mut headers, Version::HTTP_11).upgrade.is_some());
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
        for (version, lines) in [
            (Version::HTTP_10, websocket.as_slice()),
            (Version::HTTP_11, &[("upgrade", "websocket")]),
            (Version::HTTP_11, &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "")]),
        ] {
            let mut headers = map(lines);
            assert!(strip_request(&mut headers, version).upgrade.is_none());
            assert!(headers.is_empty(), "{headers:?}");
        }
    }

    #[test]
    fn framing_that_means_two_things_is_refused() {
        let chunked = map(&[("transfer-encoding", "Chunked")]);
        check_framing(&chunked, b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\nContent-Length: 1\r\n").unwrap();
        for head in [
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n".as_slice(),
            b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\ncontent-LENGTH:3\r\n\r\n",
            b"\r\nPOST / HTTP/1.1\nTransfer-Encoding: Chunked\ncontent-LENGTH:3\n\n",
            b"",
        ] {
            assert!(matches!(check_framing(&chunked, head), Err(Refusal::Malformed(_))));
        }
        for codings in ["gzip, chunked", "chunked, chunked", "identity"] {
            assert_eq!(check_framing(&map(&[("transfer-encoding", codings)]), b""), Err(Refusal::Coding));
        }
        check_framing(&map(&[("content-length", "3")]), b"").unwrap();
    }
}

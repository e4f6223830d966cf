//! Heads of responses.

use coracle_proxy_http::BodyLength::{Chunked, Fixed, None as NoBody, UntilClose};
use coracle_proxy_http::ParseError as E;
use coracle_proxy_http::{BodyLength, HeadLimits, Parsed, ResponseHead, parse_response};
use http::{Method, StatusCode};

use crate::text;

fn response(bytes: impl AsRef<[u8]>, asked: &Method) -> Result<(Parsed, ResponseHead), E> {
    let mut head = ResponseHead::default();
    let parsed = parse_response(bytes.as_ref(), asked, &HeadLimits::default(), &mut head)?;
    Ok((parsed.expect("the head is complete"), head))
}

fn written(head: &ResponseHead, body: BodyLength, keep_alive: bool) -> String {
    let mut out = Vec::new();
    head.write_to(&mut out, body, keep_alive);
    text(&out)
}

#[test]
fn bodies_end_where_the_status_the_method_and_the_fields_say() {
    for (line, lines, asked, body, keep_alive) in [
        ("HTTP/1.1 200 OK", "Content-Length: 5", Method::GET, Fixed(5), true),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: close", Method::GET, Fixed(5), false),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked", Method::GET, Chunked, true),
        ("HTTP/1.1 200 OK", "X: y", Method::GET, UntilClose, false),
        ("HTTP/1.0 200 OK", "Content-Length: 5", Method::GET, Fixed(5), false),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive", Method::GET, Fixed(5), true),
        ("HTTP/1.0 200 OK", "Connection: keep-alive", Method::GET, UntilClose, false),
        ("HTTP/1.1 200 OK", "Content-Length: 5", Method::HEAD, NoBody, true),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", Method::HEAD, NoBody, true),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 5", Method::GET, NoBody, true),
        ("HTTP/1.1 204 No Content", "Content-Length: 0", Method::GET, NoBody, true),
        // It says that something comes which must not come.
        ("HTTP/1.1 204 No Content", "Content-Length: 5", Method::GET, NoBody, false),
        ("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked", Method::GET, NoBody, false),
        ("HTTP/1.1 100 Continue", "X: y", Method::POST, NoBody, true),
        ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", Method::GET, NoBody, true),
        ("HTTP/1.1 200 OK", "Content-Length: 0", Method::CONNECT, NoBody, true),
        ("HTTP/1.1 404 Not Found", "Content-Length: 5", Method::CONNECT, Fixed(5), true),
        ("HTTP/1.1 205 Reset Content", "Content-Length: 0", Method::POST, Fixed(0), true),
    ] {
        let (parsed, _) = response(format!("{line}\r\n{lines}\r\n\r\nrest"), &asked).unwrap();
        assert_eq!((parsed.body, parsed.keep_alive), (body, keep_alive), "{line} {lines} {asked}");
        assert_eq!(parsed.head_len, line.len() + lines.len() + 6);
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (bytes, error) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", E::Framing),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", E::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", E::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", E::ContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", E::Coding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", E::Coding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", E::TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", E::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", E::FieldName),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", E::Folded),
        ("HTTP/1.1 200 OK\r\n X: a\r\n\r\n", E::Folded),
        ("HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n", E::FieldValue),
        ("HTTP/1.1 200 OK\r\nX: a\rY: b\r\n\r\n", E::LineEnd),
        ("HTTP/1.1 200 OK\nX: a\n\n", E::LineEnd),
        ("HTTP/1.1 200 O\rK\r\n\r\n", E::LineEnd),
        ("HTTP/1.1 200 O\0K\r\n\r\n", E::StatusLine),
        ("HTTP/1.1 20 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1 099 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1 2x0 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1 200\tOK\r\n\r\n", E::StatusLine),
        ("HTTP/1.1\r\n\r\n", E::StatusLine),
        ("HTTP/2 200 OK\r\n\r\n", E::StatusLine),
        ("HTTP/1.2 200 OK\r\n\r\n", E::StatusLine),
        ("http/1.1 200 OK\r\n\r\n", E::StatusLine),
        ("ICY 200 OK\r\n\r\n", E::StatusLine),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", E::StatusLine),
        ("\r\n\r\n", E::StatusLine),
        ("<html>\r\n\r\n", E::RequestLine),
    ] {
        match response(bytes, &Method::GET) {
            Ok(found) => panic!("let through: {bytes:?} {found:?}"),
            Err(E::RequestLine | E::StatusLine) if matches!(error, E::RequestLine | E::StatusLine) => (),
            Err(found) => assert_eq!(found, error, "{bytes:?}"),
        }
    }
    // Neither may HEAD hide it.
    response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", &Method::HEAD).unwrap_err();
}

#[test]
fn reasons_are_passed_on_while_they_fit_the_status() {
    for (line, reason, out) in [
        ("HTTP/1.1 200 OK", "OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.1 200", "OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.1 200 ", "OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.0 200 Tr\u{e8}s \tbien", "Tr\u{e8}s \tbien", "HTTP/1.1 200 Tr\u{e8}s \tbien"),
        ("HTTP/1.1 799 Odd", "Odd", "HTTP/1.1 799 Odd"),
        ("HTTP/1.1 799", "", "HTTP/1.1 799 "),
    ] {
        let (_, mut head) = response(format!("{line}\r\n\r\n"), &Method::GET).unwrap();
        assert_eq!(text(head.reason()), reason);
        assert_eq!(written(&head, Fixed(0), true), format!("{out}\r\nContent-Length: 0\r\n\r\n"));
        head.status = StatusCode::NOT_FOUND;
        assert_eq!(text(head.reason()), "Not Found");
    }
}

#[test]
fn one_frame_is_written() {
    let bytes = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\nConnection: keep-alive\r\nB:2\r\n\r\n";
    let (_, mut head) = response(bytes, &Method::GET).unwrap();
    let start = "HTTP/1.1 200 OK\r\nA: 1\r\n";
    for (body, keep_alive, rest) in [
        (Fixed(7), true, "Connection: keep-alive\r\nB: 2\r\nContent-Length: 7\r\n\r\n"),
        (Fixed(7), false, "B: 2\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"),
        (Chunked, true, "Connection: keep-alive\r\nB: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (UntilClose, true, "B: 2\r\nConnection: close\r\n\r\n"),
        (NoBody, true, "Connection: keep-alive\r\nB: 2\r\nContent-Length: 5\r\n\r\n"),
    ] {
        assert_eq!(written(&head, body, keep_alive), format!("{start}{rest}"));
    }
    let (_, other) =
        response("HTTP/1.1 200 OK\r\ncontent_length: 9\r\nX_Y: z\r\nContent-Length: 5\r\n\r\n", &Method::GET).unwrap();
    assert_eq!(written(&other, Fixed(5), true), "HTTP/1.1 200 OK\r\nX_Y: z\r\nContent-Length: 5\r\n\r\n");
    head.fields.remove("connection");
    head.status = StatusCode::NO_CONTENT;
    assert_eq!(written(&head, NoBody, true), "HTTP/1.1 204 No Content\r\nA: 1\r\nB: 2\r\n\r\n");
    head.status = StatusCode::EARLY_HINTS;
    assert_eq!(written(&head, NoBody, false), "HTTP/1.1 103 Early Hints\r\nA: 1\r\nB: 2\r\n\r\n");
    head.clear();
    assert_eq!(head, ResponseHead::new(StatusCode::OK));
}

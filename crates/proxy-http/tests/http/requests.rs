//! Heads of requests.

use coracle_proxy_http::ParseError as E;
use coracle_proxy_http::{BodyLength, HeadLimits, HeadSearch, Known, Parsed, RequestHead, TargetForm, parse_request};
use http::{Method, Version};

use crate::{request, request_with, text};

#[test]
fn an_ordinary_request_is_written_as_it_came_with_its_host_first() {
    let bytes =
        b"\r\nPOST /a%2Fb?c=d HTTP/1.1\r\nAccept: */*\r\nhost:h.example:80\r\nX-A:  b c \t\r\nContent-Length: 003\r\n\r\nabc";
    let (parsed, head) = request(bytes).unwrap();
    let expected = Parsed { head_len: bytes.len() - 3, body: BodyLength::Fixed(3), keep_alive: true, expects_continue: false };
    assert_eq!(parsed, expected);
    assert_eq!((head.path(), head.query(), head.host()), ("/a%2Fb", Some("c=d"), "h.example:80"));
    assert_eq!(
        written(&head, parsed.body),
        "POST /a%2Fb?c=d HTTP/1.1\r\nHost: h.example:80\r\nAccept: */*\r\nX-A: b c\r\nContent-Length: 3\r\n\r\n"
    );
}

fn written(head: &RequestHead, body: BodyLength) -> String {
    let mut out = Vec::new();
    head.write_to(&mut out, body);
    text(&out)
}

/// Refused, and with what.
#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, error: E) {
    let bytes = bytes.as_ref();
    match request(bytes) {
        Err(found) => assert_eq!(found, error, "{:?}", text(bytes)),
        Ok((parsed, head)) => panic!("let through: {:?}\n{parsed:?}\n{head:?}", text(bytes)),
    }
}

#[test]
fn request_lines_have_one_form() {
    for (line, error) in [
        ("", E::RequestLine),
        ("GET", E::RequestLine),
        ("GET /", E::RequestLine),
        ("GET  / HTTP/1.1", E::RequestLine),
        ("GET /  HTTP/1.1", E::RequestLine),
        ("GET / HTTP/1.1 ", E::RequestLine),
        (" GET / HTTP/1.1", E::RequestLine),
        ("GET\t/ HTTP/1.1", E::RequestLine),
        ("GET / http/1.1", E::RequestLine),
        ("GET / HTTP/1.1.1", E::RequestLine),
        ("GET / HTTP/11", E::RequestLine),
        ("GET / HTTP/1.", E::RequestLine),
        ("GET / HTTP/01.1", E::RequestLine),
        ("GET / XHTTP/1.1", E::RequestLine),
        ("GET / HTTP /1.1", E::RequestLine),
        ("GET / x HTTP/1.1", E::RequestLine),
        ("GET /\u{a0}HTTP/1.1", E::RequestLine),
        ("GET / HTTP/0.9", E::Version),
        ("GET / HTTP/1.2", E::Version),
        ("GET / HTTP/2.0", E::Version),
        ("PRI * HTTP/2.0", E::Version),
        ("GET / HTTP/9.9", E::Version),
        ("G@T / HTTP/1.1", E::Method),
        ("GET: / HTTP/1.1", E::Method),
        ("G\u{e9}T / HTTP/1.1", E::Method),
        ("get / HTTP/1.1", E::Method),
        ("Head / HTTP/1.1", E::Method),
        ("connect h:1 HTTP/1.1", E::Method),
        ("AAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", E::Method),
    ] {
        // Some are refused for their first byte already, before the line is looked at.
        refused(format!("{line}\r\nHost: h\r\n\r\n"), if line.starts_with(' ') { E::Method } else { error });
    }
}

#[test]
fn targets_have_four_forms() {
    for target in [
        "x",
        "..",
        "h/a",
        "/a#b",
        "/a\\b",
        "/\\evil.example",
        "\\",
        "/caf\u{e9}",
        "/a\u{7f}",
        "/a\x01",
        "*a",
        "**",
        "?q",
        "h:80",
        "http:/h/",
        "http:h",
        "http:///a",
        "http://",
        "http://?q",
        "http://u@h/",
        "http://u:p@h/",
        "http://h:x/",
        "http://h:80:80/",
        "http://h:65536/",
        "http://h\\a/",
        "http://h/a\\b",
        "http://h/a#b",
        "http://[::1/",
        "http://h%/",
        "ftp://h/",
        "ws://h/",
        "httpx://h/",
        "http//h",
        "HTTPS:\\\\h",
        "http://h,i/;@j/",
        "http://a/../\x0b",
    ] {
        refused(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), E::Target);
    }
    refused("GET * HTTP/1.1\r\nHost: h\r\n\r\n", E::Target);
    refused("GET http://a b/ HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine);
    for target in ["/", "*", "h", "h:", "http://h:1/", "h:1/", "u@h:1", ":1", "[::1]"] {
        refused(format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n"), E::Target);
    }
    for (method, target, form, expected, host) in [
        ("GET", "//", TargetForm::Origin, "//", "h"),
        ("GET", "/?a\\b|{}\"^`<>[]%zz", TargetForm::Origin, "/?a\\b|{}\"^`<>[]%zz", "h"),
        ("GET", "/a;b=c/../%2e%2E//d", TargetForm::Origin, "/a;b=c/../%2e%2E//d", "h"),
        ("OPTIONS", "*", TargetForm::Asterisk, "*", "h"),
        ("CONNECT", "e.example:443", TargetForm::Authority, "e.example:443", "h"),
        ("GET", "http://e.example:81/a%2Fb?c", TargetForm::Absolute { https: false }, "/a%2Fb?c", "e.example:81"),
        ("GET", "HTTPS://e.example", TargetForm::Absolute { https: true }, "/", "e.example"),
        ("GET", "http://[::1]?q/", TargetForm::Absolute { https: false }, "/?q/", "[::1]"),
        ("OPTIONS", "http://e.example", TargetForm::Absolute { https: false }, "*", "e.example"),
        ("OPTIONS", "http://e.example/", TargetForm::Absolute { https: false }, "/", "e.example"),
    ] {
        let (_, head) = request(format!("{method} {target} HTTP/1.1\r\nX: y\r\nHost: h\r\n\r\n")).unwrap();
        assert_eq!((head.form(), head.target(), head.host()), (form, expected, host), "{target}");
        assert_eq!(written(&head, BodyLength::None), format!("{method} {expected} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n"));
    }
}

#[test]
fn there_is_one_host() {
    for lines in [
        "",
        "X: y\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhOST: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: http://a\r\n",
        "Host: u@a\r\n",
        "Host: a/b\r\n",
        "Host: a\\b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a:b\r\n",
        "Host: a:80:80\r\n",
        "Host: a:99999\r\n",
        "Host: :80\r\n",
        "Host: ::1\r\n",
        "Host: [::1\r\n",
        "Host: [::1]a\r\n",
        "Host: a%\r\n",
        "Host: \u{e9}\r\n",
        "Host: a\tb\r\n",
        "Host: <a>\r\n",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{lines}\r\n"), E::Host);
        // It does not help to have the authority in the target.
        refused(format!("GET http://a/ HTTP/1.1\r\n{lines}\r\n"), E::Host);
    }
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", E::Host);
    let (_, head) = request("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((head.host(), head.version()), ("", Version::HTTP_10));
    assert_eq!(written(&head, BodyLength::None), "GET / HTTP/1.1\r\nHost: \r\n\r\n");
    assert_eq!(request("GET / HTTP/1.1\r\nHost:\r\n\r\n").unwrap().1.host(), "");
}

#[test]
fn lines_end_with_crlf_and_fields_have_one_form() {
    for (bytes, error) in [
        ("GET / HTTP/1.1\nHost: h\n\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\nHost: h\r\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\nContent-Length: 5\r\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\n\rX: a\r\n\r\n", E::LineEnd),
        ("GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", E::LineEnd),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", E::LineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
        ("\r\n\r\n", E::RequestLine),
        ("GET / HTTP/1.1\r\n Host: h\r\n\r\n", E::Folded),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", E::Folded),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n", E::Folded),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\u{b}: chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\0: chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer Encoding: chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\r\n : chunked\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nX(: a\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\n\u{e9}: a\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nX\"Y: a\r\n\r\n", E::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", E::FieldValue),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\x01\r\n\r\n", E::FieldValue),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n", E::FieldValue),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \x0b\r\n\r\n", E::FieldValue),
        ("GET / HTTP/1.1\r\nHost: h\0\r\n\r\n", E::FieldValue),
    ] {
        refused(bytes, error);
    }
    let head = request_with("A:\r\nB: \t\r\nC:\td\te\r\nD: \u{e9}\r\n!#$%&'*+-.^_`|~9: x\r\n");
    let seen: Vec<_> = head.fields.iter().skip(1).map(|(name, value)| (name, text(value))).collect();
    let expected = [("A", ""), ("B", ""), ("C", "d\te"), ("D", "é"), ("!#$%&'*+-.^_`|~9", "x")];
    assert_eq!(seen, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn bodies_have_one_length() {
    for (lines, error) in [
        // CL.TE and TE.CL.
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", E::Framing),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", E::Framing),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", E::Framing),
        ("Transfer-Encoding: identity\r\nContent-Length: 5", E::Framing),
        ("Transfer-Encoding: chunked\r\nContent-Length: x", E::Framing),
        // TE.TE: one of two readers does not see it.
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", E::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", E::TransferEncoding),
        ("Transfer-Encoding: x\r\nTRANSFER-ENCODING: chunked", E::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", E::TransferEncoding),
        ("Transfer-Encoding: ,chunked", E::TransferEncoding),
        ("Transfer-Encoding: chunked,", E::TransferEncoding),
        ("Transfer-Encoding:", E::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", E::TransferEncoding),
        ("Transfer-Encoding: 'chunked' x", E::TransferEncoding),
        ("Transfer-Encoding: chunked;q=1", E::TransferEncoding),
        ("Transfer-Encoding: chunked foo", E::TransferEncoding),
        ("Transfer-Encoding: \u{e9}chunked", E::TransferEncoding),
        ("Transfer-Encoding: \x0bchunked", E::FieldValue),
        ("Transfer-Encoding: chunked\0", E::FieldValue),
        ("Transfer-Encoding: xchunked", E::Coding),
        ("Transfer-Encoding: chunkedx", E::Coding),
        ("Transfer-Encoding: identity", E::Coding),
        ("Transfer-Encoding: gzip, chunked", E::Coding),
        ("Transfer-Encoding: chunked, gzip", E::Coding),
        ("Transfer-Encoding: cow", E::Coding),
        // Names that become others on the way into an application.
        ("Transfer_Encoding: chunked", E::Framing),
        ("transfer_encoding: chunked\r\nContent-Length: 5", E::Framing),
        ("Content_Length: 5", E::Framing),
        // Lengths.
        ("Content-Length: 5\r\nContent-Length: 5", E::ContentLength),
        ("Content-Length: 5\r\ncontent-length: 6", E::ContentLength),
        ("Content-Length: 5, 5", E::ContentLength),
        ("Content-Length: 5,6", E::ContentLength),
        ("Content-Length:", E::ContentLength),
        ("Content-Length: +5", E::ContentLength),
        ("Content-Length: -5", E::ContentLength),
        ("Content-Length: 5 5", E::ContentLength),
        ("Content-Length: 0x5", E::ContentLength),
        ("Content-Length: 5.0", E::ContentLength),
        ("Content-Length: 1e1", E::ContentLength),
        ("Content-Length: 5\u{a0}", E::ContentLength),
        ("Content-Length: \"5\"", E::ContentLength),
        ("Content-Length: five", E::ContentLength),
        ("Content-Length: 9223372036854775808", E::ContentLength),
        ("Content-Length: 18446744073709551621", E::ContentLength),
        ("Content-Length: 00000000000000000005", E::ContentLength),
        ("Content-Length : 5", E::FieldName),
        ("Content-Length: 5\x0b", E::FieldValue),
        // What one reader waits for and another does not.
        ("Content-Length: 5\r\nExpect: y 100-continue", E::Expectation),
        ("Content-Length: 5\r\nExpect: 100-continue, x", E::Expectation),
        ("Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue", E::Expectation),
        ("Content-Length: 5\r\nExpect:", E::Expectation),
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n"), error);
    }
    refused("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", E::TransferEncoding);
    for (lines, expected, field) in [
        ("Transfer-Encoding: chunked", BodyLength::Chunked, "Transfer-Encoding: chunked\r\n"),
        ("transfer-encoding:\tCHUNKED ", BodyLength::Chunked, "Transfer-Encoding: chunked\r\n"),
        ("Content-Length: 0", BodyLength::Fixed(0), "Content-Length: 0\r\n"),
        ("Content-Length:9223372036854775807\t", BodyLength::Fixed(i64::MAX as u64), "Content-Length: 9223372036854775807\r\n"),
        ("X: y", BodyLength::None, ""),
    ] {
        for method in ["POST", "GET", "HEAD", "DELETE", "M-SEARCH", "foo"] {
            let (parsed, head) = request(format!("{method} / HTTP/1.1\r\n{lines}\r\nHost: h\r\n\r\n")).unwrap();
            assert_eq!(parsed.body, expected, "{lines}");
            let rest = if expected == BodyLength::None { "X: y\r\n" } else { "" };
            assert_eq!(written(&head, parsed.body), format!("{method} / HTTP/1.1\r\nHost: h\r\n{rest}{field}\r\n"));
        }
    }
}

#[test]
fn connections_persist_as_the_client_says() {
    for (version, lines, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: keep-alive-not\r\n", false),
    ] {
        let (parsed, _) = request(format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n")).unwrap();
        assert_eq!(parsed.keep_alive, expected, "{version} {lines}");
    }
}

#[test]
fn only_a_body_is_waited_for() {
    for (version, lines, expected) in [
        ("1.1", "Content-Length: 1\r\nExpect: 100-Continue\r\n", true),
        ("1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", true),
        ("1.1", "Expect: 100-continue\r\n", false),
        ("1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", false),
        ("1.0", "Content-Length: 1\r\nExpect: 100-continue\r\n", false),
    ] {
        let (parsed, _) = request(format!("PUT / HTTP/{version}\r\nHost: h\r\n{lines}\r\n")).unwrap();
        assert_eq!(parsed.expects_continue, expected, "{version} {lines}");
    }
}

#[test]
fn limits_hold_for_heads_at_once_and_in_pieces() {
    let limits = HeadLimits { line: 30, head: 80, fields: 3 };
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(17));
    let long_head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(50));
    let many_fields = "GET / HTTP/1.1\r\nHost: h\r\nA:\r\nB:\r\nC:\r\n\r\n";
    for (bytes, error) in [(long_line.as_str(), E::TargetTooLong), (&long_head, E::TooLarge), (many_fields, E::TooLarge)] {
        let mut head = RequestHead::default();
        assert_eq!(parse_request(bytes.as_bytes(), &limits, &mut head), Err(error), "{bytes}");
        let larger = HeadLimits { line: 31, head: 90, fields: 4 };
        assert!(parse_request(bytes.as_bytes(), &larger, &mut head).unwrap().is_some(), "{bytes}");
    }
    // Neither an endless line nor an endless head is waited for.
    let mut search = HeadSearch::default();
    assert_eq!(search.find(&b"G".repeat(33), &limits), Ok(None));
    assert_eq!(search.find(&b"G".repeat(34), &limits), Err(E::TargetTooLong));
    let endless = "GET / HTTP/1.1\r\n".to_owned() + &"A: b\r\n".repeat(20);
    let mut search = HeadSearch::default();
    let refused = (0..endless.len()).find_map(|len| search.find(&endless.as_bytes()[..len], &limits).err().map(|e| (len, e)));
    assert_eq!(refused, Some((81, E::TooLarge)));
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    let limits = HeadLimits::default();
    for bytes in [b"\x16\x03\x01".as_slice(), b"\n", b" ", b"\0", b"GET / HTTP/1.1\n", "é".as_bytes()] {
        assert!(HeadSearch::default().find(bytes, &limits).is_err(), "{bytes:?}");
    }
    for bytes in ["", "G", "\r", "\r\n", "GET / HTTP/1.1\r\nHost"] {
        assert_eq!(HeadSearch::default().find(bytes.as_bytes(), &limits), Ok(None), "{bytes:?}");
    }
}

#[test]
fn errors_have_the_status_of_their_kind() {
    for (error, status) in [
        (E::Framing, 400),
        (E::TargetTooLong, 414),
        (E::Expectation, 417),
        (E::TooLarge, 431),
        (E::Coding, 501),
        (E::Version, 505),
    ] {
        assert_eq!(error.status().as_u16(), status);
    }
}

#[test]
fn a_head_is_edited_in_place() {
    let (_, mut head) = request("GET /app/x?y HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n").unwrap();
    head.set_target("/x?y").unwrap();
    head.set_host("t:1").unwrap();
    head.fields.append("X-B", "2").unwrap();
    assert_eq!((head.path(), head.query()), ("/x", Some("y")));
    assert_eq!(written(&head, BodyLength::None), "GET /x?y HTTP/1.1\r\nHost: t:1\r\nA: 1\r\nX-B: 2\r\n\r\n");
    for bad in ["", "x", "*", "/ ", "/a\r\nb", "/#", "/\\", "http://h/", "/é"] {
        assert!(head.set_target(bad).is_err(), "{bad}");
    }
    for bad in ["", "a b", "a\r\nb: c", "u@h", "h/"] {
        assert!(head.set_host(bad).is_err(), "{bad}");
    }
    head.method = Method::OPTIONS;
    head.set_target("*").unwrap();
    assert_eq!((head.target(), head.host(), head.fields.get_known(Known::Host)), ("*", "t:1", Some(b"t:1".as_slice())));
    head.clear();
    assert_eq!(head, RequestHead::default());
}

#[test]
fn nothing_in_the_fields_changes_the_frame() {
    let mut head = RequestHead::new(Method::POST, "/", "h").unwrap();
    for (name, value) in [("Content-Length", "7"), ("TRANSFER-ENCODING", "gzip"), ("host", "other"), ("content-length", "8")] {
        head.fields.append(name, value).unwrap();
    }
    assert_eq!(written(&head, BodyLength::Fixed(2)), "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(written(&head, BodyLength::Chunked), "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(written(&head, BodyLength::None), "POST / HTTP/1.1\r\nHost: h\r\n\r\n");
}

//! Heads of HTTP/2.

use coracle_proxy_http::ParseError as E;
use coracle_proxy_http::{BodyLength, Fields, HeadLimits, Parsed, RequestHead, ResponseHead, TargetForm};
use http::{Method, Request, Response, StatusCode, Version};

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn read(parts: &http::request::Parts, protocol: Option<&str>, end: bool) -> Result<(Parsed, RequestHead), E> {
    let mut head = RequestHead::default();
    Ok((head.read_h2(parts, protocol, end, &HeadLimits::default())?, head))
}

fn written(head: &RequestHead, body: BodyLength) -> String {
    let mut out = Vec::new();
    head.write_to(&mut out, body);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_becomes_one_of_http_1() {
    let fields = [("accept", "*/*"), ("cookie", "a=1"), ("x-b", "2"), ("cookie", "c=3"), ("te", "trailers")];
    let (parsed, head) = read(&parts("POST", "https://h.example:8443/a%2Fb?c", &fields), None, false).unwrap();
    assert_eq!(parsed, Parsed { head_len: 0, body: BodyLength::Chunked, keep_alive: true, expects_continue: false });
    assert_eq!((head.version(), head.form(), head.host()), (Version::HTTP_2, TargetForm::Origin, "h.example:8443"));
    let text = written(&head, parsed.body);
    assert!(text.starts_with("POST /a%2Fb?c HTTP/1.1\r\nHost: h.example:8443\r\n"), "{text}");
    assert!(text.contains("\r\ncookie: a=1; c=3\r\n") && text.matches("cookie").count() == 1, "{text}");
    assert!(text.ends_with("Transfer-Encoding: chunked\r\n\r\n"), "{text}");
}

#[test]
fn bodies_are_as_long_as_they_say() {
    for (length, end, expected) in [
        (None, true, Ok(BodyLength::None)),
        (None, false, Ok(BodyLength::Chunked)),
        (Some("0"), true, Ok(BodyLength::Fixed(0))),
        (Some("5"), false, Ok(BodyLength::Fixed(5))),
        (Some("5"), true, Err(E::ContentLength)),
        (Some("5, 5"), false, Err(E::ContentLength)),
        (Some("+5"), false, Err(E::ContentLength)),
    ] {
        let fields: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
        let found = read(&parts("POST", "http://h/", &fields), None, end).map(|(parsed, _)| parsed.body);
        assert_eq!(found, expected, "{length:?} {end}");
    }
    let twice = [("content-length", "5"), ("content-length", "5")];
    assert_eq!(read(&parts("POST", "http://h/", &twice), None, false).unwrap_err(), E::ContentLength);
}

#[test]
fn what_would_be_something_else_in_http_1_is_refused() {
    for (uri, fields, error) in [
        ("http://h/", ("connection", "close"), E::Http2),
        ("http://h/", ("transfer-encoding", "chunked"), E::Http2),
        ("http://h/", ("upgrade", "websocket"), E::Http2),
        ("http://h/", ("keep-alive", "5"), E::Http2),
        ("http://h/", ("proxy-connection", "x"), E::Http2),
        ("http://h/", ("http2-settings", "x"), E::Http2),
        ("http://h/", ("te", "gzip"), E::Http2),
        ("http://h/", ("te", "trailers, gzip"), E::Http2),
        ("http://h/", ("host", "other"), E::Http2),
        ("http://h/", ("x", " y"), E::Http2),
        ("http://h/", ("x", "y\t"), E::Http2),
        ("http://h/", ("content_length", "5"), E::Framing),
        ("http://h/", ("expect", "x"), E::Expectation),
        ("http://u@h/", ("x", "y"), E::Host),
        ("ftp://h/", ("x", "y"), E::Http2),
        ("/", ("host", "h"), E::Http2),
        ("http://h/\u{e9}", ("x", "y"), E::Target),
        ("http://h:99999/", ("x", "y"), E::Host),
    ] {
        let parts = parts("GET", uri, &[fields]);
        assert_eq!(read(&parts, None, true).unwrap_err(), error, "{uri} {fields:?}");
    }
    for method in ["get", "Head", "connect", "AAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(read(&parts(method, "http://h/", &[]), None, true).unwrap_err(), E::Method, "{method}");
    }
    let (_, head) = read(&parts("GET", "http://h/", &[("host", "H")]), None, true).unwrap();
    assert_eq!((head.host(), head.fields.count("host")), ("h", 1));
    let twice = parts("GET", "http://h/", &[("host", "h"), ("host", "h")]);
    assert_eq!(read(&twice, None, true).unwrap_err(), E::Http2);
}

#[test]
fn connect_is_a_tunnel_or_an_upgrade() {
    let mut tunnel = parts("CONNECT", "e.example:443", &[]);
    let (_, head) = read(&tunnel, None, false).unwrap();
    assert_eq!((head.form(), head.target()), (TargetForm::Authority, "e.example:443"));
    tunnel = parts("CONNECT", "https://h/chat", &[("sec-websocket-version", "13")]);
    assert_eq!(read(&tunnel, None, false).unwrap_err(), E::Target);
    let (parsed, head) = read(&tunnel, Some("websocket"), false).unwrap();
    assert_eq!((&head.method, head.upgrade(), parsed.body), (&Method::GET, Some("websocket"), BodyLength::None));
    assert_eq!(
        written(&head, parsed.body),
        "GET /chat HTTP/1.1\r\nHost: h\r\nsec-websocket-version: 13\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    assert_eq!(read(&tunnel, Some("a b"), false).unwrap_err(), E::Http2);
    assert_eq!(read(&parts("GET", "https://h/", &[]), Some("websocket"), false).unwrap_err(), E::Http2);
}

#[test]
fn limits_hold() {
    let limits = HeadLimits { line: 100, head: 30, fields: 2 };
    let mut head = RequestHead::default();
    for fields in [&[("a", "1"), ("b", "2"), ("c", "3")][..], &[("a", "12345678901234567890123456")]] {
        let parts = parts("GET", "http://h/", fields);
        assert_eq!(head.read_h2(&parts, None, true, &limits), Err(E::TooLarge));
    }
}

#[test]
fn heads_become_maps_without_what_http_2_has_not() {
    let mut head = RequestHead::new(Method::POST, "/a?b", "h:81").unwrap();
    for (name, value) in
        [("X-A", "1"), ("Connection", "upgrade"), ("Upgrade", "x"), ("TE", "trailers"), ("Content-Length", "9"), ("x-a", "2")]
    {
        head.fields.append(name, value).unwrap();
    }
    let map = head.to_header_map(BodyLength::Fixed(3));
    let mut seen: Vec<_> = map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    seen.sort();
    assert_eq!(seen, ["content-length: 3", "te: trailers", "x-a: 1", "x-a: 2"]);
    assert!(!head.to_header_map(BodyLength::Chunked).contains_key("content-length"));
    assert_eq!(head.to_uri(true).unwrap(), "https://h:81/a?b");
    head.set_target("/a<b>").unwrap();
    assert!(head.to_uri(true).is_err());

    let response = Response::builder().status(418).header("content-length", "7").header("x", "y").body(()).unwrap();
    let (parts, ()) = response.into_parts();
    let mut head = ResponseHead::default();
    let limits = HeadLimits::default();
    assert_eq!(head.read_h2(&parts, &Method::GET, false, &limits).unwrap().body, BodyLength::Fixed(7));
    assert_eq!(head.read_h2(&parts, &Method::GET, true, &limits), Err(E::ContentLength));
    assert_eq!(head.read_h2(&parts, &Method::HEAD, true, &limits).unwrap().body, BodyLength::None);
    assert_eq!((head.status, head.version()), (StatusCode::IM_A_TEAPOT, Version::HTTP_2));
    assert_eq!(head.to_header_map(BodyLength::None)["content-length"], "7");
    let (parts, ()) = Response::new(()).into_parts();
    assert_eq!(head.read_h2(&parts, &Method::GET, false, &limits).unwrap().body, BodyLength::Chunked);
    assert_eq!(head.read_h2(&parts, &Method::GET, true, &limits).unwrap().body, BodyLength::Fixed(0));
}

#[test]
fn trailers_pass_in_both_directions() {
    let mut map = http::HeaderMap::new();
    map.insert("grpc-status", "0".parse().unwrap());
    map.insert("host", "evil".parse().unwrap());
    let mut fields = Fields::new();
    fields.read_h2_trailers(&map, &HeadLimits::default()).unwrap();
    assert_eq!(fields.iter().collect::<Vec<_>>(), [("grpc-status", b"0".as_slice())]);
    assert_eq!(fields.to_trailer_map()["grpc-status"], "0");
    map.insert("transfer-encoding", "chunked".parse().unwrap());
    assert_eq!(fields.read_h2_trailers(&map, &HeadLimits::default()), Err(E::Http2));
}

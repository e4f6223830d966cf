//! Heads of requests.

use coracle_proxy_http::*;

fn parse(bytes: &[u8]) -> Result<(Parsed, RequestHead), ParseError> {
    let mut head = RequestHead::default();
    let parsed = parse_request(bytes, &HeadLimits::default(), &mut head)?.unwrap();
    Ok((parsed, head))
}

#[test]
fn an_ordinary_request_is_written_as_it_came_with_its_host_first() {
    let bytes =
        b"\r\nPOST /a%2Fb?c=d HTTP/1.1\r\nAccept: */*\r\nhost:h.example:80\r\nX-A:  b c \t\r\nContent-Length: 3\r\n\r\nabc";
    let (parsed, head) = parse(bytes).unwrap();
    assert_eq!(
        parsed,
        Parsed { head_len: bytes.len() - 3, body: BodyLength::Fixed(3), keep_alive: true, expects_continue: false }
    );
    assert_eq!((head.path(), head.query(), head.host()), ("/a%2Fb", Some("c=d"), "h.example:80"));
    let mut out = Vec::new();
    head.write_to(&mut out, parsed.body);
    let expected = "POST /a%2Fb?c=d HTTP/1.1\r\nHost: h.example:80\r\nAccept: */*\r\nX-A: b c\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

//! Fields of one connection.

use coracle_proxy_http::{Asked, BodyLength, Fields, strip_request, strip_response};

use crate::{request, request_with};

fn names(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}

#[test]
fn fields_of_the_connection_are_taken_off() {
    let mut head = request_with(
        "Connection: close, X-Secret, content-length, host, X-Forwarded-For\r\nConnection: x-other,,\r\nX-Secret: 1\r\nx-OTHER: 2\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers;q=1, Trailers\r\nTransfer-Encoding: chunked\r\n\
         X-Forwarded-For: 1.2.3.4\r\nHTTP2-Settings: x\r\nAccept: */*\r\n",
    );
    assert_eq!(strip_request(&mut head, BodyLength::Chunked, &[]), Asked { upgrade: false, trailers: true });
    assert_eq!(names(&head.fields), ["Host: h", "X-Forwarded-For: 1.2.3.4", "Accept: */*", "te: trailers"]);
}

#[test]
fn an_ordinary_request_loses_only_its_connection() {
    let mut head = request_with("Connection: keep-alive\r\nAccept: */*\r\n");
    assert_eq!(strip_request(&mut head, BodyLength::None, &[]), Asked::default());
    assert_eq!(names(&head.fields), ["Host: h", "Accept: */*"]);
}

#[test]
fn names_that_are_wished_to_pass_do() {
    let mut head = request_with("Foo: bar\r\nBar: foo\r\nConnection: Foo, Bar\r\n");
    strip_request(&mut head, BodyLength::None, &["foo"]);
    assert_eq!(names(&head.fields), ["Host: h", "Foo: bar", "connection: Foo"]);
}

#[test]
fn an_upgrade_is_passed_on_only_if_it_is_one() {
    let websocket = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let mut head = request_with(websocket);
    assert_eq!(head.upgrade(), Some("websocket"));
    assert!(strip_request(&mut head, BodyLength::None, &[]).upgrade);
    assert_eq!(names(&head.fields), ["Host: h", "Upgrade: websocket", "connection: upgrade"]);
    assert_eq!(head.upgrade(), Some("websocket"));
    for (version, lines, body) in [
        ("1.0", websocket, BodyLength::None),
        ("1.1", websocket, BodyLength::Fixed(1)),
        ("1.1", websocket, BodyLength::Chunked),
        ("1.1", "Upgrade: websocket\r\n", BodyLength::None),
        ("1.1", "Connection: upgrade\r\n", BodyLength::None),
        ("1.1", "Connection: upgrade\r\nUpgrade:\r\n", BodyLength::None),
        ("1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: websocket\r\n", BodyLength::None),
        ("1.1", "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", BodyLength::None),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n", BodyLength::None),
    ] {
        let (_, mut head) = request(format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n")).unwrap();
        assert!(!strip_request(&mut head, body, &[]).upgrade, "{lines}");
        assert_eq!(names(&head.fields), ["Host: h"]);
    }
}

#[test]
fn a_response_keeps_a_switch_and_loses_the_rest() {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Connection", "Upgrade, X-A, set-cookie"),
        ("X-A", "1"),
        ("Upgrade", "websocket"),
        ("Keep-Alive", "5"),
        ("Set-Cookie", "c"),
    ] {
        fields.append(name, value).unwrap();
    }
    let mut other = fields.clone();
    strip_response(&mut fields, true);
    assert_eq!(names(&fields), ["Upgrade: websocket", "connection: upgrade"]);
    strip_response(&mut other, false);
    assert!(other.is_empty());
}

//! What targets are told about clients.

use std::net::IpAddr;

use coracle_proxy_http::{Arrival, Forwarding, RequestHead, Trust, client_ip};

use crate::{request, request_with};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The fields other than `Host`, sorted, names in lower case.
fn told(head: &RequestHead) -> Vec<String> {
    let mut lines: Vec<_> = head
        .fields
        .iter()
        .map(|(name, value)| format!("{}: {}", name.to_ascii_lowercase(), String::from_utf8_lossy(value)))
        .filter(|line| !line.starts_with("host:"))
        .collect();
    lines.sort();
    lines
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
    X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /p\r\nX-Forwarded-Server: s\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\n\
    X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /u\r\nX-Forwarded-Tls-Client-Cert: c\r\nX-Forwarded-Anything: 1\r\nX-Scheme: https\r\n\
    X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: https\r\nX_Real_Ip: 6.6.6.6\r\n\
    x_request_id: 1\r\nX_Forwarded_New: 1\r\nX-Custom: kept\r\nX_other: kept\r\n";

#[test]
fn claims_of_strangers_are_replaced_by_facts() {
    let mut head = request(format!("GET / HTTP/1.1\r\nHost: app.example:8080\r\n{CLAIMS}\r\n")).unwrap().1;
    Forwarding::default().apply(&mut head, &Arrival::new(ip("10.0.0.1"), false));
    assert_eq!(
        told(&head),
        [
            "x-custom: kept",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: app.example:8080",
            "x-forwarded-port: 8080",
            "x-forwarded-proto: http",
            "x-real-ip: 10.0.0.1",
            "x_other: kept",
        ]
    );
}

#[test]
fn what_a_believed_peer_says_is_passed_on() {
    let mut head = request_with(CLAIMS);
    let trust = Trust::parse(["10.0.0.0/8"]).unwrap();
    Forwarding { trust, ..Forwarding::default() }.apply(&mut head, &Arrival::new(ip("::ffff:10.0.0.1"), false));
    assert_eq!(
        told(&head),
        [
            "forwarded: for=6.6.6.6",
            "x-custom: kept",
            "x-forwarded-anything: 1",
            "x-forwarded-for: 6.6.6.6, 7.7.7.7, 10.0.0.1",
            "x-forwarded-host: evil",
            "x-forwarded-method: GET",
            "x-forwarded-port: 1",
            "x-forwarded-prefix: /p",
            "x-forwarded-proto: https",
            "x-forwarded-scheme: https",
            "x-forwarded-server: s",
            "x-forwarded-ssl: on",
            "x-forwarded-tls-client-cert: c",
            "x-forwarded-uri: /u",
            "x-real-ip: 6.6.6.6",
            "x-scheme: https",
            "x_other: kept",
        ]
    );
}

#[test]
fn schemes_and_ports_follow_the_connection() {
    for (host, lines, tls, proto, port) in [
        ("h", "", false, "http", "80"),
        ("h", "", true, "https", "443"),
        ("h:8443", "", true, "https", "8443"),
        ("[::1]:81", "", false, "http", "81"),
        ("[::1]", "", false, "http", "80"),
        ("h:", "", false, "http", "80"),
        ("h", "Connection: upgrade\r\nUpgrade: WebSocket\r\n", false, "ws", "80"),
        ("h", "Connection: upgrade\r\nUpgrade: websocket\r\n", true, "wss", "443"),
        ("h", "Connection: upgrade\r\nUpgrade: other\r\n", true, "https", "443"),
        ("h", "X-Forwarded-Proto: https\r\n", false, "https", "443"),
        ("h", "X-Forwarded-Proto: wss\r\n", false, "wss", "443"),
    ] {
        let mut head = request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).unwrap().1;
        let forwarding = Forwarding { trust: Trust::everybody(), scheme_fields: true, ..Forwarding::default() };
        forwarding.apply(&mut head, &Arrival::new(ip("1.2.3.4"), tls));
        let fields = &head.fields;
        assert_eq!(fields.get_str("x-forwarded-proto"), Some(proto), "{host} {lines}");
        assert_eq!(fields.get_str("x-forwarded-scheme"), Some(proto));
        assert_eq!(fields.get_str("x-scheme"), Some(proto));
        assert_eq!(fields.get_str("x-forwarded-port"), Some(port), "{host} {lines}");
        assert_eq!(fields.get_str("x-forwarded-host"), Some(host));
    }
}

#[test]
fn the_options_do_what_they_say() {
    let mut head = request("GET / HTTP/1.0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").unwrap().1;
    let forwarding =
        Forwarding { trust: Trust::everybody(), append_peer: false, server: Some("edge".into()), ..Forwarding::default() };
    forwarding.apply(&mut head, &Arrival::new(ip("2001:db8::1"), false));
    assert_eq!(
        told(&head),
        [
            "x-forwarded-for: 6.6.6.6",
            "x-forwarded-port: 80",
            "x-forwarded-proto: http",
            "x-forwarded-server: edge",
            "x-real-ip: 6.6.6.6",
        ]
    );
}

#[test]
fn the_client_is_the_last_one_whom_nobody_believed_vouches_for() {
    let trust = Trust::parse(["10.0.0.0/8", " 192.168.1.1 ", "2001:db8::/32"]).unwrap();
    for (claimed, peer, expected) in [
        (&[][..], "1.2.3.4", "1.2.3.4"),
        (&["6.6.6.6"], "1.2.3.4", "1.2.3.4"),
        (&["6.6.6.6"], "10.0.0.1", "6.6.6.6"),
        (&["6.6.6.6, 7.7.7.7"], "10.0.0.1", "7.7.7.7"),
        (&["6.6.6.6", "7.7.7.7, 10.0.0.2"], "10.0.0.1", "7.7.7.7"),
        (&["10.0.0.3,10.0.0.2"], "10.0.0.1", "10.0.0.3"),
        (&["6.6.6.6, unknown"], "10.0.0.1", "10.0.0.1"),
        (&["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.1", "10.0.0.2"),
        (&["6.6.6.6:1234"], "10.0.0.1", "6.6.6.6"),
        (&["[2001:db9::1]:1234"], "2001:db8::5", "2001:db9::1"),
        (&["2001:db9::1"], "192.168.1.1", "2001:db9::1"),
        (&["::ffff:6.6.6.6"], "::ffff:10.0.0.1", "6.6.6.6"),
        (&[""], "10.0.0.1", "10.0.0.1"),
        (&[","], "10.0.0.1", "10.0.0.1"),
        (&["[6.6.6.6"], "10.0.0.1", "10.0.0.1"),
        (&["6.6.6.6"], "192.168.1.2", "192.168.1.2"),
    ] {
        let lines: String = claimed.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let head = request_with(&lines);
        assert_eq!(client_ip(&head.fields, ip(peer), &trust), ip(expected), "{claimed:?} {peer}");
    }
}

#[test]
fn ranges_that_are_none_are_named() {
    for bad in ["", "x", "10.0.0.0/33", "10.0.0", "10.0.0.1/", "::/129", "10.0.0.1-10.0.0.2"] {
        assert_eq!(Trust::parse(["10.0.0.1", bad]).unwrap_err().0, bad);
    }
    let trust = Trust::parse(["1.2.3.4/24"]).unwrap();
    assert!(trust.covers(ip("1.2.3.156")) && trust.covers(ip("::ffff:1.2.3.1")) && !trust.covers(ip("1.2.4.1")));
    assert!(!Trust::nobody().covers(ip("::1")) && Trust::everybody().covers(ip("::1")));
}

//! The PROXY header.

use std::net::SocketAddr;

use coracle_proxy_http::{BadProxyHeader, ProxyHeader, parse_proxy_header, write_proxy_v1, write_proxy_v2};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_written_is_read_again_and_never_before_it_is_complete() {
    for (source, destination) in [("1.2.3.4:5", "6.7.8.9:443"), ("[2001:db8::1]:65535", "[::1]:80"), ("1.2.3.4:0", "[::1]:80")] {
        let (source, destination) = (address(source), address(destination));
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        write_proxy_v1(source, destination, &mut v1);
        write_proxy_v2(Some((source, destination)), &mut v2);
        for mut bytes in [v1, v2] {
            let len = bytes.len();
            for cut in 0..len {
                assert_eq!(parse_proxy_header(&bytes[..cut]), Ok(None), "{cut}");
            }
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let header = parse_proxy_header(&bytes).unwrap().unwrap();
            let (from, to) = header.addresses.unwrap();
            assert_eq!(header.len, len);
            assert_eq!((from.ip().to_canonical(), from.port()), (source.ip(), source.port()));
            assert_eq!((to.ip().to_canonical(), to.port()), (destination.ip(), destination.port()));
        }
    }
    let mut local = Vec::new();
    write_proxy_v2(None, &mut local);
    assert_eq!(parse_proxy_header(&local), Ok(Some(ProxyHeader { len: 16, addresses: None })));
}

#[test]
fn lines_have_one_form() {
    assert_eq!(
        parse_proxy_header(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n\r\n"),
        Ok(Some(ProxyHeader { len: 33, addresses: Some((address("1.2.3.4:9"), address("5.6.7.8:10"))) }))
    );
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"] {
        let expected = ProxyHeader { len: unknown.len(), addresses: None };
        assert_eq!(parse_proxy_header(unknown.as_bytes()), Ok(Some(expected)));
    }
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(93));
    for bad in [
        "GET / HTTP/1.1\r\n",
        "G",
        "PROXZ",
        "proxy TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY \r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 +1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 01\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 \r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 9 10\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 9 10\r\n",
        "PROXY TCP4 ::1 ::1 9 10\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 9 10\r\n",
        "PROXY TCP6 [::1] ::1 9 10\r\n",
        "PROXY TCP6 ::1%1 ::1 9 10\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 1\r0\r\n",
        "PROXY UNKNOWN \0\r\n",
        "\r\n\r\nGET",
        &too_long,
        &too_long[..107],
    ] {
        assert_eq!(parse_proxy_header(bad.as_bytes()), Err(BadProxyHeader), "{bad:?}");
    }
}

#[test]
fn binary_headers_are_bounded_and_what_follows_the_addresses_is_skipped() {
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    let header = |rest: &[u8]| [start, rest].concat();
    let (source, destination) = (address("1.2.3.4:9"), address("5.6.7.8:10"));
    let pair = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10];
    let with_more = header(&[&[0x21, 0x11, 0, 16], pair.as_slice(), &[4, 0, 1, 0]].concat());
    assert_eq!(parse_proxy_header(&with_more), Ok(Some(ProxyHeader { len: 32, addresses: Some((source, destination)) })));
    // Unix sockets, datagrams, and the balancer's own connections.
    for kind in [[0x21, 0x12, 0, 12], [0x21, 0x31, 0, 12], [0x21, 0, 0, 12], [0x20, 0x11, 0, 12]] {
        let bytes = header(&[kind.as_slice(), &pair].concat());
        assert_eq!(parse_proxy_header(&bytes), Ok(Some(ProxyHeader { len: 28, addresses: None })), "{kind:?}");
    }
    for bad in [
        &[0x11][..],
        &[0x22],
        &[0x31],
        &[0x21, 0x41],
        &[0x21, 0x13],
        &[0x21, 0x11, 0x10, 0x01],
        &[0x21, 0x11, 0xff, 0xff],
        &[0x21, 0x11, 0, 3, 1, 2, 3],
        &[0x21, 0x21, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10],
    ] {
        assert_eq!(parse_proxy_header(&header(bad)), Err(BadProxyHeader), "{bad:?}");
    }
}

//! What holds for any bytes.

use coracle_proxy_http::{
    BodyLength, Fields, HeadLimits, HeadSearch, RequestHead, ResponseHead, parse_request, parse_request_head, parse_response,
};
use http::Method;
use proptest::prelude::*;

/// Bytes that look like a head now and then: pieces that matter, glued together.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "GET", "POST", " ", "/", "/a?b", "*", "http://h", "HTTP/1.1", "HTTP/1.0", "\r\n", "\r\n\r\n", "\n", "\r", ":", ": ",
            "Host: h\r\n", "Host", "Content-Length: 5\r\n", "Content-Length", "Transfer-Encoding: chunked\r\n", "chunked", "5", ",",
            "\t", "\0", "Connection: close\r\n", "X: y\r\n", "X_Y:z \r\n", "\u{e9}", "HTTP/1.1 200 OK\r\n", " 204 ", "\\", "#", "@", "[::1]",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    let valid_start = prop::sample::select(vec!["", "GET / HTTP/1.1\r\nHost: h\r\n", "HTTP/1.1 200 OK\r\n"]);
    (valid_start, prop::collection::vec(piece, 0..14), prop::bool::ANY).prop_map(|(start, pieces, ends)| {
        let mut bytes = start.as_bytes().to_vec();
        bytes.extend(pieces.concat());
        if ends {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_that_is_read_is_written_as_one_that_means_the_same(bytes in pieces()) {
        let limits = HeadLimits::default();
        let mut head = RequestHead::default();
        if let Ok(Some(parsed)) = parse_request(&bytes, &limits, &mut head) {
            let mut out = Vec::new();
            head.write_to(&mut out, parsed.body);
            let mut again = RequestHead::default();
            let reparsed = parse_request(&out, &limits, &mut again).unwrap().unwrap();
            prop_assert_eq!(reparsed.head_len, out.len());
            prop_assert_eq!(reparsed.body, parsed.body);
            prop_assert_eq!((&again.method, again.target(), again.host()), (&head.method, head.target(), head.host()));
            prop_assert_eq!(without_frame(&again.fields), without_frame(&head.fields));
            let mut twice = Vec::new();
            again.write_to(&mut twice, reparsed.body);
            prop_assert_eq!(twice, out);
        }
    }

    #[test]
    fn a_response_that_is_read_is_written_as_one_that_means_the_same(bytes in pieces()) {
        let limits = HeadLimits::default();
        for asked in [Method::GET, Method::HEAD] {
            let mut head = ResponseHead::default();
            if let Ok(Some(parsed)) = parse_response(&bytes, &asked, &limits, &mut head) {
                let mut out = Vec::new();
                head.write_to(&mut out, parsed.body, true);
                let mut again = ResponseHead::default();
                let reparsed = parse_response(&out, &asked, &limits, &mut again).unwrap().unwrap();
                prop_assert_eq!(reparsed.head_len, out.len());
                prop_assert_eq!(reparsed.body, parsed.body);
                prop_assert_eq!((again.status, again.reason()), (head.status, head.reason()));
                if parsed.body != BodyLength::UntilClose {
                    prop_assert_eq!(without_frame(&again.fields), without_frame(&head.fields));
                }
            }
        }
    }

    #[test]
    fn a_head_in_pieces_is_the_head_as_a_whole(bytes in pieces()) {
        let limits = HeadLimits::default();
        let mut whole = RequestHead::default();
        let expected = parse_request(&bytes, &limits, &mut whole);
        let mut search = HeadSearch::default();
        let mut found = Ok(None);
        for len in 1..=bytes.len() {
            found = search.find(&bytes[..len], &limits);
            if found != Ok(None) {
                break;
            }
        }
        let mut head = RequestHead::default();
        match found.map(|found| found.map(|end| parse_request_head(&bytes[..end], &limits, &mut head))) {
            Ok(Some(Ok(parsed))) => {
                prop_assert_eq!(Ok(Some(parsed)), expected);
                prop_assert_eq!(head, whole);
            }
            Ok(None) => prop_assert_eq!(Ok(None), expected),
            Ok(Some(Err(_))) | Err(_) => prop_assert!(expected.is_err()),
        }
    }
}

/// Fields that neither frame the message nor say where it goes.
fn without_frame(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let framing = ["host", "content-length", "transfer-encoding"];
    let rest = fields.iter().filter(|(name, _)| !framing.iter().any(|framing| framing.eq_ignore_ascii_case(name)));
    rest.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

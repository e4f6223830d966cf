//! What must hold for any bytes, one function per kind of message. Each panics if it does not hold, and returns whether the
//! bytes were taken for a message. Used by the test beside this file and by the targets in `fuzz/`.

use std::net::IpAddr;

use coracle_proxy_http::{
    Arrival, BodyLength, CHUNK_END, ChunkedDecoder, Forwarding, HeadLimits, HeadSearch, RequestHead, ResponseHead, Trust,
    client_ip, parse_proxy_header, parse_request, parse_request_head, parse_response, strip_request, strip_response,
    write_chunk_head, write_last_chunk, write_proxy_v1, write_proxy_v2,
};
use http::Method;

const LIMITS: HeadLimits = HeadLimits { line: 512, head: 2048, fields: 40 };

/// A request that is taken has one reading, and is written as one.
pub fn request_head(bytes: &[u8]) -> bool {
    let mut head = RequestHead::default();
    let whole = parse_request(bytes, &LIMITS, &mut head);
    in_pieces(bytes, whole.is_ok_and(|parsed| parsed.is_some()));
    let Ok(Some(parsed)) = whole else { return false };
    one_reading(&bytes[..parsed.head_len]);
    let asked = strip_request(&mut head, parsed.body, &[]);
    assert_eq!(asked.upgrade, head.upgrade().is_some());
    let mut out = Vec::new();
    head.write_to(&mut out, parsed.body);
    one_reading(&out);
    let mut again = RequestHead::default();
    let reparsed = parse_request_head(&out, &HeadLimits::default(), &mut again).expect("what is written can be read");
    assert_eq!((reparsed.head_len, reparsed.body), (out.len(), parsed.body));
    assert_eq!((&again.method, again.target(), again.host()), (&head.method, head.target(), head.host()));
    assert_eq!((again.path(), again.query()), (head.path(), head.query()));
    true
}

/// A response that is taken has one reading, and is written as one.
pub fn response_head(bytes: &[u8]) -> bool {
    let mut taken = false;
    for asked in [Method::GET, Method::HEAD, Method::CONNECT] {
        let mut head = ResponseHead::default();
        let Ok(Some(parsed)) = parse_response(bytes, &asked, &LIMITS, &mut head) else { continue };
        taken = true;
        strip_response(&mut head.fields, head.status.as_u16() == 101);
        let mut out = Vec::new();
        head.write_to(&mut out, parsed.body, parsed.keep_alive);
        let mut again = ResponseHead::default();
        let reparsed = parse_response(&out, &asked, &HeadLimits::default(), &mut again);
        let reparsed = reparsed.expect("what is written can be read").expect("and is complete");
        assert_eq!((reparsed.head_len, reparsed.body, again.status), (out.len(), parsed.body, head.status));
        assert_eq!(again.reason(), head.reason());
        if parsed.body != BodyLength::None {
            one_reading(&out);
        }
    }
    taken
}

/// A body in chunks has one end, however it is cut, and what is written of it is read as the same.
pub fn chunked(bytes: &[u8]) -> bool {
    let whole = decode(bytes, bytes.len().max(1));
    for step in [1, 3] {
        assert_eq!(decode(bytes, step), whole, "cut into pieces of {step}");
    }
    let Ok((data, trailers, Some(end))) = whole else { return false };
    assert!(bytes[..end].ends_with(b"\r\n") && end >= 5);
    // Nothing before the end is one already.
    assert!(decode(&bytes[..end - 1], end).is_ok_and(|(_, _, end)| end.is_none()));
    let mut out = Vec::new();
    if !data.is_empty() {
        write_chunk_head(data.len() as u64, &mut out);
        out.extend_from_slice(&data);
        out.extend_from_slice(CHUNK_END);
    }
    write_last_chunk(Some(&trailers), &mut out);
    assert_eq!(decode(&out, out.len()), Ok((data, trailers, Some(out.len()))));
    true
}

type Decoded = (Vec<u8>, coracle_proxy_http::Fields, Option<usize>);

fn decode(bytes: &[u8], step: usize) -> Result<Decoded, coracle_proxy_http::BadChunk> {
    let mut decoder = ChunkedDecoder::new();
    let (mut data, mut at) = (Vec::new(), 0);
    while at < bytes.len() && !decoder.is_end() {
        let input = &bytes[at..bytes.len().min(at + step)];
        let chunk = decoder.decode(input)?;
        assert!(chunk.consumed > 0 && chunk.data.end <= chunk.consumed && chunk.consumed <= input.len());
        data.extend_from_slice(&input[chunk.data]);
        at += chunk.consumed;
    }
    let end = decoder.is_end().then_some(at);
    Ok((data, decoder.take_trailers().map(|trailers| *trailers).unwrap_or_default(), end))
}

/// A PROXY header is known to be one, or none, by its own bytes alone.
pub fn proxy_header(bytes: &[u8]) -> bool {
    let whole = parse_proxy_header(bytes);
    for cut in 0..bytes.len() {
        match parse_proxy_header(&bytes[..cut]) {
            Ok(None) => (),
            known => {
                assert_eq!(known, whole, "further bytes change nothing");
                break;
            }
        }
    }
    let Ok(Some(header)) = whole else { return false };
    assert!(header.len <= bytes.len());
    if let Some((source, destination)) = header.addresses {
        let mut out = Vec::new();
        write_proxy_v1(source, destination, &mut out);
        assert_eq!(parse_proxy_header(&out).unwrap().unwrap().addresses, header.addresses);
        out.clear();
        write_proxy_v2(header.addresses, &mut out);
        assert_eq!(parse_proxy_header(&out).unwrap().unwrap().addresses, header.addresses);
    }
    true
}

/// A stranger is not believed, and whatever anybody says is told in one field of each kind.
pub fn forwarded(bytes: &[u8]) -> bool {
    let mut original = RequestHead::default();
    let Ok(Some(parsed)) = parse_request(bytes, &LIMITS, &mut original) else { return false };
    let peer = IpAddr::from([10, 0, 0, 1]);
    for trust in [Trust::nobody(), Trust::parse(["10.0.0.0/8"]).unwrap(), Trust::everybody()] {
        let mut head = original.clone();
        strip_request(&mut head, parsed.body, &[]);
        let believed = trust.covers(peer);
        assert!(believed || client_ip(&head.fields, peer, &trust) == peer);
        Forwarding { trust, ..Forwarding::default() }.apply(&mut head, &Arrival::new(peer, false));
        assert_eq!(head.fields.count("x-forwarded-for"), 1);
        if !believed {
            assert_eq!(head.fields.get_str("x-forwarded-for"), Some("10.0.0.1"));
            assert_eq!(head.fields.get_str("x-real-ip"), Some("10.0.0.1"));
            assert!(head.fields.get_str("x-forwarded-host").unwrap_or_default() == head.host());
        }
        for (name, _) in head.fields.iter() {
            let folded = name.to_ascii_lowercase().replace('_', "-");
            let tells = folded.starts_with("x-forwarded-") || folded == "x-real-ip";
            assert!(!tells || !name.contains('_'), "{name} can be taken for {folded}");
            assert!(!tells || believed || head.fields.count(name) == 1);
            assert!(believed || folded != "forwarded");
        }
        let mut out = Vec::new();
        head.write_to(&mut out, parsed.body);
        one_reading(&out);
    }
    true
}

/// The search for the end comes to the same, byte by byte.
fn in_pieces(bytes: &[u8], taken: bool) {
    let mut search = HeadSearch::default();
    for len in 1..=bytes.len() {
        match search.find(&bytes[..len], &LIMITS) {
            Ok(None) => (),
            Ok(Some(end)) => {
                let mut head = RequestHead::default();
                assert_eq!(parse_request_head(&bytes[..end], &LIMITS, &mut head).is_ok(), taken);
                return;
            }
            Err(_) => {
                assert!(!taken, "refused in pieces, taken as a whole");
                return;
            }
        }
    }
    assert!(!taken, "taken as a whole, never complete in pieces");
}

/// Looked at by the most careless of readers, the head still has one frame only.
fn one_reading(head: &[u8]) {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    assert!(!text.contains('\0'));
    assert_eq!(text.matches('\r').count(), text.matches("\r\n").count(), "a bare CR");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "a bare LF");
    assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1);
    let lines: Vec<_> = text.trim_matches(['\r', '\n']).split("\r\n").skip(1).collect();
    assert!(lines.iter().all(|line| !line.starts_with([' ', '\t'])), "a folded line");
    let named = |wanted: &str| {
        let names = lines.iter().map(|line| line.split(':').next().unwrap().trim().to_ascii_lowercase().replace('_', "-"));
        names.filter(|name| name == wanted).count()
    };
    assert!(named("host") <= 1 || text.starts_with("HTTP/"), "two hosts: {text:?}");
    assert!(named("content-length") + named("transfer-encoding") <= 1, "two frames: {text:?}");
}

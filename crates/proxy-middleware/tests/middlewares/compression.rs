//! Compressed answers.

use std::io::Read;

use coracle_proxy_middleware::{Encoder, State};
use coracle_proxy_table::Encoding;
use proptest::prelude::*;

use crate::{answered, back, chain, field, response, text, try_chain};

fn decode(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        Encoding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        Encoding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
    };
    out
}

proptest! {
    #[test]
    fn bodies_come_back_as_they_were_however_they_are_cut(
        pieces in prop::collection::vec((prop::collection::vec(prop::sample::select(b"abc ".to_vec()), 0..300), any::<bool>()), 0..12),
        is_known in any::<bool>(),
    ) {
        let length = is_known.then(|| pieces.iter().map(|(piece, _)| piece.len() as u64).sum());
        for encoding in [Encoding::Gzip, Encoding::Br, Encoding::Zstd] {
            let (mut encoder, mut out) = (Encoder::new(encoding, length).unwrap(), Vec::new());
            for (piece, flush) in &pieces {
                encoder.encode(piece, &mut out).unwrap();
                if *flush {
                    encoder.flush(&mut out).unwrap();
                }
            }
            encoder.finish(&mut out).unwrap();
            let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            prop_assert_eq!(decode(encoding, &out), whole);
        }
    }
}

#[test]
fn what_is_flushed_can_be_read_at_once() {
    for encoding in [Encoding::Gzip, Encoding::Br, Encoding::Zstd] {
        let (mut encoder, mut out) = (Encoder::new(encoding, None).unwrap(), Vec::new());
        encoder.encode(b"first line\n", &mut out).unwrap();
        encoder.flush(&mut out).unwrap();
        let mut read = [0; 11];
        match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(&out[..]).read_exact(&mut read).unwrap(),
            Encoding::Br => brotli::Decompressor::new(&out[..], 4096).read_exact(&mut read).unwrap(),
            Encoding::Zstd => zstd::stream::read::Decoder::new(&out[..]).unwrap().read_exact(&mut read).unwrap(),
        }
        assert_eq!(&read, b"first line\n", "{encoding:?}");
    }
}

const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");
const LONG: (&str, &str) = ("Content-Length", "4000");

#[tokio::test]
async fn the_head_says_what_became_of_the_body() {
    let compress = chain(&[r#"{"compress":{}}"#]);
    let answer = response(200, &[HTML, LONG, ("ETag", "\"v1\""), ("Accept-Ranges", "bytes"), ("Vary", "Cookie")]);
    let (head, after) = back(&compress, "GET http://a.test/", &[("Accept-Encoding", "gzip, br")], answer).await;
    assert!(after.encoder.is_some());
    for (name, value) in [
        ("content-encoding", Some("br")),
        ("content-length", None),
        ("etag", Some("W/\"v1\"")),
        ("accept-ranges", None),
        ("vary", Some("Cookie, Accept-Encoding")),
    ] {
        assert_eq!(field(&head.fields, name), value, "{name}");
    }
    // For whoever does not want it, nothing changes but `Vary`.
    let answer = response(200, &[HTML, LONG, ("ETag", "\"v1\"")]);
    let (head, after) = back(&compress, "GET http://a.test/", &[], answer).await;
    assert!(after.encoder.is_none());
    assert_eq!([field(&head.fields, "etag"), field(&head.fields, "vary")], [Some("\"v1\""), Some("Accept-Encoding")]);
    assert_eq!(field(&head.fields, "content-length"), Some("4000"));
}

#[tokio::test]
async fn some_answers_are_left_alone() {
    let compress = chain(&[r#"{"compress":{}}"#]);
    for (line, status, fields, compressed) in [
        ("GET", 200, &[HTML, LONG][..], true),
        ("GET", 404, &[HTML, LONG], true),
        ("GET", 200, &[HTML], true),
        ("GET", 200, &[("Content-Type", "image/svg+xml")], true),
        ("GET", 200, &[("Content-Type", "application/json")], true),
        ("HEAD", 200, &[HTML, LONG], false),
        ("GET", 204, &[HTML], false),
        ("GET", 206, &[HTML, ("Content-Range", "bytes 0-1/2")], false),
        ("GET", 304, &[HTML], false),
        ("GET", 200, &[HTML, ("Content-Length", "1023")], false),
        ("GET", 200, &[HTML, LONG, ("Content-Encoding", "gzip")], false),
        ("GET", 200, &[HTML, LONG, ("Cache-Control", "max-age=1, No-Transform")], false),
        ("GET", 200, &[LONG], false),
        ("GET", 200, &[("Content-Type", "text/event-stream; charset=utf-8")], false),
        ("GET", 200, &[("Content-Type", "application/grpc+proto")], false),
        ("GET", 200, &[("Content-Type", "image/png")], false),
        ("GET", 200, &[("Content-Type", "VIDEO/mp4")], false),
        ("GET", 200, &[("Content-Type", "application/zip")], false),
    ] {
        let line = format!("{line} http://a.test/");
        let (head, after) = back(&compress, &line, &[("Accept-Encoding", "gzip")], response(status, fields)).await;
        assert_eq!(after.encoder.is_some(), compressed, "{line} {status} {fields:?}");
        assert_eq!(field(&head.fields, "content-encoding") == Some("gzip") && after.encoder.is_some(), compressed);
    }
}

#[tokio::test]
async fn types_encodings_and_sizes_are_chosen_by_settings() {
    let gzip = &[("Accept-Encoding", "gzip")][..];
    for (settings, asked, fields, compressed) in [
        (r#"{"excluded_content_types":["text/HTML"]}"#, gzip, &[HTML, LONG][..], false),
        (r#"{"included_content_types":["image/png"]}"#, gzip, &[("Content-Type", "image/png"), LONG], true),
        (r#"{"included_content_types":["image/png"]}"#, gzip, &[HTML, LONG], false),
        (r#"{"included_content_types":["text/event-stream"]}"#, gzip, &[("Content-Type", "text/event-stream")], false),
        (r#"{"min_response_body_bytes":5000}"#, gzip, &[HTML, LONG], false),
        (r#"{"min_response_body_bytes":0}"#, gzip, &[HTML, ("Content-Length", "1")], true),
        (r#"{"encodings":["br"]}"#, gzip, &[HTML, LONG], false),
        (r#"{"default_encoding":"gzip"}"#, &[], &[HTML, LONG], true),
        (r#"{"default_encoding":"gzip"}"#, &[("Accept-Encoding", "identity")], &[HTML, LONG], false),
    ] {
        let compress = chain(&[&format!(r#"{{"compress":{settings}}}"#)]);
        let (_, after) = back(&compress, "GET http://a.test/", asked, response(200, fields)).await;
        assert_eq!(after.encoder.is_some(), compressed, "{settings} {asked:?}");
    }
    for settings in [
        r#"{"encodings":[]}"#,
        r#"{"encodings":["br"],"default_encoding":"gzip"}"#,
        r#"{"included_content_types":["a/b"],"excluded_content_types":["c/d"]}"#,
        r#"{"included_content_types":["html"]}"#,
    ] {
        assert!(try_chain(&[&format!(r#"{{"compress":{settings}}}"#)], &State::new()).is_err(), "{settings}");
    }
}

#[tokio::test]
async fn answers_of_middlewares_behind_it_are_compressed_at_once() {
    let compress = chain(&[r#"{"compress":{"min_response_body_bytes":1}}"#, r#"{"maintenance":{"message":"Back at noon."}}"#]);
    let asked = [("Accept", "text/html"), ("Accept-Encoding", "zstd")];
    let answer = answered(&compress, "GET http://a.test/", &asked).await;
    assert_eq!(field(&answer.head.fields, "content-encoding"), Some("zstd"));
    let body = crate::body(&answer);
    assert_eq!(field(&answer.head.fields, "content-length"), Some(body.len().to_string().as_str()));
    assert!(answer.encoder.is_none());
    assert!(String::from_utf8(decode(Encoding::Zstd, &body)).unwrap().contains("Back at noon."));
    let plain = answered(&compress, "GET http://a.test/", &[("Accept", "text/html")]).await;
    assert!(text(&plain).contains("Back at noon."));
}

//! Bodies in chunks.

use coracle_proxy_http::{BadChunk, CHUNK_END, ChunkedDecoder, Fields, ParseError, write_chunk_head, write_last_chunk};

/// The data, the trailers, and how many bytes the body took; with the bytes given in pieces of `step`.
fn decode(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Fields, Option<usize>), BadChunk> {
    let mut decoder = ChunkedDecoder::new();
    let mut data = Vec::new();
    let mut at = 0;
    while at < bytes.len() && !decoder.is_end() {
        let input = &bytes[at..bytes.len().min(at + step)];
        let chunk = decoder.decode(input)?;
        data.extend_from_slice(&input[chunk.data]);
        assert!(chunk.consumed > 0 && chunk.consumed <= input.len());
        at += chunk.consumed;
        assert_eq!(chunk.end, decoder.is_end());
    }
    let end = decoder.is_end().then_some(at);
    Ok((data, decoder.take_trailers().map(|trailers| *trailers).unwrap_or_default(), end))
}

#[test]
fn data_is_found_however_it_is_cut() {
    let bytes = b"5\r\nhello\r\n00A;a=b ; c=\"d;\\\"\t\" ;e\r\n 123456789\r\n0;x\r\nETag: \"e\"\r\nX-Sum:  1 \r\n\r\nGET /";
    for step in 1..=bytes.len() {
        let (data, trailers, end) = decode(bytes, step).unwrap();
        assert_eq!(data, b"hello 123456789", "{step}");
        assert_eq!(end, Some(bytes.len() - 5));
        let trailers: Vec<_> = trailers.iter().collect();
        assert_eq!(trailers, [("ETag", b"\"e\"".as_slice()), ("X-Sum", b"1")]);
    }
    assert_eq!(decode(b"0\r\n\r\n", 1).unwrap(), (Vec::new(), Fields::new(), Some(5)));
    assert_eq!(decode(b"5\r\nhel", 3).unwrap().2, None);
}

#[test]
fn what_two_readers_could_end_in_two_places_is_refused() {
    let trailers = BadChunk::Trailers;
    for (bytes, error) in [
        ("\r\n", BadChunk::Size),
        (";a\r\n", BadChunk::Size),
        (" 5\r\nhello", BadChunk::Size),
        ("+5\r\n", BadChunk::Size),
        ("-1\r\n", BadChunk::Size),
        ("0x5\r\n", BadChunk::Size),
        ("5g\r\n", BadChunk::Size),
        ("5_\r\n", BadChunk::Size),
        ("5,\r\n", BadChunk::Size),
        ("\u{ff15}\r\n", BadChunk::Size),
        // Sizes beyond 63 bits: read in 32 or 64 bits they would be small.
        ("8000000000000000\r\n", BadChunk::Size),
        ("ffffffffffffffff\r\n", BadChunk::Size),
        ("10000000000000005\r\n", BadChunk::Size),
        ("00000000000000005\r\n", BadChunk::Size),
        // Line ends.
        ("5\nhello", BadChunk::LineEnd),
        ("5\rhello", BadChunk::LineEnd),
        ("5\r\r\n", BadChunk::LineEnd),
        ("5;a\nhello", BadChunk::LineEnd),
        ("5;\n", BadChunk::LineEnd),
        ("5 \n", BadChunk::LineEnd),
        ("5;a=\"\n\"\r\n", BadChunk::LineEnd),
        ("5;a\rb\r\n", BadChunk::LineEnd),
        ("5\r\nhello\n", BadChunk::LineEnd),
        ("5\r\nhello\r\r\n", BadChunk::LineEnd),
        ("5\r\nhelloX\r\n", BadChunk::LineEnd),
        ("5\r\nhello0\r\n", BadChunk::LineEnd),
        ("5\r\nhello\rX", BadChunk::LineEnd),
        ("0\n\n", BadChunk::LineEnd),
        ("0\r\n\n", BadChunk::LineEnd),
        ("0\r\nX: y\n\r\n", BadChunk::LineEnd),
        // Extensions.
        ("5 \r\n", BadChunk::Extension),
        ("5\t\r\n", BadChunk::Extension),
        ("5 5\r\n", BadChunk::Extension),
        ("5;\r\n", BadChunk::Extension),
        ("5;;a\r\n", BadChunk::Extension),
        ("5;=\r\n", BadChunk::Extension),
        ("5;\0\r\n", BadChunk::Extension),
        ("5;a=\x0b\r\n", BadChunk::Extension),
        ("5;a=\"\r\n", BadChunk::Extension),
        ("5;a=\"b\\\r\n", BadChunk::Extension),
        // Trailers.
        ("0\r\n X: y\r\n\r\n", trailers(ParseError::Folded)),
        ("0\r\nX : y\r\n\r\n", trailers(ParseError::FieldName)),
        ("0\r\nX: y\r\n z\r\n\r\n", trailers(ParseError::Folded)),
        ("0\r\nX: \0\r\n\r\n", trailers(ParseError::FieldValue)),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", trailers(ParseError::FieldName)),
        ("0\r\n\rX: y\r\n\r\n", trailers(ParseError::LineEnd)),
    ] {
        for step in [1, 2, bytes.len()] {
            match decode(bytes.as_bytes(), step) {
                Err(found) => assert_eq!(found, error, "{bytes:?}"),
                Ok(found) => panic!("let through: {bytes:?} {found:?}"),
            }
        }
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let long = format!("5;{}", "a".repeat(20_000));
    assert_eq!(decode(long.as_bytes(), 1000).unwrap_err(), BadChunk::Extension);
    let many = "1;aaaaaaaa\r\nx\r\n".repeat(2000);
    assert_eq!(decode(many.as_bytes(), 1000).unwrap_err(), BadChunk::Extension);
    let endless = format!("0\r\nX: {}", "a".repeat(9000));
    assert_eq!(decode(endless.as_bytes(), 1000).unwrap_err(), BadChunk::Trailers(ParseError::TooLarge));
    let fields = format!("0\r\n{}\r\n", "A:b\r\n".repeat(65));
    assert_eq!(decode(fields.as_bytes(), 1000).unwrap_err(), BadChunk::Trailers(ParseError::TooLarge));
}

#[test]
fn trailers_cannot_change_what_the_head_said() {
    let bytes = "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nAuthorization: x\r\nCookie: a\r\n\
        Set-Cookie: b\r\nX-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\nContent_Length: 5\r\nConnection: close\r\n\
        Content-Type: text/html\r\nContent-Security-Policy: x\r\nTrailer: y\r\nIf-Foo: z\r\nX-HTTP-Method-Override: PUT\r\n\
        Grpc-Status: 0\r\nContent-Digest: d\r\nServer-Timing: t\r\n\r\n";
    let (_, trailers, _) = decode(bytes.as_bytes(), 7).unwrap();
    let kept: Vec<_> = trailers.iter().map(|(name, _)| name).collect();
    assert_eq!(kept, ["Grpc-Status", "Content-Digest", "Server-Timing"]);
}

#[test]
fn what_is_written_is_read_again() {
    let mut trailers = Fields::new();
    trailers.append("X-Sum", "1").unwrap();
    let mut out = Vec::new();
    for data in [b"a".as_slice(), &[b'b'; 15], &[b'c'; 16], &[b'd'; 70_000]] {
        write_chunk_head(data.len() as u64, &mut out);
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
    write_last_chunk(Some(&trailers), &mut out);
    assert!(out.starts_with(b"1\r\na\r\nf\r\nbbb") && out.ends_with(b"\r\n0\r\nX-Sum: 1\r\n\r\n"));
    for step in [1, 4096, out.len()] {
        let (data, read, end) = decode(&out, step).unwrap();
        assert_eq!((data.len(), read, end), (70_032, trailers.clone(), Some(out.len())));
    }
    let mut out = Vec::new();
    write_last_chunk(None, &mut out);
    assert_eq!(out, b"0\r\n\r\n");
    out.clear();
    write_chunk_head(u64::MAX, &mut out);
    assert_eq!(out, b"ffffffffffffffff\r\n");
}

#[test]
fn a_body_that_is_refused_has_no_end() {
    for bytes in ["0\r\nX : y\r\n\r\n", "0\r\nGET / HTTP/1.1\r\n\r\n", "1\r\nab\r\n0\r\n\r\n"] {
        let mut decoder = ChunkedDecoder::new();
        let mut at = 0;
        let refused = loop {
            match decoder.decode(&bytes.as_bytes()[at..]) {
                Ok(chunk) if !chunk.end && chunk.consumed > 0 => at += chunk.consumed,
                other => break other.is_err(),
            }
        };
        assert!(refused && !decoder.is_end(), "{bytes:?}");
    }
}

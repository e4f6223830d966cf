//! Requests of HTTP/2, written as no client would, that must not become two of HTTP/1.1, or another than was asked for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::shapes::World;
use crate::env::{Wire, soon};

type Field = (&'static [u8], &'static [u8]);

/// What comes back on a stream.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// An answer with status 200.
    Ok,
    /// Another answer, a reset, or the end of the connection.
    Refused,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A literal that is not indexed, with a new name and without Huffman (RFC 7541, section 6.2.2).
fn literal((name, value): &Field) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).unwrap());
        } else {
            bytes.extend([127, u8::try_from((length - 127) % 128 + 128).unwrap(), u8::try_from((length - 127) / 128).unwrap()]);
        }
        bytes.extend_from_slice(text);
    }
    bytes
}

fn block(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(literal).collect()
}

/// Sends one request, and how it is answered.
async fn ask(world: &World, fields: &[Field], data: Option<&[u8]>, trailers: Option<&[Field]>) -> Said {
    let mut wire: Wire = world.env.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    let ends = data.is_none() && trailers.is_none();
    bytes.extend(frame(1, 4 | u8::from(ends), 1, &block(fields)));
    if let Some(data) = data {
        bytes.extend(frame(0, u8::from(trailers.is_none()), 1, data));
    }
    if let Some(trailers) = trailers {
        bytes.extend(frame(1, 5, 1, &block(trailers)));
    }
    wire.stream.write_all(&bytes).await.unwrap();
    soon(async {
        loop {
            let mut head = [0; 9];
            if wire.stream.read_exact(&mut head).await.is_err() {
                return Said::Refused;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if wire.stream.read_exact(&mut payload).await.is_err() {
                return Said::Refused;
            }
            match head[3] {
                // `:status: 200` is number 8 of the static table.
                1 if payload.first() == Some(&0x88) => return Said::Ok,
                1 | 3 | 7 => return Said::Refused,
                _ => (),
            }
        }
    })
    .await
}

const METHOD: &[u8] = b":method";
const SCHEME: Field = (b":scheme", b"http");
const PATH: Field = (b":path", b"/x");
const AUTHORITY: Field = (b":authority", b"h");
const GET: Field = (METHOD, b"GET");
const POST: Field = (METHOD, b"POST");
const INNER: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

async fn passes(world: &mut World, fields: &[Field], data: Option<&[u8]>, trailers: Option<&[Field]>) {
    is(world, fields, data, trailers, Said::Ok).await;
}

async fn fails(world: &mut World, fields: &[Field], data: Option<&[u8]>) {
    is(world, fields, data, None, Said::Refused).await;
}

async fn is(world: &mut World, fields: &[Field], data: Option<&[u8]>, trailers: Option<&[Field]>, expected: Said) {
    let lossy =
        |fields: &[Field]| fields.iter().map(|(n, v)| [n, v].map(|t| String::from_utf8_lossy(t)).join("=")).collect::<Vec<_>>();
    let name = format!("{:?} with {:?}, {:?}", lossy(fields), data.map(String::from_utf8_lossy), trailers.map(lossy));
    let said = ask(world, fields, data, trailers).await;
    let mut other = world.env.connect().await;
    world.innocent(&mut other, "innocent").await;
    world.check(&name, usize::from(expected == Said::Ok));
    assert_eq!(said, expected, "{name}");
}

/// A request with one more field.
async fn field_fails(world: &mut World, field: Field) {
    fails(world, &[GET, SCHEME, PATH, AUTHORITY, field], None).await;
    fails(world, &[POST, SCHEME, PATH, AUTHORITY, field], Some(INNER)).await;
}

#[tokio::test]
async fn good_requests_pass() {
    let world = &mut World::new().await;
    let get = [GET, SCHEME, PATH, AUTHORITY];
    let post = [POST, SCHEME, PATH, AUTHORITY];
    passes(world, &get, None, None).await;
    passes(world, &post, Some(INNER), None).await;
    passes(world, &post, Some(b""), None).await;
    passes(world, &post, Some(b"hi"), Some(&[(b"x-sum", b"y")])).await;
    // These are dropped.
    for trailer in
        [(&b"content-length"[..], &b"5"[..]), (b"host", b"evil"), (b"x-forwarded-for", b"1.2.3.4"), (b"content_length", b"3")]
    {
        passes(world, &post, Some(b"hi"), Some(&[trailer])).await;
    }
    let extended = |field: Field| [GET, SCHEME, PATH, AUTHORITY, field];
    for field in [
        (&b"te"[..], &b"trailers"[..]),
        (b"cookie", b"a=b"),
        (b"host", b"h"),
        (b"x", b""),
        (b"x", b"\xe9\xff"),
        (b"x", b"GET / HTTP/1.1"),
    ] {
        passes(world, &extended(field), None, None).await;
    }
    // The `http` crate leaves a fragment out before anybody sees it.
    passes(world, &[GET, SCHEME, (b":path", b"/#smuggled"), AUTHORITY], None, None).await;
    passes(world, &[(METHOD, b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY], None, None).await;
    passes(world, &[POST, SCHEME, PATH, AUTHORITY, (b"content-length", b"2")], Some(b"hi"), None).await;
    passes(world, &[POST, SCHEME, PATH, AUTHORITY, (b"content-length", b"0")], Some(b""), None).await;
}

#[tokio::test]
async fn names_and_values_cannot_end_a_line() {
    let world = &mut World::new().await;
    for value in [
        &b"a\r\nX: y"[..],
        b"a\nX: y",
        b"a\rX: y",
        b"a\0",
        b"\x01",
        b"\x7f",
        b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h",
        b"a\r\nTransfer-Encoding: chunked",
        b"\n",
        b"\r\n a",
        b" a",
        b"a ",
        b"\ta",
    ] {
        field_fails(world, (b"x", value)).await;
    }
    for name in [
        &b""[..],
        b"x:",
        b"x: y",
        b"a\r\nb",
        b"a\nb",
        b"a\rb",
        b"a\0",
        b"a b",
        b"a\tb",
        b" a",
        b"a ",
        b"X",
        b"Content-Length",
        b"a(",
        b"\xc3\xa9",
        b"a\x7f",
        b"transfer-encoding: chunked\r\nx",
        b"host: evil\r\nx",
        b"/ HTTP/1.1\r\nhost: evil\r\nx",
    ] {
        field_fails(world, (name, b"y")).await;
    }
}

#[tokio::test]
async fn fields_of_a_connection_and_lengths_that_do_not_fit() {
    let world = &mut World::new().await;
    for field in [
        (&b"transfer-encoding"[..], &b"chunked"[..]),
        (b"transfer-encoding", b"identity"),
        (b"transfer-encoding", b""),
        (b"transfer_encoding", b"chunked"),
        (b"connection", b"close"),
        (b"connection", b"keep-alive"),
        (b"connection", b"transfer-encoding"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"h2c"),
        (b"upgrade", b"websocket"),
        (b"http2-settings", b"AAMAAABkAAQAAP__"),
        (b"te", b"gzip"),
        (b"te", b"trailers, chunked"),
        (b"te", b"chunked"),
        (b"content-length", b"5"),
        (b"content-length", b"500"),
        (b"content-length", b"+5"),
        (b"content-length", b"-5"),
        (b"content-length", b"0x5"),
        (b"content-length", b"5,5"),
        (b"content-length", b"5 5"),
        (b"content-length", b""),
        (b"content-length", b"18446744073709551616"),
        (b"content_length", b"5"),
        (b"host", b"evil"),
        (b"host", b"h\r\nX: y"),
        (b"host", b""),
        (b"expect", b"x"),
        (b"expect", b"100-continue, x"),
        (b":path", b"/y"),
        (b":x", b"y"),
        (b":status", b"200"),
        (b":protocol", b"websocket"),
    ] {
        field_fails(world, field).await;
    }
    let post = |field: Field| [POST, SCHEME, PATH, AUTHORITY, field];
    fails(world, &post((b"content-length", b"0")), Some(INNER)).await;
    fails(world, &post((b"content-length", b"3")), Some(INNER)).await;
    fails(world, &[POST, SCHEME, PATH, AUTHORITY, (b"content-length", b"2"), (b"content-length", b"2")], Some(b"hi")).await;
    fails(world, &[POST, SCHEME, PATH, AUTHORITY, (b"content-length", b"2"), (b"content-length", b"3")], Some(b"hi")).await;
    fails(world, &[GET, SCHEME, PATH, AUTHORITY, (b"host", b"h"), (b"host", b"h")], None).await;
    fails(world, &[GET, SCHEME, PATH, (b"host", b"h"), (b"host", b"g")], None).await;
    fails(world, &[GET, SCHEME, PATH, (b"x", b"y"), AUTHORITY], None).await;
    fails(world, &[GET, SCHEME, PATH, (b"x", b"y"), (b":authority", b"evil")], None).await;
}

#[tokio::test]
async fn pseudo_fields_are_what_they_say_once() {
    let world = &mut World::new().await;
    for path in [
        &b""[..],
        b"x",
        b"*",
        b"?x",
        b"http://evil/",
        b"//\r\n",
        b"/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /smuggled",
        b"/ /x",
        b"/ ",
        b" /",
        b"/\t",
        b"/\0",
        b"/\n",
        b"/\r",
        b"/\\x",
        b"\\x",
        b"/\xe9",
        b"/\x7f",
        b"h:80",
    ] {
        fails(world, &[GET, SCHEME, (b":path", path), AUTHORITY], None).await;
    }
    for method in [
        &b""[..],
        b"GE T",
        b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\nGET",
        b"GET\r\n",
        b"GET\0",
        b"GET ",
        b" GET",
        b"get",
        b"Get",
        b"head",
        b"G(T",
        b"\xc7ET",
        b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"CONNECT",
    ] {
        fails(world, &[(METHOD, method), SCHEME, PATH, AUTHORITY], None).await;
    }
    fails(world, &[(METHOD, b"CONNECT"), (b":authority", b"h:80")], Some(INNER)).await;
    for authority in [
        &b"u@h"[..],
        b"u:p@h",
        b"h\r\nX: y",
        b"h\n",
        b"h\0",
        b"h x",
        b"h/x",
        b"h\\x",
        b"h?x",
        b"h#x",
        b"a,b",
        b"h:x",
        b"h:99999",
        b"h:80:80",
        b"h%20",
        b"[::1",
        b"http://h",
        b"\xe9",
        b" h",
    ] {
        fails(world, &[GET, SCHEME, PATH, (b":authority", authority)], None).await;
    }
    for scheme in [&b""[..], b"ftp", b"http\r\n", b"http ", b"http://evil/?", b"javascript", b"ht tp"] {
        fails(world, &[GET, (b":scheme", scheme), PATH, AUTHORITY], None).await;
    }
    let whole = [GET, SCHEME, PATH, AUTHORITY];
    for left_out in 0..3 {
        let fields: Vec<Field> =
            whole.iter().enumerate().filter(|(number, _)| *number != left_out).map(|(_, field)| *field).collect();
        fails(world, &fields, None).await;
    }
    for twice in whole {
        fails(world, &[GET, SCHEME, PATH, AUTHORITY, twice], None).await;
        fails(world, &[twice, GET, SCHEME, PATH, AUTHORITY], None).await;
        fails(world, &[GET, SCHEME, PATH, AUTHORITY, (b"x", b"y"), twice], None).await;
    }
    fails(world, &[GET, SCHEME, PATH], None).await;
    // RFC 9113 lets requests that come from HTTP/1.1 do so; the `h2` crate does not.
    fails(world, &[GET, SCHEME, PATH, (b"host", b"h")], None).await;
}

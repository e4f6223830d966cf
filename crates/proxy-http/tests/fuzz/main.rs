//! Mutations of good messages, a bounded number of them, the same in every run. `CORACLE_FUZZ_ROUNDS` sets how many;
//! `fuzz/` has the same bodies for a fuzzer that is led by coverage.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod bodies;

const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /a?b HTTP/1.1\r\nHost: h.example:80\r\nContent-Length: 5\r\nConnection: close, X-A\r\nX-A: b\r\n\r\nhello",
    b"PUT http://h/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nAccept:*/*\r\n\r\n",
    b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
    b"\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.2\r\nX_Forwarded_For: 5.6.7.8\r\nForwarded: for=9\r\nX-Real-Ip: 1.1.1.1\r\n\
      X-Forwarded-Host: e\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /p\r\n\r\n",
];
const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 404 \r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 304\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
];
const CHUNKED: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nGET /",
    b"5;a=b;c=\"d;e\"\r\nhello\r\n00f\r\n123456789012345\r\n0;x\r\nX-Sum: 1\r\nETag: a\r\nHost: h\r\n\r\n",
];
const PROXY: &[&[u8]] = &[
    b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET /",
    b"PROXY TCP6 2001:db8::1 ::1 65535 443\r\n",
    b"PROXY UNKNOWN a b c\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0aGET /",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x240123456789abcdef0123456789abcdef\x01\x02\x03\x04",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a\x04\0\x01\0",
];
/// What is put in: the bytes that readers disagree about, and the fields that they frame by.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"#",
    b"_",
    b"-",
    b"0",
    b"f",
    b"/",
    b"@",
    b"\x0b",
    b"\xff",
    b"\r\n\r\n",
    b"\r\n ",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Connection: Host\r\n",
    b"X-Forwarded_For: 1\r\n",
    b"chunked",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"ffffffffffffffff",
    b"0\r\n\r\n",
];

/// A generator of pseudo-random numbers (xorshift), so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, corpus: &[&[u8]]) {
        let at = self.below(bytes.len() + 1);
        match self.below(7) {
            0 | 1 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
            2 => {
                let end = (at + self.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = self.below(256) as u8;
                }
            }
            5 => {
                // A line of another message, or the rest of it.
                let other = corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                let to = (from + self.below(40)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                let copy = bytes[at..(at + self.below(30)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
    }
}

/// Runs `body` on mutations of `corpus`; some of them must be taken and some refused, or nothing has been tested.
fn run(corpus: &[&[u8]], body: fn(&[u8]) -> bool) {
    let rounds = std::env::var("CORACLE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000_usize);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for message in corpus {
        assert!(body(message), "{:?}", String::from_utf8_lossy(message));
    }
    let mut taken = 0;
    for _ in 0..rounds {
        let mut bytes = corpus[dice.below(corpus.len())].to_vec();
        for _ in 0..=dice.below(4) {
            dice.mutate(&mut bytes, corpus);
        }
        let found = std::panic::catch_unwind(|| body(&bytes));
        taken += usize::from(found.unwrap_or_else(|_| panic!("fails with {:?}", bytes.escape_ascii().to_string())));
    }
    assert!(taken > rounds / 50 && taken < rounds - rounds / 50, "{taken} of {rounds} were taken");
}

#[test]
fn request_heads() {
    run(REQUESTS, bodies::request_head);
}

#[test]
fn response_heads() {
    run(RESPONSES, bodies::response_head);
}

#[test]
fn chunked_bodies() {
    run(CHUNKED, bodies::chunked);
}

#[test]
fn proxy_headers() {
    run(PROXY, bodies::proxy_header);
}

#[test]
fn forwarded_headers() {
    run(REQUESTS, bodies::forwarded);
}

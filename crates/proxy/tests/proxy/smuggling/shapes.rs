//! Every published shape of a smuggled request, against a target that keeps every byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::recorder::Recorder;
use super::tables::{self, Case, Expected};
use crate::env::{Env, Wire, soon};

/// How the bytes arrive.
const PIECES: [usize; 2] = [usize::MAX, 7];

pub struct World {
    pub env: Env,
    pub recorder: Recorder,
    probes: usize,
}

impl World {
    pub async fn new() -> Self {
        let recorder = Recorder::start().await;
        let mut env = Env::with(|options| {
            options.workers = 1;
            options.limits.response_header = Duration::from_secs(10);
        })
        .await;
        env.serve(&[("t", recorder.backend.address)]).await;
        Self { env, recorder, probes: 0 }
    }

    /// Somebody else's request, who gets its own answer.
    pub async fn innocent(&mut self, wire: &mut Wire, what: &str) {
        self.probes += 1;
        let probe = self.probes;
        wire.send(&format!("GET /{what} HTTP/1.1\r\nHost: h\r\nX-Probe: {probe}\r\n\r\n")).await;
        soon(wire.answer()).await.is(200, &format!("/{what}|{probe}|0"));
    }

    async fn attack(&mut self, case: &Case, size: usize, second: bool) {
        let name = format!("{:?} (second: {second}, pieces of {size})", String::from_utf8_lossy(case.bytes));
        let mut wire = self.env.connect().await;
        let mut bytes = Vec::new();
        if second {
            bytes.extend_from_slice(b"GET /before HTTP/1.1\r\nHost: h\r\nX-Probe: 0\r\n\r\n");
        }
        bytes.extend_from_slice(case.bytes);
        for piece in bytes.chunks(size.min(bytes.len())) {
            // It may have been refused already.
            if wire.stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if second {
            soon(wire.answer()).await.is(200, "/before|0|0");
        }
        let passed = match case.expected {
            Expected::Passed(count) => {
                for _ in 0..count {
                    self.passed(&mut wire, case, &name).await;
                }
                self.innocent(&mut wire, "same").await;
                count
            }
            Expected::Last => {
                self.passed(&mut wire, case, &name).await;
                assert!(wire.is_closed().await, "{name}: was not closed");
                1
            }
            Expected::Answered(status) => {
                let answer = soon(wire.try_answer(false)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                self.innocent(&mut wire, "same").await;
                0
            }
            Expected::Refused(status) => {
                let answer = soon(wire.try_answer(false)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                assert!(wire.is_closed().await, "{name}: was not closed");
                0
            }
            Expected::Unfinished => {
                wire.stream.shutdown().await.unwrap();
                let mut rest = Vec::new();
                drop(soon(wire.stream.read_to_end(&mut rest)).await);
                assert!(!rest.starts_with(b"HTTP/1.1 2"), "{name}: {:?}", String::from_utf8_lossy(&rest));
                0
            }
        };
        let mut other = self.env.connect().await;
        self.innocent(&mut other, "innocent").await;
        self.check(&name, passed);
    }

    async fn passed(&self, wire: &mut Wire, case: &Case, name: &str) {
        let head = case.bytes.starts_with(b"HEAD") || case.bytes.starts_with(b"\r\nHEAD");
        let answer = soon(wire.try_answer(head)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }

    /// The target has seen what it should have, and nothing that can be read in two ways.
    pub fn check(&self, name: &str, passed: usize) {
        let log = self.recorder.take();
        assert!(log.complaints.is_empty(), "{name}: {:#?}", log.complaints);
        let known = ["/before", "/same", "/innocent"];
        let theirs: Vec<_> = log.messages.iter().filter(|m| !known.contains(&m.target.as_str())).collect();
        assert_eq!(theirs.len(), passed, "{name}: the target has seen {theirs:#?}");
        for message in theirs {
            assert!(!message.target.contains("smuggled"), "{name}: {message:#?}");
        }
    }
}

async fn run(cases: &[Case]) {
    let mut world = World::new().await;
    for case in cases {
        for size in PIECES {
            for second in [false, true] {
                world.attack(case, size, second).await;
            }
        }
    }
}

#[tokio::test]
async fn lengths_and_codings() {
    run(tables::FRAMING).await;
}

#[tokio::test]
async fn lines_and_fields() {
    run(tables::LINES).await;
}

#[tokio::test]
async fn chunks_and_trailers() {
    run(tables::CHUNKS).await;
}

#[tokio::test]
async fn targets_hosts_methods_and_versions() {
    run(tables::TARGETS).await;
}

#[tokio::test]
async fn upgrades_and_expectations() {
    run(tables::UPGRADES).await;
}

/// The beginning of a connection of HTTP/2 is none of a second request.
#[tokio::test]
async fn the_preface_of_http_2_comes_first_or_not_at_all() {
    let mut world = World::new().await;
    for before in ["GET /before HTTP/1.1\r\nHost: h\r\nX-Probe: 0\r\n\r\n", "\r\n"] {
        let mut wire = world.env.connect().await;
        wire.send(&format!("{before}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")).await;
        if before.starts_with('G') {
            soon(wire.answer()).await.is(200, "/before|0|0");
        }
        assert!(matches!(soon(wire.answer()).await.status, 400 | 505));
        let mut other = world.env.connect().await;
        world.innocent(&mut other, "innocent").await;
        world.check(before, 0);
    }
}

#[tokio::test]
async fn every_obfuscation_of_a_coding_is_refused() {
    let mut world = World::new().await;
    let codings: &[&[u8]] = &[
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding:\x0cchunked",
        b"Transfer-Encoding: \x00chunked",
        b"Transfer-Encoding: chunked\x00",
        b"Transfer-Encoding:\n chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding\r\n: chunked",
        b"X: x\nTransfer-Encoding: chunked",
        b"X: x\rTransfer-Encoding: chunked",
        b" Transfer-Encoding: chunked",
        b"\tTransfer-Encoding: chunked",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: ch\xc5\xbfunked",
        b"Transfer-Encoding: chun\xe2\x84\xaaed",
        b"Transfer-Encoding: chunked\xa0",
        b"Transfer-Encoding:\xa0chunked",
        b"Transfer-Encoding: chunk ed",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: ",
        b"Transfer-Encoding: cow",
        b"Transfer_Encoding: chunked",
        b"Transfer-Encoding\x00: chunked",
        b"Transfer-Encoding\x7f: chunked",
        b"Transfer-Encoding;: chunked",
        b"Transfer-Encoding chunked",
        b"Transfer-Encoding: chunked\x7f",
        b"Transfer-Encoding: \x1fchunked",
        b"Foo: bar\r\n\rTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r",
        b"Transfer-Encoding:\x85chunked",
        b"Transfer-Encoding: chunked\\r\\n",
        b"TRANSFER_ENCODING: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
    ];
    for coding in codings {
        for length in [&b"Content-Length: 6\r\n"[..], b""] {
            for before in [true, false] {
                let mut bytes = b"POST / HTTP/1.1\r\nHost: h\r\n".to_vec();
                bytes.extend_from_slice(if before { length } else { b"" });
                bytes.extend_from_slice(coding);
                bytes.extend_from_slice(b"\r\n");
                bytes.extend_from_slice(if before { b"" } else { length });
                bytes.extend_from_slice(b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
                let name = String::from_utf8_lossy(&bytes).into_owned();
                let mut wire = world.env.connect().await;
                wire.stream.write_all(&bytes).await.unwrap();
                let answer = soon(wire.answer()).await;
                assert!(matches!(answer.status, 400 | 501), "{name:?}: {answer:?}");
                assert!(wire.is_closed().await, "{name:?}");
                let mut other = world.env.connect().await;
                world.innocent(&mut other, "innocent").await;
                world.check(&name, 0);
            }
        }
    }
}

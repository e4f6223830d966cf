//! Good requests with something changed at random, always the same: whatever becomes of them, the target sees what a strict
//! reader sees in what the client has sent, or less.

use std::time::Duration;

use coracle_lab::chance::Chance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::oracle::{self, Message, Read, Side};
use super::recorder::Recorder;
use crate::env::{Env, until};

const CASES: usize = 600;

const CORPUS: &[&[u8]] = &[
    b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-Probe: 1\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 36\r\n\r\nGET /inner HTTP/1.1\r\nHost: i\r\nX: y\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1a;x=\"y\"\r\nGET /i HTTP/1.1\r\nHost: i\r\n\r\n0\r\nX-Sum: z\r\n\r\n",
    b"PUT http://h/abs HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x\r\nX: y\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"DELETE /d HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTE: trailers\r\n\r\n",
];

const PIECES: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\xff",
    b"0",
    b"1",
    b"9",
    b"-",
    b"+",
    b"0x",
    b"/",
    b"\\",
    b"@",
    b"#",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Host: x\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b" folded\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET /more HTTP/1.1\r\nHost: m\r\n\r\n",
    b"Upgrade: h2c\r\n",
    b"chunked",
    b"\"",
    b"ffffffffffffffff",
];

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    let at = chance.below(bytes.len());
    match chance.below(6) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => drop(bytes.remove(at)),
        2 | 3 => {
            let piece = PIECES[chance.below(PIECES.len())];
            drop(bytes.splice(at..at, piece.iter().copied()));
        }
        4 => {
            let piece = PIECES[chance.below(PIECES.len())];
            // Where a line begins.
            let starts: Vec<usize> = bytes.windows(2).enumerate().filter(|(_, w)| *w == b"\r\n").map(|(i, _)| i + 2).collect();
            let start = starts.get(chance.below(starts.len())).copied().unwrap_or(0);
            drop(bytes.splice(start..start, piece.iter().copied()));
        }
        _ => {
            let end = (at + chance.below(20)).min(bytes.len());
            let copied = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copied));
        }
    }
    if bytes.is_empty() {
        bytes.push(b'G');
    }
}

/// The requests that a strict reader sees.
fn strictly(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Ok(Read::Whole(message, length)) = oracle::read(bytes, Side::Client) {
        bytes = &bytes[length..];
        let keeps = message.keeps;
        messages.push(message);
        if !keeps {
            break;
        }
    }
    messages
}

/// What of it must be the same on both sides.
fn essence(message: &Message) -> (String, String, Vec<u8>) {
    let target = match message.target.split_once("://") {
        Some((scheme, rest)) if !scheme.starts_with('/') => match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
            Some(at) => format!("/{}", &rest[at..]),
            None if message.method == "OPTIONS" => "*".to_owned(),
            None => "/".to_owned(),
        },
        _ => message.target.clone(),
    };
    (message.method.clone(), target, message.body.clone())
}

#[tokio::test]
async fn targets_see_what_a_strict_reader_sees_or_less() {
    let recorder = Recorder::start().await;
    let mut env = Env::with(|options| {
        options.workers = 1;
        // Each request has its own connection: when all are closed, everything has been seen.
        options.limits.upstream_idle = Duration::ZERO;
        options.limits.response_header = Duration::from_secs(5);
    })
    .await;
    env.serve(&[("t", recorder.backend.address)]).await;
    let mut chance = Chance::new(0x005e_ed0f_c04a_c1e5);
    let mut forwarded = 0;
    for number in 0..CASES {
        let mut bytes = Vec::new();
        if chance.below(2) == 0 {
            bytes.extend_from_slice(CORPUS[chance.below(CORPUS.len())]);
        }
        let mut changed = CORPUS[chance.below(CORPUS.len())].to_vec();
        for _ in 0..=chance.below(3) {
            mutate(&mut chance, &mut changed);
        }
        bytes.extend_from_slice(&changed);
        bytes.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let name = format!("{number}: {:?}", String::from_utf8_lossy(&bytes));

        let mut wire = env.connect().await;
        drop(wire.stream.write_all(&bytes).await);
        drop(wire.stream.shutdown().await);
        let mut answers = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), wire.stream.read_to_end(&mut answers)).await;
        assert!(read.is_ok(), "{name}: no end");
        // Its connection comes after all others.
        env.get("h", "/innocent").await.is(200, "/innocent|-|0");
        until("all is seen", async || recorder.open() == 0).await;

        let mut log = recorder.take();
        assert!(log.complaints.is_empty(), "{name}: {:#?}", log.complaints);
        log.messages.retain(|message| message.target != "/innocent");
        let sent: Vec<_> = strictly(&bytes).iter().map(essence).collect();
        let seen: Vec<_> = log.messages.iter().map(essence).collect();
        assert!(sent.starts_with(&seen), "{name}:\nthe target has seen {seen:#?}\na strict reader sees {sent:#?}");
        forwarded += seen.len();
    }
    assert!(forwarded > CASES / 2, "most were refused: {forwarded}");
}

//! One output stream of an execution: what is kept of it and what is not.

use std::io;

use bytes::{Bytes, BytesMut};

use super::streams::Output;
use crate::execution::Event;
use crate::wire::Answer;

/// A program that goes on writing is ended when it has written so many times what is kept, and so much at least.
const FLOOD_TIMES: u64 = 16;
const FLOOD_LEAST: u64 = 1 << 20;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What has come through a stream.
#[derive(Debug)]
pub(super) struct Capture {
    stream: Stream,
    /// How many bytes are kept.
    cap: u64,
    written: u64,
    /// Whether it could not be read to its end.
    cut: bool,
    pub(super) open: bool,
}

impl Capture {
    pub(super) fn new(stream: Stream, cap: u64) -> Self {
        Self { stream, cap, written: 0, cut: false, open: true }
    }

    /// Reads what is there, as far as `room` goes at once, and passes on what is kept. Answers whether there may be more.
    pub(super) fn read(&mut self, output: &Output, room: &mut [u8], outgoing: &mut BytesMut) -> bool {
        let got = output.read(room);
        self.take(got, room, outgoing)
    }

    /// The same without asking the runtime first whether there is anything: it may not have looked yet.
    pub(super) fn read_now(&mut self, output: &Output, room: &mut [u8], outgoing: &mut BytesMut) -> bool {
        let got = output.read_now(room);
        self.take(got, room, outgoing)
    }

    fn take(&mut self, got: io::Result<usize>, room: &[u8], outgoing: &mut BytesMut) -> bool {
        let bytes = match got {
            Ok(0) => {
                self.open = false;
                return false;
            }
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return false,
            Err(error) => {
                tracing::warn!(stream = ?self.stream, %error, "a program's output cannot be read any more");
                (self.open, self.cut) = (false, true);
                return false;
            }
        };
        let left = usize::try_from(self.cap.saturating_sub(self.written)).unwrap_or(usize::MAX);
        self.written += bytes as u64;
        if let Some(kept) = room.get(..bytes.min(left)).filter(|kept| !kept.is_empty()) {
            let kept = Bytes::copy_from_slice(kept);
            let event = match self.stream {
                Stream::Stdout => Event::Stdout(kept),
                Stream::Stderr => Event::Stderr(kept),
            };
            Answer::Event(event).encode(outgoing);
        }
        true
    }

    pub(super) fn truncated(&self) -> bool {
        self.written > self.cap || self.cut
    }

    /// Whether so much has been dropped that the program should not go on.
    pub(super) fn is_flood(&self) -> bool {
        self.written > (self.cap.saturating_mul(FLOOD_TIMES)).max(FLOOD_LEAST)
    }
}

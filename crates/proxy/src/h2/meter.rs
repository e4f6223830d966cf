//! What a client sends beside requests: pings, settings, window updates, priorities, resets. A little of that belongs to
//! every connection; a client that sends little else keeps a worker busy with nothing.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How much may be read without any use, in bytes.
const ALLOWANCE: u64 = 256 * 1024;
/// What time adds to it, in bytes per second: many pings, for ever.
const PER_SECOND: u64 = 4 * 1024;
/// What a request or a piece of a body is worth beyond its own bytes.
const PER_PIECE: u64 = 64;

/// Compares what has been read with what it was good for. All by one task: the atomics are there because its future may be
/// moved.
pub(super) struct Meter {
    since: Instant,
    read: AtomicU64,
    useful: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), read: AtomicU64::new(0), useful: AtomicU64::new(0) }
    }

    /// A request came, or a piece of a body went either way, of so many bytes.
    pub(super) fn piece(&self, bytes: usize) {
        self.useful.fetch_add(bytes as u64 + PER_PIECE, Ordering::Relaxed);
    }

    /// Whether the client sends too much beside.
    pub(super) fn is_exceeded(&self) -> bool {
        let beside = self.read.load(Ordering::Relaxed).saturating_sub(self.useful.load(Ordering::Relaxed));
        // The clock is asked only if it matters.
        beside > ALLOWANCE && beside > ALLOWANCE + self.since.elapsed().as_secs() * PER_SECOND
    }
}

/// A stream whose reads are metered, with what was read of it before.
pub(super) struct Metered<'m, S> {
    stream: S,
    before: Vec<u8>,
    meter: &'m Meter,
}

impl<'m, S> Metered<'m, S> {
    pub(super) fn new(stream: S, before: Vec<u8>, meter: &'m Meter) -> Self {
        Self { stream, before, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = into.filled().len();
        if self.before.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        } else {
            let count = self.before.len().min(into.remaining());
            into.put_slice(&self.before[..count]);
            self.before.drain(..count);
        }
        self.meter.read.fetch_add((into.filled().len() - filled) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

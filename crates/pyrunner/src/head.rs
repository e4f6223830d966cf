//! How long the head of a request takes to arrive: a client that sends one byte now and then must not keep a connection for as
//! long as it likes. Between requests nothing has begun, and a connection may idle for longer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long a head may take, the first one from the moment of connecting.
pub(crate) const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// How often is looked.
const ROUND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Nothing of the next request has come.
    Idle,
    /// Its head began to arrive, or was expected from then on.
    Arriving(Instant),
    /// It has arrived, and its answer is under way.
    Answering,
}

/// Where a connection is. All clones are one.
#[derive(Debug, Clone)]
pub(crate) struct HeadClock(Arc<Mutex<Stage>>);

impl HeadClock {
    /// That of a new connection, whose client is expected to say something.
    pub(crate) fn start() -> Self {
        Self(Arc::new(Mutex::new(Stage::Arriving(Instant::now()))))
    }

    /// A head has arrived.
    pub(crate) fn arrived(&self) {
        self.set(Stage::Answering);
    }

    /// The same body, whose end is the end of the answer.
    pub(crate) fn until_sent(&self, body: Body) -> Body {
        Body::new(Sent { body, clock: self.clone() })
    }

    /// Waits until a head has taken too long.
    pub(crate) async fn late(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            if matches!(self.get(), Stage::Arriving(since) if since.elapsed() >= HEAD_DEADLINE) {
                return;
            }
        }
    }

    fn get(&self) -> Stage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

/// The body of an answer.
struct Sent {
    body: Body,
    clock: HeadClock,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.clock.set(Stage::Idle);
    }
}

/// A connection that tells its clock when something comes.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    stream: S,
    clock: HeadClock,
}

impl<S> Timed<S> {
    pub(crate) fn new(stream: S, clock: HeadClock) -> Self {
        Self { stream, clock }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, room);
        if room.filled().len() > before && matches!(self.clock.get(), Stage::Idle) {
            self.clock.set(Stage::Arriving(Instant::now()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! Bodies as frames of one stream. Flow control keeps them short: a peer may send as much as has been used, and nothing is
//! taken for which it has no room.

use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream, SendStream};
use bytes::{Buf, Bytes, BytesMut};
use coracle_proxy_http::{Fields, HeadLimits};

use crate::side::{Broken, Next};

/// Pieces are put together up to this size: about a frame, as most peers take them.
const PIECE: usize = 16 * 1024;

/// The body that a peer sends.
pub(super) struct Incoming {
    stream: RecvStream,
    piece: Bytes,
    trailers: Option<Fields>,
    is_through: bool,
    limits: HeadLimits,
}

impl Incoming {
    /// Behind a head; `is_through` if nothing of it is to be read as a body.
    pub(super) fn new(stream: RecvStream, is_through: bool, limits: HeadLimits) -> Self {
        Self { stream, piece: Bytes::new(), trailers: None, is_through, limits }
    }

    /// What follows is not the body of a message but what the two sides have to say each other.
    pub(super) fn reopen(&mut self) {
        self.is_through = false;
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        loop {
            if !self.piece.is_empty() {
                return Poll::Ready(Ok(Next::Content));
            }
            if self.is_through {
                return Poll::Ready(Ok(Next::End));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(piece)) => self.piece = piece,
                // Also a body that is longer or shorter than announced: the stream has been reset then, and what could be
                // said about that would not be read.
                Some(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
                None => {
                    let map = ready!(self.stream.poll_trailers(cx)).map_err(|_gone| Broken::Gone)?;
                    if let Some(map) = map {
                        let mut trailers = Fields::new();
                        trailers.read_h2_trailers(&map, &self.limits).map_err(|_bad| Broken::Malformed)?;
                        self.trailers = Some(trailers);
                    }
                    self.is_through = true;
                }
            }
        }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.piece
    }

    /// The peer may send as much again.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.piece.len());
        self.piece.advance(count);
        if self.stream.flow_control().release_capacity(count).is_err() {
            tracing::trace!("the stream has ended meanwhile");
        }
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    pub(super) fn is_through(&self) -> bool {
        self.is_through
    }
}

/// The body that a peer is sent.
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    /// What has been taken and may be the last piece: the end goes with it, not in a frame of its own.
    held: BytesMut,
    /// How much of what was announced is missing.
    left: Option<u64>,
    has_ended: bool,
}

impl Outgoing {
    /// Behind a head that has announced so much, or nothing about it; `has_ended` with the head itself.
    pub(super) fn new(stream: SendStream<Bytes>, announced: Option<u64>, has_ended: bool) -> Self {
        Self { stream, held: BytesMut::new(), left: announced, has_ended }
    }

    pub(super) fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        if self.has_ended {
            // An answer to HEAD, whatever is said there.
            return Poll::Ready(Ok(content.len()));
        }
        if self.left == Some(0) {
            return Poll::Ready(Err(Broken::Malformed));
        }
        let most = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let content = &content[..content.len().min(most)];
        let room = ready!(self.poll_room(cx, content.len()))?;
        let content = &content[..content.len().min(room)];
        if self.held.len() + content.len() > PIECE {
            self.send_held(false)?;
        }
        self.held.extend_from_slice(content);
        if let Some(left) = &mut self.left {
            *left -= content.len() as u64;
        }
        Poll::Ready(Ok(content.len()))
    }

    /// Waits until the peer takes something beyond what is held.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Broken>> {
        loop {
            self.stream.reserve_capacity(self.held.len() + wanted);
            let capacity = self.stream.capacity();
            if capacity > self.held.len() {
                return Poll::Ready(Ok(capacity - self.held.len()));
            }
            self.send_held(false)?;
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => (),
                Some(Err(_)) | None => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    fn send_held(&mut self, ends: bool) -> Result<(), Broken> {
        if self.held.is_empty() && !ends {
            return Ok(());
        }
        self.stream.send_data(self.held.split().freeze(), ends).map_err(|_gone| Broken::Gone)
    }

    pub(super) fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        if self.left.is_some_and(|left| left > 0) {
            return Err(Broken::Malformed);
        }
        match trailers.map(Fields::to_trailer_map).filter(|map| !map.is_empty()) {
            Some(map) => {
                self.send_held(false)?;
                self.stream.send_trailers(map).map_err(|_gone| Broken::Gone)
            }
            None => self.send_held(true),
        }
    }

    /// Gives what is held to the connection, whose task sends it.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        if self.has_ended { Ok(()) } else { self.send_held(false) }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready when the peer has reset the stream, or the connection is gone.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_why| ())
    }
}

//! HTTP/1.1 over one stream, whichever of the two sides it is: heads and bodies as bytes, framed.
//!
//! Nothing here knows what a message means. Bodies are not kept: content is passed on from the buffer that it was read into,
//! and what is written beside it (a head, the frame of a chunk) goes out with it in one call.

use std::task::{Context, Poll, ready};

use coracle_proxy_http::{
    BodyLength, CHUNK_END, ChunkedDecoder, Fields, HeadLimits, HeadSearch, ParseError, write_chunk_head, write_last_chunk,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::buffer::{Input, LARGE, Output, SMALL};
use crate::side::{Broken, Next, Sink, Source};

/// Content up to this size is copied to what waits to be written, rather than written by a call of its own.
const SMALL_PIECE: usize = 2 * 1024;
/// The longest first line of a message.
const LONGEST_LINE: usize = 16 * 1024;

/// One side.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    pub(crate) input: Input,
    pub(crate) output: Output,
    search: HeadSearch,
    incoming: Incoming,
    outgoing: Outgoing,
    /// How much of the input is content.
    ready: usize,
    /// The last read filled its buffer: a larger one is worth it.
    fast: bool,
}

/// A side that speaks HTTP/1.1: bodies come and go by its [`Wire`].
pub(crate) trait Wired {
    /// What it speaks over.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Its wire.
    fn wire(&self) -> &Wire<Self::Stream>;

    /// The same, to be used.
    fn wire_mut(&mut self) -> &mut Wire<Self::Stream>;
}

impl<W: Wired> Source for W {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        self.wire_mut().poll_next(cx)
    }

    fn content(&self) -> &[u8] {
        self.wire().content()
    }

    fn consume(&mut self, count: usize) {
        self.wire_mut().consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.wire().trailers()
    }

    fn is_through(&self) -> bool {
        self.wire().is_through()
    }
}

impl<W: Wired> Sink for W {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        self.wire_mut().poll_put(cx, content)
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        self.wire_mut().end(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.wire_mut().poll_flush(cx)
    }
}

/// The body that is being read.
enum Incoming {
    Through,
    Fixed(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
}

/// The body that is being written.
enum Outgoing {
    /// There is none, or no more of it.
    Through,
    Fixed(u64),
    /// So much of the chunk that has begun is missing.
    Chunked(usize),
    UntilClose,
}

/// Why a head could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// The connection ended or broke. Before the first byte of a head that is how connections end.
    Ended,
    /// It is none.
    Bad(ParseError),
}

/// The limits for heads of so many bytes and fields.
pub(crate) fn head_limits(limits: &crate::options::Limits) -> HeadLimits {
    HeadLimits { line: LONGEST_LINE.min(limits.header_bytes), head: limits.header_bytes, fields: limits.header_fields }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Nothing has been read or written.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            input: Input::default(),
            output: Output::default(),
            search: HeadSearch::default(),
            incoming: Incoming::Through,
            outgoing: Outgoing::Through,
            ready: 0,
            fast: false,
        }
    }

    /// Waits for a whole head; its length. It stays in the input. Keeps no memory before its first byte.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, limits: &HeadLimits) -> Poll<Result<usize, HeadError>> {
        loop {
            if !self.input.is_empty()
                && let Some(length) = self.search.find(self.input.filled(), limits).map_err(HeadError::Bad)?
            {
                self.search = HeadSearch::default();
                return Poll::Ready(Ok(length));
            }
            match ready!(self.input.poll_fill(cx, &mut self.stream, SMALL, limits.head + SMALL)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(HeadError::Ended)),
                Ok(_) => (),
            }
        }
    }

    /// The body that follows the head just read.
    pub(crate) fn expect_body(&mut self, body: BodyLength) {
        self.ready = 0;
        self.fast = false;
        self.incoming = match body {
            BodyLength::None | BodyLength::Fixed(0) => Incoming::Through,
            BodyLength::Fixed(length) => Incoming::Fixed(length),
            BodyLength::Chunked => Incoming::Chunked(Box::default()),
            BodyLength::UntilClose => Incoming::UntilClose,
        };
        if self.is_through() {
            self.input.release();
        }
    }

    /// The body that follows the head just written to the output.
    pub(crate) fn announce_body(&mut self, body: BodyLength) {
        self.outgoing = match body {
            BodyLength::None | BodyLength::Fixed(0) => Outgoing::Through,
            BodyLength::Fixed(length) => Outgoing::Fixed(length),
            BodyLength::Chunked => Outgoing::Chunked(0),
            BodyLength::UntilClose => Outgoing::UntilClose,
        };
    }

    /// Whether the body that was announced has been put, or there was none.
    pub(crate) fn has_put_all(&self) -> bool {
        matches!(self.outgoing, Outgoing::Through)
    }

    /// Gives back what memory it can.
    pub(crate) fn release(&mut self) {
        self.input.release();
        self.output.release();
    }

    /// Reads more of a body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let large = match self.incoming {
            Incoming::Fixed(left) => left >= LARGE as u64 / 2,
            _ => self.fast,
        };
        let room = if large { LARGE } else { SMALL };
        match ready!(self.input.poll_fill(cx, &mut self.stream, room, LARGE)) {
            Ok(count) if count > 0 => {
                self.fast = self.fast || count >= SMALL;
                Poll::Ready(Ok(()))
            }
            Ok(_) if matches!(self.incoming, Incoming::UntilClose) => {
                self.incoming = Incoming::Through;
                Poll::Ready(Ok(()))
            }
            Ok(_) | Err(_) => Poll::Ready(Err(Broken::Gone)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for Wire<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        loop {
            let there = self.input.filled().len();
            self.ready = match &mut self.incoming {
                Incoming::Through => return Poll::Ready(Ok(Next::End)),
                Incoming::Fixed(0) => {
                    self.incoming = Incoming::Through;
                    return Poll::Ready(Ok(Next::End));
                }
                Incoming::Fixed(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(there),
                Incoming::UntilClose => there,
                // What was found before has not been used up.
                Incoming::Chunked(_) if self.ready > 0 => self.ready,
                Incoming::Chunked(chunks) => {
                    let chunk = chunks.decode(self.input.filled()).map_err(|_bad| Broken::Malformed)?;
                    self.input.consume(chunk.consumed - chunk.data.len());
                    if chunk.end {
                        return Poll::Ready(Ok(Next::End));
                    }
                    chunk.data.len()
                }
            };
            if self.ready > 0 {
                return Poll::Ready(Ok(Next::Content));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    fn content(&self) -> &[u8] {
        &self.input.filled()[..self.ready]
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.ready -= count;
        if let Incoming::Fixed(left) = &mut self.incoming {
            *left -= count as u64;
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        match &self.incoming {
            Incoming::Chunked(chunks) => chunks.trailers(),
            _ => None,
        }
    }

    fn is_through(&self) -> bool {
        match &self.incoming {
            Incoming::Through | Incoming::Fixed(0) => true,
            Incoming::Chunked(chunks) => chunks.is_end(),
            Incoming::Fixed(_) | Incoming::UntilClose => false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink for Wire<S> {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        let most = match &mut self.outgoing {
            // An answer to HEAD, whatever is said there.
            Outgoing::Through => return Poll::Ready(Ok(content.len())),
            Outgoing::Fixed(0) => return Poll::Ready(Err(Broken::Malformed)),
            Outgoing::Fixed(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Outgoing::Chunked(left) => {
                if *left == 0 {
                    *left = content.len();
                    write_chunk_head(content.len() as u64, self.output.bytes());
                }
                *left
            }
            Outgoing::UntilClose => usize::MAX,
        };
        let content = &content[..content.len().min(most)];
        let count = if content.len() <= SMALL_PIECE && self.output.len() + content.len() <= SMALL {
            self.output.bytes().extend_from_slice(content);
            content.len()
        } else {
            let written = self.output.poll_write_with(cx, &mut self.stream, content);
            ready!(written).map_err(|_gone| Broken::Gone)?
        };
        match &mut self.outgoing {
            Outgoing::Fixed(left) => *left -= count as u64,
            Outgoing::Chunked(left) => {
                *left -= count;
                if *left == 0 {
                    self.output.bytes().extend_from_slice(CHUNK_END);
                }
            }
            Outgoing::Through | Outgoing::UntilClose => (),
        }
        Poll::Ready(Ok(count))
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        match std::mem::replace(&mut self.outgoing, Outgoing::Through) {
            Outgoing::Fixed(left) if left > 0 => return Err(Broken::Malformed),
            Outgoing::Chunked(_) => write_last_chunk(trailers, self.output.bytes()),
            Outgoing::Fixed(_) | Outgoing::Through | Outgoing::UntilClose => (),
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.output.poll_write(cx, &mut self.stream)).map_err(|_gone| Broken::Gone)?;
        std::pin::Pin::new(&mut self.stream).poll_flush(cx).map_err(|_gone| Broken::Gone)
    }
}

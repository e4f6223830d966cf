//! The two sides of an exchange, as far as the one needs to know of the other: a [`Source`] of a body and a [`Sink`] for one.
//! HTTP/1.1 is one implementation of both (`wire`); whatever else carries requests and answers is another.

use std::task::{Context, Poll};

use coracle_proxy_http::{BodyLength, Fields, RequestHead, ResponseHead};

/// Why nothing more can be read from a side, or written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Its connection ended or broke.
    Gone,
    /// What it sent is no message.
    Malformed,
    /// What it sent is longer than it may be.
    TooLarge,
}

/// What comes next from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Content: [`Source::content`] has some.
    Content,
    /// The end of the body; what [`Source::trailers`] has came with it.
    End,
}

/// Gives a body, piece by piece.
pub(crate) trait Source {
    /// Waits for content, or for the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>>;

    /// The content that is there, after [`Next::Content`]; never empty then.
    fn content(&self) -> &[u8];

    /// So many bytes of the content have been used.
    fn consume(&mut self, count: usize);

    /// What came with the end.
    fn trailers(&self) -> Option<&Fields>;

    /// Whether the body has been read to its end.
    fn is_through(&self) -> bool;
}

/// Takes a body, piece by piece.
pub(crate) trait Sink {
    /// Takes some bytes; how many. They may wait for [`Sink::poll_flush`] to be sent.
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>>;

    /// The body is through. Broken if that cannot be: less was put than had been announced.
    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken>;

    /// Sends what waits.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
}

/// The client's side: the body of a request comes from it, the body of the answer goes to it.
pub(crate) trait Downstream: Source + Sink {
    /// Ready when the client has gone away. Asked only when its request has been read to its end.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Sends an interim answer (1xx, but not 101), if the client can take it.
    fn interim(&mut self, head: &ResponseHead);

    /// Sends the head of the answer, to be followed by its body. Unless `keeps`, the client is told not to send another
    /// request on this connection.
    fn begin(&mut self, request: &RequestHead, head: &mut ResponseHead, body: BodyLength, keeps: bool);
}

/// The target's side: the body of a request goes to it, the body of the answer comes from it.
pub(crate) trait Upstream: Source + Sink {
    /// Sends the head of a request, to be followed by its body.
    fn send(&mut self, head: &RequestHead, body: BodyLength);

    /// Whether anything has left.
    fn has_sent(&self) -> bool;

    /// Waits for the head of an answer, interim ones included.
    fn poll_answer(&mut self, cx: &mut Context<'_>, request: &RequestHead, head: &mut ResponseHead) -> Poll<Answer>;
}

/// The head of an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    /// What follows it.
    pub(crate) body: BodyLength,
}

/// The head of an answer, or why there is none.
pub(crate) type Answer = Result<Answered, NoAnswer>;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Not a byte of it came before the connection ended.
    Silence,
    /// What came is none.
    Garbage,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The one that is read from.
    Source,
    /// The one that is written to.
    Sink,
}

/// How a body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is through, and sent.
    Through,
    /// It goes on when this end is ready.
    Waits(End),
    /// It does not go on, because of this end.
    Stops(End, Broken),
}

/// A body on its way.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    /// How much content has gone by.
    pub(crate) bytes: u64,
    ended: bool,
}

impl Relay {
    /// Passes on as much as it can; what has been taken is sent before it waits.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, source: &mut impl Source, sink: &mut impl Sink) -> Flow {
        while !self.ended {
            match source.poll_next(cx) {
                Poll::Ready(Ok(Next::Content)) => match sink.poll_put(cx, source.content()) {
                    Poll::Ready(Ok(count)) => {
                        source.consume(count);
                        self.bytes += count as u64;
                    }
                    Poll::Ready(Err(broken)) => return Flow::Stops(End::Sink, broken),
                    Poll::Pending => return Flow::Waits(End::Sink),
                },
                Poll::Ready(Ok(Next::End)) => {
                    if let Err(broken) = sink.end(source.trailers()) {
                        return Flow::Stops(End::Source, broken);
                    }
                    self.ended = true;
                }
                Poll::Ready(Err(broken)) => return Flow::Stops(End::Source, broken),
                Poll::Pending => return self.flush(cx, sink, Flow::Waits(End::Source)),
            }
        }
        self.flush(cx, sink, Flow::Through)
    }

    fn flush(&self, cx: &mut Context<'_>, sink: &mut impl Sink, then: Flow) -> Flow {
        match sink.poll_flush(cx) {
            Poll::Ready(Ok(())) => then,
            Poll::Ready(Err(broken)) => Flow::Stops(End::Sink, broken),
            Poll::Pending => Flow::Waits(End::Sink),
        }
    }
}

/// A source that may have so many bytes more.
pub(crate) struct Limited<'s, S> {
    pub(crate) source: &'s mut S,
    pub(crate) left: u64,
}

impl<S: Source> Source for Limited<'_, S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        match self.source.poll_next(cx) {
            // Nothing of the piece that is too long: what has been passed on stays without an end.
            Poll::Ready(Ok(Next::Content)) if self.source.content().len() as u64 > self.left => {
                Poll::Ready(Err(Broken::TooLarge))
            }
            next => next,
        }
    }

    fn content(&self) -> &[u8] {
        self.source.content()
    }

    fn consume(&mut self, count: usize) {
        self.left -= count as u64;
        self.source.consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.source.trailers()
    }

    fn is_through(&self) -> bool {
        self.source.is_through()
    }
}

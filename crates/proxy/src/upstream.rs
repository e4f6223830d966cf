//! A target that speaks HTTP/1.1, or 1.0.

use std::task::{Context, Poll, ready};

use coracle_proxy_http::{BodyLength, HeadLimits, RequestHead, ResponseHead, parse_response_head};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::side::{Answer, Answered, NoAnswer, Source, Upstream};
use crate::wire::{HeadError, Wire, Wired};

/// A connection to a target, for one exchange.
pub(crate) struct H1Upstream<S = TcpStream> {
    wire: Wire<S>,
    limits: HeadLimits,
    /// Something of an answer has come.
    has_answered: bool,
    /// The target lets it be used again.
    keeps: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1Upstream<S> {
    /// A connection on which nothing is under way.
    pub(crate) fn new(stream: S, limits: HeadLimits) -> Self {
        Self { wire: Wire::new(stream), limits, has_answered: false, keeps: false }
    }

    /// The connection, if it is fit for another exchange: both messages are through, and nothing has come behind.
    pub(crate) fn into_kept(self) -> Option<S> {
        let wire = self.wire;
        let fit = self.keeps && wire.is_through() && wire.has_put_all() && wire.input.is_empty() && wire.output.is_empty();
        fit.then_some(wire.stream)
    }

    /// The connection as it is, after a change of protocols, and what has come of the other protocol.
    pub(crate) fn into_changed(self) -> (S, Vec<u8>) {
        (self.wire.stream, self.wire.input.into_rest())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Upstream for H1Upstream<S> {
    fn send(&mut self, head: &RequestHead, body: BodyLength) {
        head.write_to(self.wire.output.bytes(), body);
        self.wire.announce_body(body);
    }

    fn has_sent(&self) -> bool {
        self.wire.output.is_used()
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, request: &RequestHead, head: &mut ResponseHead) -> Poll<Answer> {
        let length = match ready!(self.wire.poll_head(cx, &self.limits)) {
            Ok(length) => length,
            Err(HeadError::Ended) if self.wire.input.is_empty() && !self.has_answered => {
                return Poll::Ready(Err(NoAnswer::Silence));
            }
            Err(_) => return Poll::Ready(Err(NoAnswer::Garbage)),
        };
        self.has_answered = true;
        let parsed = parse_response_head(&self.wire.input.filled()[..length], &request.method, &self.limits, head);
        let Ok(parsed) = parsed else { return Poll::Ready(Err(NoAnswer::Garbage)) };
        self.wire.input.consume(length);
        if !head.status.is_informational() {
            self.keeps = parsed.keep_alive;
            self.wire.expect_body(parsed.body);
        } else if head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.wire.input.release();
        }
        Poll::Ready(Ok(Answered { body: parsed.body }))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wired for H1Upstream<S> {
    type Stream = S;

    fn wire(&self) -> &Wire<S> {
        &self.wire
    }

    fn wire_mut(&mut self) -> &mut Wire<S> {
        &mut self.wire
    }
}

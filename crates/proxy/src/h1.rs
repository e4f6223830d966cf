//! A client that speaks HTTP/1.1, or 1.0.

use std::task::{Context, Poll, ready};

use coracle_proxy_http::{BodyLength, HeadLimits, Known, ParseError, Parsed, RequestHead, ResponseHead, parse_request_head};
use http::{Method, Version};
use tokio::io::AsyncWrite;

use crate::buffer::SMALL;
use crate::deadline::Deadline;
use crate::options::Limits;
use crate::side::{Downstream, Source};
use crate::stream::ClientStream;
use crate::wire::{HeadError, Wire, Wired, head_limits};

/// How much of what a client sends on is read before it is cut off, so that it gets to read the answer before.
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's connection.
pub(crate) struct H1Client {
    pub(crate) wire: Wire<ClientStream>,
    limits: Limits,
    head_limits: HeadLimits,
    /// The client speaks HTTP/1.0.
    is_old: bool,
    /// As far as the client is concerned, there may be another request on this connection.
    asks_to_keep: bool,
    /// There may be another request on this connection.
    keeps: bool,
    /// The client sends nothing more.
    has_ended: bool,
    /// What the client has sent is no request.
    is_bad: bool,
}

impl H1Client {
    /// A connection on which nothing has been read.
    pub(crate) fn new(stream: ClientStream, limits: &Limits) -> Self {
        Self {
            wire: Wire::new(stream),
            limits: *limits,
            head_limits: head_limits(limits),
            is_old: false,
            asks_to_keep: true,
            keeps: true,
            has_ended: false,
            is_bad: false,
        }
    }

    /// Waits for the next request, up to the deadline that is set, and from its first byte on for as long as a head may take;
    /// the length of the head. Nothing if there is none: the client has left, or time is up.
    pub(crate) async fn next(&mut self, deadline: &Deadline) -> Option<Result<usize, ParseError>> {
        let mut has_begun = false;
        std::future::poll_fn(|cx| match self.wire.poll_head(cx, &self.head_limits) {
            Poll::Ready(Ok(length)) => Poll::Ready(Some(Ok(length))),
            Poll::Ready(Err(HeadError::Bad(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Err(HeadError::Ended)) => Poll::Ready(None),
            Poll::Pending if deadline.has_passed() => Poll::Ready(None),
            Poll::Pending => {
                if !has_begun && !self.wire.input.is_empty() {
                    has_begun = true;
                    deadline.set(self.limits.header_read);
                }
                Poll::Pending
            }
        })
        .await
    }

    /// Takes the head of a request, which is so many bytes long.
    pub(crate) fn read(&mut self, length: usize, head: &mut RequestHead) -> Result<Parsed, ParseError> {
        let parsed = parse_request_head(&self.wire.input.filled()[..length], &self.head_limits, head)?;
        self.wire.input.consume(length);
        self.wire.expect_body(parsed.body);
        self.is_old = head.version() == Version::HTTP_10;
        self.asks_to_keep = parsed.keep_alive;
        self.keeps = parsed.keep_alive;
        Ok(parsed)
    }

    /// Whether another request may follow; if so, gives back what memory it can.
    pub(crate) fn can_go_on(&mut self) -> bool {
        let can = self.keeps && self.wire.is_through() && self.wire.has_put_all();
        if can {
            self.wire.release();
        }
        can
    }

    /// What has come is no request, and there is no knowing where the next one begins.
    pub(crate) fn give_up(&mut self) {
        (self.asks_to_keep, self.keeps, self.is_bad) = (false, false, true);
    }

    /// Ends the connection, so that the client gets to read the answer: closing one that has unread bytes resets it.
    pub(crate) async fn close(mut self, deadline: &Deadline) {
        deadline.set(std::time::Duration::from_secs(1));
        let mut left = LINGER_BYTES;
        let mut has_said_so = false;
        std::future::poll_fn(|cx| {
            if deadline.has_passed() {
                return Poll::Ready(());
            }
            if !has_said_so {
                // A client that is gone does not need to hear it.
                has_said_so = ready!(std::pin::Pin::new(&mut self.wire.stream).poll_shutdown(cx)).is_ok();
            }
            // Nothing of what has been asked for is left: there is nothing unread, as far as one can know.
            let all_read = self.wire.is_through() && self.wire.input.is_empty() && !self.is_bad;
            while has_said_so && left > 0 && !all_read {
                self.wire.input.consume(usize::MAX);
                match ready!(self.wire.input.poll_fill(cx, &mut self.wire.stream, SMALL, SMALL)) {
                    Ok(count) if count > 0 => left = left.saturating_sub(count),
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Wired for H1Client {
    type Stream = ClientStream;

    fn wire(&self) -> &Wire<ClientStream> {
        &self.wire
    }

    fn wire_mut(&mut self) -> &mut Wire<ClientStream> {
        &mut self.wire
    }
}

impl Downstream for H1Client {
    /// A client that closes its side of the connection has left: that is all that can be seen of it until something is sent
    /// to it, and an instance should not work for nobody. But whoever has said that this is the last request on the
    /// connection may close that side and still wait for the answer; and so may whoever has sent further requests already.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_ended && self.wire.input.filled().len() < SMALL {
            match ready!(self.wire.input.poll_fill(cx, &mut self.wire.stream, SMALL, SMALL)) {
                Ok(0) => {
                    self.has_ended = true;
                    if self.asks_to_keep && self.wire.input.is_empty() {
                        return Poll::Ready(());
                    }
                }
                Ok(_) => (),
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, head: &ResponseHead) {
        if !self.is_old {
            head.write_to(self.wire.output.bytes(), BodyLength::None, true);
        }
    }

    fn begin(&mut self, request: &RequestHead, head: &mut ResponseHead, body: BodyLength, keeps: bool) {
        let framing = match body {
            BodyLength::Chunked | BodyLength::UntilClose if self.is_old => BodyLength::UntilClose,
            BodyLength::UntilClose => BodyLength::Chunked,
            other => other,
        };
        self.keeps = self.asks_to_keep && keeps && framing != BodyLength::UntilClose;
        if self.is_old && self.keeps {
            let told = head.fields.set_known(Known::Connection, "keep-alive");
            debug_assert!(told.is_ok(), "a literal");
        }
        head.write_to(self.wire.output.bytes(), framing, self.keeps);
        self.wire.announce_body(if request.method == Method::HEAD { BodyLength::None } else { framing });
    }
}

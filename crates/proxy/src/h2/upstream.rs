//! A target that speaks HTTP/2, known in advance: what gRPC servers do.

use std::task::{Context, Poll, ready};

use ::h2::client::ResponseFuture;
use ::h2::ext::Protocol;
use ::h2::{Error, Reason};
use coracle_proxy_http::{BodyLength, Fields, HeadLimits, RequestHead, ResponseHead};
use http::{Method, Request, Response, StatusCode, Version};

use super::body::{Incoming, Outgoing};
use super::pool::Lane;
use super::websocket::{self, Channel};
use crate::side::{Answer, Answered, Broken, Next, NoAnswer, Sink, Source, Upstream};

/// One stream of a connection to a target. Dropping it takes back what is not through.
pub(crate) struct H2Upstream {
    response: Option<ResponseFuture>,
    /// The key of the WebSocket that is asked for.
    key: Option<String>,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
    limits: HeadLimits,
    state: State,
    // Last: the streams above end before the connection can.
    lane: Lane,
}

/// How far the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of it can have had an effect: it has not left, or the target has said that it did not look at it.
    Unsent,
    /// It has left, or is about to.
    Sent,
    /// It cannot be said in HTTP/2.
    Unspeakable,
}

impl H2Upstream {
    /// For one exchange.
    pub(crate) fn new(lane: Lane, limits: HeadLimits) -> Self {
        Self { response: None, key: None, outgoing: None, incoming: None, limits, state: State::Unsent, lane }
    }

    /// The stream as it is, after a change of protocols; nothing if there has been none.
    pub(crate) fn into_changed(self) -> Option<Channel<'static>> {
        Some(Channel { incoming: self.incoming?, outgoing: self.outgoing?, meter: None, lane: Some(self.lane) })
    }

    fn try_send(&mut self, head: &RequestHead, body: BodyLength) -> Result<(), State> {
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.to_uri(false).map_err(|_bad| State::Unspeakable)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = head.to_header_map(body);
        let opens = websocket::is_asked_for(head);
        if opens {
            // Without it, the request would be another one.
            if !self.lane.send.is_extended_connect_protocol_enabled() {
                return Err(State::Unspeakable);
            }
            let key = head.fields.get("Sec-WebSocket-Key").and_then(|key| std::str::from_utf8(key).ok());
            self.key = Some(key.ok_or(State::Unspeakable)?.to_owned());
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            request.headers_mut().remove("sec-websocket-key");
        }
        let has_ended = body.is_empty() && !opens;
        let announced = match body {
            BodyLength::Fixed(length) => Some(length),
            _ => None,
        };
        let (response, stream) = self.lane.send.send_request(request, has_ended).map_err(|_gone| State::Unsent)?;
        self.response = Some(response);
        self.outgoing = Some(Outgoing::new(stream, announced, has_ended));
        Ok(())
    }

    /// What an error says about a request that has not been answered (RFC 9113, section 8.7).
    fn no_answer(&mut self, error: &Error) -> NoAnswer {
        let is_refused = error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // Streams that the target still works on are not ended by its GOAWAY.
        if is_refused || error.is_remote() && error.is_go_away() {
            self.state = State::Unsent;
            return NoAnswer::Silence;
        }
        if error.is_io() || error.is_go_away() { NoAnswer::Silence } else { NoAnswer::Garbage }
    }

    fn read(&mut self, response: Response<Option<::h2::RecvStream>>, request: &RequestHead, head: &mut ResponseHead) -> Answer {
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(NoAnswer::Garbage);
        }
        let ends = body.as_ref().is_some_and(::h2::RecvStream::is_end_stream);
        let parsed = head.read_h2(&parts, &request.method, ends, &self.limits).map_err(|_bad| NoAnswer::Garbage)?;
        if body.is_some()
            && head.status.is_success()
            && let Some(key) = &self.key
        {
            websocket::as_switched(key, head).ok_or(NoAnswer::Garbage)?;
        }
        if let Some(body) = body {
            self.incoming = Some(Incoming::new(body, false, self.limits));
            self.response = None;
        }
        Ok(Answered { body: parsed.body })
    }
}

impl Upstream for H2Upstream {
    fn send(&mut self, head: &RequestHead, body: BodyLength) {
        self.state = self.try_send(head, body).err().unwrap_or(State::Sent);
    }

    fn has_sent(&self) -> bool {
        self.state != State::Unsent
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, request: &RequestHead, head: &mut ResponseHead) -> Poll<Answer> {
        let Some(response) = &mut self.response else {
            let unsent = self.state == State::Unsent;
            return Poll::Ready(Err(if unsent { NoAnswer::Silence } else { NoAnswer::Garbage }));
        };
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => return Poll::Ready(self.read(interim.map(|()| None), request, head)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.no_answer(&error))),
            Poll::Ready(None) => (),
            Poll::Pending => return Poll::Pending,
        }
        match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(response) => Poll::Ready(self.read(response.map(Some), request, head)),
            Err(error) => Poll::Ready(Err(self.no_answer(&error))),
        }
    }
}

impl Source for H2Upstream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        self.incoming.as_mut().map_or(Poll::Ready(Err(Broken::Gone)), |incoming| incoming.poll_next(cx))
    }

    fn content(&self) -> &[u8] {
        self.incoming.as_ref().map_or(&[], Incoming::content)
    }

    fn consume(&mut self, count: usize) {
        if let Some(incoming) = &mut self.incoming {
            incoming.consume(count);
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        self.incoming.as_ref().and_then(Incoming::trailers)
    }

    fn is_through(&self) -> bool {
        self.incoming.as_ref().is_some_and(Incoming::is_through)
    }
}

impl Sink for H2Upstream {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        self.outgoing.as_mut().map_or(Poll::Ready(Err(Broken::Gone)), |outgoing| outgoing.poll_put(cx, content))
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        match &mut self.outgoing {
            // The request is through, the stream is not: what follows on it is the WebSocket's.
            Some(_) if self.key.is_some() => Ok(()),
            Some(outgoing) => outgoing.end(trailers),
            // It has not left, which is no fault of the body's: whoever asks for the answer is told.
            None => Ok(()),
        }
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(self.outgoing.as_mut().map_or(Err(Broken::Gone), Outgoing::flush))
    }
}

//! One request of a client, on a stream of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use ::h2::ext::Protocol;
use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use coracle_proxy_http::{BodyLength, Fields, ParseError, Parsed, RequestHead, ResponseHead};
use coracle_proxy_middleware::Passage;
use http::{Method, Request, Response, StatusCode, Version};

use super::body::{Incoming, Outgoing};
use super::meter::Meter;
use super::websocket::{Channel, Key};
use crate::deadline::Deadline;
use crate::exchange::{self, Caller, Outcome};
use crate::heads::{Heads, Pair};
use crate::refusal::Refusal;
use crate::side::{Broken, Downstream, Next, Sink, Source};
use crate::target::InFlight;
use crate::tunnel::{self, Tunnel};
use crate::wire::head_limits;
use crate::worker::Counted;

/// How a stream ended, as far as the connection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer, or at least its beginning.
    Answered,
    /// The client took the request back before.
    Abandoned,
}

/// Answers one request.
pub(super) async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    caller: &Caller<'_>,
    counted: &Counted,
    meter: &Meter,
) -> Ended {
    let (ended, tunnel) = {
        let _enrolled = poll_fn(|cx| Poll::Ready(counted.enrol(cx.waker()))).await;
        let deadline = Deadline::new();
        let caller = Caller {
            seat: caller.seat,
            peer: caller.peer,
            arrival: caller.arrival,
            forwarding: caller.forwarding,
            server_name: caller.server_name,
            deadline: &deadline,
        };
        let mut work = pin!(talk(request, respond, &caller, meter));
        deadline.watch(work.as_mut()).await
    };
    if let Some(tunnel) = tunnel {
        // What HTTP has needed is given back: a tunnel may last for days.
        Box::pin(tunnel::run_within(tunnel, counted)).await;
    }
    ended
}

async fn talk<'m>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    caller: &Caller<'_>,
    meter: &'m Meter,
) -> (Ended, Option<Tunnel<Channel<'m>>>) {
    let mut heads = Heads::take();
    let limits = head_limits(&caller.seat.plane.limits);
    let (parts, body) = request.into_parts();
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let read = heads.pair().request.read_h2(&parts, protocol, body.is_end_stream(), &limits);
    let is_through = read.as_ref().map_or(body.is_end_stream(), |parsed| parsed.body == BodyLength::None);
    let mut client = H2Client {
        incoming: Incoming::new(body, is_through, limits),
        respond,
        outgoing: None,
        is_broken: false,
        key: None,
        meter,
    };
    match client.talk(read, protocol, caller, heads.pair()).await {
        Some(Outcome::Changed { server, from_server, upgraded, passage }) => {
            (Ended::Answered, client.into_tunnel(server, from_server, upgraded, passage))
        }
        Some(Outcome::Broken) => {
            let ended = if client.outgoing.is_some() { Ended::Answered } else { Ended::Abandoned };
            client.reset(Reason::INTERNAL_ERROR);
            (ended, None)
        }
        Some(Outcome::Answered) | None => (Ended::Answered, None),
    }
}

/// A client's stream.
struct H2Client<'m> {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    /// Once the answer has begun.
    outgoing: Option<Outgoing>,
    /// The head of the answer could not be sent.
    is_broken: bool,
    /// If the stream shall become a WebSocket.
    key: Option<Key>,
    meter: &'m Meter,
}

impl<'m> H2Client<'m> {
    async fn talk(
        &mut self,
        read: Result<Parsed, ParseError>,
        protocol: Option<&str>,
        caller: &Caller<'_>,
        pair: &mut Pair,
    ) -> Option<Outcome> {
        let refusal = match (read, protocol) {
            (Ok(parsed), None) => return Some(exchange::answer(caller, pair, &parsed, self).await),
            (Ok(parsed), Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => match Key::put(&mut pair.request) {
                Some(key) => {
                    self.key = Some(key);
                    return Some(exchange::answer(caller, pair, &parsed, self).await);
                }
                None => Refusal::BadGateway,
            },
            (Ok(_), Some(_)) => Refusal::Connect,
            (Err(error), _) => Refusal::Malformed(error),
        };
        exchange::refuse(caller, pair, &refusal, self).await;
        None
    }

    fn into_tunnel(
        mut self,
        server: tunnel::Server,
        from_server: Vec<u8>,
        upgraded: InFlight,
        passage: Option<Box<Passage>>,
    ) -> Option<Tunnel<Channel<'m>>> {
        self.incoming.reopen();
        let client = Channel { incoming: self.incoming, outgoing: self.outgoing?, meter: Some(self.meter), lane: None };
        Some(Tunnel { client, server, from_client: Vec::new(), from_server, upgraded, passage, admitted: None })
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// What a WebSocket's client is told: 200 where HTTP/1.1 has 101; no success if it is none (RFC 8441, section 5).
    fn answer_key(key: &Key, head: &mut ResponseHead) -> Result<bool, Broken> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if !key.fits(head) {
                return Err(Broken::Malformed);
            }
            head.status = StatusCode::OK;
            head.fields.remove("sec-websocket-accept");
            return Ok(true);
        }
        if head.status.is_success() {
            head.status = StatusCode::BAD_GATEWAY;
        }
        Ok(false)
    }

    fn try_begin(&mut self, request: &RequestHead, head: &mut ResponseHead, body: BodyLength) -> Result<(), Broken> {
        let opens = self.key.as_ref().map_or(Ok(false), |key| Self::answer_key(key, head))?;
        let has_ended = !opens && (body.is_empty() || request.method == Method::HEAD);
        let announced = match body {
            BodyLength::Fixed(length) => Some(length),
            _ => None,
        };
        let response = response(head, body);
        let stream = self.respond.send_response(response, has_ended).map_err(|_gone| Broken::Gone)?;
        self.outgoing = Some(Outgoing::new(stream, announced, has_ended));
        Ok(())
    }
}

fn response(head: &ResponseHead, body: BodyLength) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = head.to_header_map(body);
    response
}

impl Source for H2Client<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        self.incoming.poll_next(cx)
    }

    fn content(&self) -> &[u8] {
        self.incoming.content()
    }

    fn consume(&mut self, count: usize) {
        self.meter.piece(count);
        self.incoming.consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.incoming.trailers()
    }

    fn is_through(&self) -> bool {
        self.incoming.is_through()
    }
}

impl Sink for H2Client<'_> {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        self.meter.piece(0);
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_put(cx, content),
            None => Poll::Ready(Err(Broken::Gone)),
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        self.outgoing.as_mut().map_or(Err(Broken::Gone), |outgoing| outgoing.end(trailers))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(match &mut self.outgoing {
            _ if self.is_broken => Err(Broken::Gone),
            Some(outgoing) => outgoing.flush(),
            None => Ok(()),
        })
    }
}

impl Downstream for H2Client<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|_why| ()),
        }
    }

    fn interim(&mut self, head: &ResponseHead) {
        if self.respond.send_informational(response(head, BodyLength::None)).is_err() {
            tracing::trace!("an interim answer came too late");
        }
    }

    /// Nothing about the connection is said in an answer: it has frames for that.
    fn begin(&mut self, request: &RequestHead, head: &mut ResponseHead, body: BodyLength, _keeps: bool) {
        self.is_broken = self.try_begin(request, head, body).is_err();
    }
}

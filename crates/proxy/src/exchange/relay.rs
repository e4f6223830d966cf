//! Passing an answer on to the client, while the rest of the request may still go the other way.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_proxy_http::{BodyLength, Known, strip_response};
use coracle_proxy_middleware::After;
use http::StatusCode;

use super::encoded::Encoding;
use super::reach::Reached;
use super::{Exchange, Outcome, Stop, Uploading, keep};
use crate::buffer::LARGE;
use crate::date;
use crate::refusal::Refusal;
use crate::side::{Answered, Downstream, End, Flow, Next, Relay, Source};
use crate::target::{Count, InFlight, Target};
use crate::tunnel::Server;

impl<D: Downstream> Exchange<'_, D> {
    /// Sends the client the answer whose head has come.
    pub(super) async fn pass_on(
        &mut self,
        mut up: Reached,
        in_flight: InFlight,
        answered: Answered,
        upgrades: bool,
    ) -> Result<Outcome, Stop> {
        let has_failed = self.says_failed(in_flight.target());
        let switches = self.pair.response.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !upgrades {
            self.account.upstream_failed();
            self.target_failed(in_flight.target());
            return Err(Stop::Refuse(Refusal::BadGateway));
        }
        self.make_ours(switches);
        let after = self.through_middlewares().await?;
        if let Some(answer) = after.replace {
            if !has_failed {
                self.target_answered(in_flight.target());
            }
            drain(&mut up).await;
            keep(up, in_flight.target(), self.caller.seat);
            return Err(Stop::Answer(Box::new(answer)));
        }
        if switches {
            self.target_answered(in_flight.target());
            return self.change(up, in_flight).await;
        }
        let encoding = after.encoder.map(|encoder| Box::new(Encoding::new(encoder)));
        self.begin_answer(if encoding.is_some() { BodyLength::Chunked } else { answered.body });
        // A target that answers before it has read the body may take the rest of it for another request: the answer to that
        // would be the next client's. (Streams of HTTP/2 are apart.)
        let is_early = self.upload.state != Uploading::Through && matches!(up, Reached::H1(_));
        let target = in_flight.target();
        self.relay(&mut up, target, encoding).await?;
        if !has_failed {
            self.target_answered(target);
        }
        if !is_early {
            keep(up, target, self.caller.seat);
        }
        drop(in_flight);
        Ok(Outcome::Answered)
    }

    /// Makes the target's head one that the proxy may say: without what is between the two of them.
    fn make_ours(&mut self, switches: bool) {
        let fields = &mut self.pair.response.fields;
        strip_response(fields, switches);
        if let Some(cookie) = self.cookie.take()
            && let Err(error) = fields.append("Set-Cookie", cookie)
        {
            tracing::debug!(%error, "a sticky cookie was left out");
        }
        self.turn = None;
        self.caller.deadline.clear();
    }

    /// Takes the head back through the middlewares, some of which may ask somebody.
    async fn through_middlewares(&mut self) -> Result<After, Stop> {
        if !self.asks_about(self.pair.response.status) {
            return Ok(Self::pass_back(self.passed.as_deref_mut(), &mut self.pair.response));
        }
        let mut head = std::mem::take(&mut self.pair.response);
        // Apart, so that those who ask nobody do not carry its size.
        let after = Box::pin(self.back_asking(&mut head)).await;
        self.pair.response = head;
        after
    }

    /// Sends the head.
    fn begin_answer(&mut self, body: BodyLength) {
        let head = &mut self.pair.response;
        if !head.fields.contains_known(Known::Date) {
            date::put(&mut head.fields);
        }
        self.account.status = head.status.as_u16();
        // A client that has not been told to send its body may or may not do so.
        let keeps = !self.expects && !self.caller.seat.plane.is_closing();
        self.down.begin(&self.pair.request, &mut self.pair.response, body, keeps);
    }

    /// Sends the body, and passes on what is left of the request's.
    async fn relay(&mut self, up: &mut Reached, target: &Arc<Target>, encoding: Option<Box<Encoding>>) -> Result<(), Stop> {
        let mut download = Download { encoding, ..Download::default() };
        let result = poll_fn(|cx| self.poll_both(cx, up, target, &mut download)).await;
        let sent = download.encoding.as_ref().map_or(download.relay.bytes, |encoding| encoding.sent);
        (self.account.received, self.account.sent) = (self.upload.relay.bytes, sent);
        result
    }

    /// The answer and what is left of the request, each as far as it goes.
    fn poll_both(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut Reached,
        target: &Arc<Target>,
        download: &mut Download,
    ) -> Poll<Result<(), Stop>> {
        if target.is_cut() {
            return Poll::Ready(Err(Stop::Broken));
        }
        self.download_some(cx, up, target, download)?;
        self.upload_rest(cx, up, download.is_through)?;
        if download.is_through && self.upload.state != Uploading::Going {
            return Poll::Ready(Ok(()));
        }
        if self.caller.deadline.has_passed() {
            return Poll::Ready(if download.is_through { Ok(()) } else { Err(Stop::Broken) });
        }
        if self.upload.state != Uploading::Going && self.down.is_through() && self.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Stop::Broken));
        }
        Poll::Pending
    }

    fn download_some(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut Reached,
        target: &Target,
        download: &mut Download,
    ) -> Result<(), Stop> {
        if download.is_through {
            return Ok(());
        }
        let deadline = self.caller.deadline;
        let before = download.relay.bytes;
        let flow = match &mut download.encoding {
            None => download.relay.poll(cx, up, self.down),
            Some(encoding) => download.relay.poll(cx, up, &mut encoding.before(self.down)),
        };
        match flow {
            Flow::Through => {
                download.is_through = true;
                deadline.clear();
            }
            // An answer may take as long as it takes.
            Flow::Waits(End::Source) => {
                if download.stalls {
                    download.stalls = false;
                    deadline.clear();
                }
            }
            // Nobody may leave it unread for ever.
            Flow::Waits(End::Sink) => {
                if !download.stalls || download.relay.bytes > before {
                    download.stalls = true;
                    deadline.set(self.caller.seat.plane.limits.stall);
                }
            }
            Flow::Stops(end, _) => {
                if end == End::Source {
                    self.account.upstream_failed();
                    self.target_failed(target);
                    if let Some(passed) = &self.passed {
                        passed.chain.broke(&passed.passage);
                    }
                }
                return Err(Stop::Broken);
            }
        }
        Ok(())
    }

    /// Passes the rest of a body on whose request has been answered already. `alone` says that nothing else is left.
    fn upload_rest(&mut self, cx: &mut Context<'_>, up: &mut Reached, alone: bool) -> Result<(), Stop> {
        if self.upload.state != Uploading::Going {
            return Ok(());
        }
        let before = self.upload.relay.bytes;
        let flow = self.poll_upload(cx, up);
        match flow {
            Flow::Through => self.upload.state = Uploading::Through,
            Flow::Waits(_) if alone => {
                let left = self.left_for(flow);
                if self.upload.relay.bytes > before {
                    self.caller.deadline.set(left);
                } else {
                    self.caller.deadline.set_if_none(left);
                }
            }
            Flow::Waits(_) => (),
            // A body that breaks off or is none: no other request can follow, but the answer may go on.
            Flow::Stops(End::Source, _) if !alone => return Err(Stop::Broken),
            Flow::Stops(..) => self.upload.state = Uploading::Stopped,
        }
        Ok(())
    }

    /// Sends the client the change of protocols.
    async fn change(&mut self, up: Reached, in_flight: InFlight) -> Result<Outcome, Stop> {
        let deadline = self.caller.deadline;
        deadline.set(self.caller.seat.plane.limits.stall);
        self.account.status = self.pair.response.status.as_u16();
        self.down.begin(&self.pair.request, &mut self.pair.response, BodyLength::None, true);
        let sent = poll_fn(|cx| match self.down.poll_flush(cx) {
            Poll::Pending if !deadline.has_passed() => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(true),
            _ => Poll::Ready(false),
        });
        if !sent.await {
            return Err(Stop::Broken);
        }
        let upgraded = InFlight::begin(in_flight.target(), self.caller.seat.index, Count::Upgraded);
        let (server, from_server) = match up {
            Reached::H1(up) => {
                let (stream, read) = up.into_changed();
                (Server::Socket(stream), read)
            }
            Reached::H2(up) => (Server::Stream(Box::new(up.into_changed().ok_or(Stop::Broken)?)), Vec::new()),
        };
        let passage = self.passed.take().map(|passed| Box::new(passed.passage));
        Ok(Outcome::Changed { server, from_server, upgraded, passage })
    }
}

/// The answer's body on its way.
#[derive(Default)]
struct Download {
    relay: Relay,
    encoding: Option<Box<Encoding>>,
    is_through: bool,
    /// The client does not take it.
    stalls: bool,
}

/// Reads what has come of a body that nobody wants, if that makes the connection fit for another request. Does not wait.
async fn drain(up: &mut Reached) {
    poll_fn(|cx| {
        let mut left = LARGE;
        while let Poll::Ready(Ok(Next::Content)) = up.poll_next(cx) {
            let count = up.content().len();
            up.consume(count);
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        Poll::Ready(())
    })
    .await;
}

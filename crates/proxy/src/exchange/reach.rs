//! How a target is reached: by a connection of its own for the request, or by a stream of one that requests share.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_proxy_http::{BodyLength, Fields, RequestHead, ResponseHead};
use coracle_proxy_table::Protocol;

use super::{Exchange, Stop};
use crate::dial::dial;
use crate::h2::{self, H2Upstream};
use crate::side::{Answer, Broken, Downstream, Next, Sink, Source, Upstream};
use crate::target::Target;
use crate::upstream::H1Upstream;
use crate::wire::head_limits;

/// A target, reached for one request.
#[allow(clippy::large_enum_variant, reason = "both live in the exchange, one at a time")]
pub(super) enum Reached {
    H1(H1Upstream),
    H2(H2Upstream),
}

impl<D: Downstream> Exchange<'_, D> {
    /// Reaches a target, if it can be done in time, and whether by a connection that was there before. One of HTTP/1.1 is
    /// used again only if it `may_reuse` one: there is no telling whether it is just being closed. One of HTTP/2 is shared
    /// by whatever comes, as targets say which requests they have not looked at.
    pub(super) async fn reach(&mut self, target: &Arc<Target>, may_reuse: bool) -> Result<Option<(Reached, bool)>, Stop> {
        let seat = self.caller.seat;
        let limits = head_limits(&seat.plane.limits);
        if target.protocol == Protocol::H2c {
            let lane = self.in_time(target, h2::open(target, seat.index, &seat.plane.limits)).await?;
            return Ok(lane.map(|lane| {
                let is_reused = lane.is_reused;
                (Reached::H2(H2Upstream::new(lane, limits)), is_reused)
            }));
        }
        if may_reuse && let Some(stream) = target.pool(seat.index).take(self.account.began, seat.plane.pool_limits()) {
            return Ok(Some((Reached::H1(H1Upstream::new(stream, limits)), true)));
        }
        let connecting = async { dial(target.address).await.ok() };
        let stream = self.in_time(target, connecting).await?.filter(|stream| stream.set_nodelay(true).is_ok());
        Ok(stream.map(|stream| (Reached::H1(H1Upstream::new(stream, limits)), false)))
    }

    /// What comes of `connecting`; nothing if that takes too long, or the target is cut off meanwhile.
    async fn in_time<T>(&mut self, target: &Target, connecting: impl Future<Output = Option<T>>) -> Result<Option<T>, Stop> {
        let deadline = self.caller.deadline;
        deadline.set(self.caller.seat.plane.limits.connect);
        let mut connecting = pin!(connecting);
        let in_time = poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Ready(connected) => Poll::Ready(connected),
            Poll::Pending if deadline.has_passed() || target.is_cut() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let connected = self.unless_gone(in_time).await?;
        deadline.clear();
        Ok(connected.filter(|_| !target.is_cut()))
    }
}

/// The same done to whichever it is.
macro_rules! either {
    ($reached:ident, $up:ident => $done:expr) => {
        match $reached {
            Reached::H1($up) => $done,
            Reached::H2($up) => $done,
        }
    };
}

impl Upstream for Reached {
    fn send(&mut self, head: &RequestHead, body: BodyLength) {
        either!(self, up => up.send(head, body))
    }

    fn has_sent(&self) -> bool {
        either!(self, up => up.has_sent())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, request: &RequestHead, head: &mut ResponseHead) -> Poll<Answer> {
        either!(self, up => up.poll_answer(cx, request, head))
    }
}

impl Source for Reached {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        either!(self, up => up.poll_next(cx))
    }

    fn content(&self) -> &[u8] {
        either!(self, up => up.content())
    }

    fn consume(&mut self, count: usize) {
        either!(self, up => up.consume(count))
    }

    fn trailers(&self) -> Option<&Fields> {
        either!(self, up => up.trailers())
    }

    fn is_through(&self) -> bool {
        either!(self, up => up.is_through())
    }
}

impl Sink for Reached {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        either!(self, up => up.poll_put(cx, content))
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        either!(self, up => up.end(trailers))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        either!(self, up => up.poll_flush(cx))
    }
}

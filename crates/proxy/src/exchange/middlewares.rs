//! A route's middlewares around an exchange: what they make of the request, and of the head of its answer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use coracle_proxy_http::ResponseHead;
use coracle_proxy_middleware::{After, Chain, Client, Passage};
use http::StatusCode;

use super::{Exchange, Stop};
use crate::fetch::Fetcher;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::side::Downstream;

/// What a request has passed.
pub(super) struct Passed {
    pub(super) route: Arc<Route>,
    pub(super) chain: Arc<Chain>,
    /// What limits count until the exchange has ended.
    pub(super) passage: Passage,
}

impl<D: Downstream> Exchange<'_, D> {
    /// Takes the request through the route's middlewares, for as long as the client is there and time is left.
    pub(super) async fn pass(&mut self, route: Arc<Route>) -> Result<(), Stop> {
        self.account.routed(&route);
        let Some(chain) = route.chain.clone() else { return Ok(()) };
        let (caller, origin) = (self.caller, self.origin);
        let client = Client {
            ip: origin.client,
            peer: SocketAddr::new(caller.arrival.peer(), origin.peer.port()),
            tls: origin.tls,
            listener_port: caller.peer.listener.address.port(),
        };
        let fetcher = Fetcher::new(caller.seat);
        caller.deadline.set(caller.seat.plane.limits.response_header);
        let (request, down) = (&mut self.pair.request, &mut *self.down);
        let passage = {
            let mut work = pin!(chain.request(&client, request, &fetcher));
            poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(passage) => Poll::Ready(passage.map_err(|answer| Stop::Answer(Box::new(answer)))),
                Poll::Pending if caller.deadline.has_passed() => Poll::Ready(Err(Stop::Refuse(Refusal::Timeout))),
                Poll::Pending if down.is_through() && down.poll_gone(cx).is_ready() => Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        caller.deadline.clear();
        let passage = passage?;
        self.body_limit = chain.body_limit().unwrap_or(u64::MAX);
        self.passed = Some(Box::new(Passed { route, chain, passage }));
        Ok(())
    }

    /// Whether a service may have to be asked for a page in place of an answer with this status.
    pub(super) fn asks_about(&self, status: StatusCode) -> bool {
        self.passed.as_ref().is_some_and(|passed| passed.chain.asks()) && (status.is_client_error() || status.is_server_error())
    }

    /// The same as [`Exchange::pass_back`] for those. The client may leave meanwhile.
    pub(super) async fn back_asking(&mut self, head: &mut ResponseHead) -> Result<After, Stop> {
        let Some(Passed { chain, passage, .. }) = self.passed.as_deref_mut() else { return Ok(After::default()) };
        let fetcher = Fetcher::new(self.caller.seat);
        let (request, down) = (&self.pair.request, &mut *self.down);
        let mut work = pin!(chain.response_asking(passage, head, request, &fetcher));
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(after) => Poll::Ready(Ok(after)),
            Poll::Pending if down.is_through() && down.poll_gone(cx).is_ready() => Poll::Ready(Err(Stop::Gone)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Takes the head of an answer back through the middlewares that the request has passed.
    pub(super) fn pass_back(passed: Option<&mut Passed>, head: &mut ResponseHead) -> After {
        passed.map_or_else(After::default, |passed| passed.chain.response(&mut passed.passage, head))
    }
}

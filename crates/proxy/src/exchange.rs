//! One request: where it goes, how it is sent, and what is done when that fails.
//!
//! A request is sent a second time only if nothing of it can have had an effect: it never left, or it has no body, means
//! the same when repeated, and no byte of an answer has come.

mod attempt;
mod relay;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use coracle_proxy_http::{Arrival, BodyLength, Parsed, TargetForm, client_ip, strip_request};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::account::{Account, Origin};
use crate::deadline::Deadline;
use crate::exchange::attempt::Failure;
use crate::heads::Pair;
use crate::hold::Turn;
use crate::listener::Peer;
use crate::plane::{Before, Decision, Way};
use crate::pool;
use crate::refusal::Refusal;
use crate::route::{RequestFacts, Route};
use crate::side::{Downstream, Relay};
use crate::target::{InFlight, Target};
use crate::upstream::H1Upstream;
use crate::wire::head_limits;
use crate::worker::Seat;

/// How often a request that never left is tried again.
const MOST_UNSENT: usize = 3;
/// How much of the body of a refused request is read, so that the client gets to read the refusal.
const DISCARDED: usize = 1024 * 1024;
/// For how long it is read.
const DISCARDING: Duration = Duration::from_secs(1);

/// Where a request comes from.
pub(crate) struct Caller<'c> {
    pub(crate) seat: &'c Seat,
    pub(crate) peer: &'c Peer,
    pub(crate) arrival: &'c Arrival,
    pub(crate) deadline: &'c Deadline,
}

/// How an exchange ends.
pub(crate) enum Outcome {
    /// An answer has been sent to its end.
    Answered,
    /// The client has left, or its answer broke off: nothing more can be sent.
    Broken,
    /// The answer was a change of protocols.
    Changed {
        server: TcpStream,
        /// What the target has sent of the new protocol.
        from_server: Vec<u8>,
        upgraded: InFlight,
    },
}

/// Why a request is not answered by a target.
pub(crate) enum Stop {
    /// It is answered here.
    Refuse(Refusal),
    /// The client has left.
    Gone,
    /// The answer broke off.
    Broken,
}

/// Answers one request, whose head has just been read.
pub(crate) async fn answer<D: Downstream>(caller: &Caller<'_>, pair: &mut Pair, parsed: &Parsed, down: &mut D) -> Outcome {
    let mut exchange = Exchange::new(caller, pair, down);
    (exchange.body, exchange.expects) = (parsed.body, parsed.expects_continue);
    caller.deadline.clear();
    match exchange.run().await {
        Ok(outcome) => outcome,
        Err(Stop::Refuse(refusal)) => exchange.refuse(&refusal).await,
        Err(Stop::Gone) => Outcome::Broken,
        Err(Stop::Broken) => {
            exchange.account.truncated = true;
            Outcome::Broken
        }
    }
}

/// Refuses what is no request.
pub(crate) async fn refuse<D: Downstream>(caller: &Caller<'_>, pair: &mut Pair, refusal: &Refusal, down: &mut D) {
    pair.request.clear();
    // However that ends, the connection does.
    drop(Exchange::new(caller, pair, down).refuse(refusal).await);
}

/// A request on its way.
struct Exchange<'x, D> {
    caller: &'x Caller<'x>,
    pair: &'x mut Pair,
    down: &'x mut D,
    origin: Origin,
    account: Account<'x>,
    body: BodyLength,
    /// The client waits to be told to send the body.
    expects: bool,
    /// The route that has changed the request, if any has.
    changed_by: Option<Arc<Route>>,
    /// If it was held: the right to go before those behind it.
    turn: Option<Turn>,
    upload: Upload,
    /// From the last byte of the request to the head of the answer.
    timeout: Duration,
}

/// The request's body on its way.
#[derive(Default)]
struct Upload {
    relay: Relay,
    state: Uploading,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Uploading {
    /// Under way.
    #[default]
    Going,
    /// Sent to its end.
    Through,
    /// The target takes no more of it.
    Stopped,
}

impl<'x, D: Downstream> Exchange<'x, D> {
    fn new(caller: &'x Caller<'x>, pair: &'x mut Pair, down: &'x mut D) -> Self {
        let Seat { plane, index } = caller.seat;
        let arrival = caller.arrival;
        let client = client_ip(&pair.request.fields, arrival.peer(), &plane.forwarding.trust);
        let origin = Origin { peer: caller.peer.address, client, tls: arrival.is_tls() };
        let account = Account::open(plane, *index, Instant::now(), origin, &pair.request);
        Self {
            caller,
            pair,
            down,
            origin,
            account,
            body: BodyLength::None,
            expects: false,
            changed_by: None,
            turn: None,
            upload: Upload::default(),
            timeout: plane.limits.response_header,
        }
    }

    async fn run(&mut self) -> Result<Outcome, Stop> {
        if self.pair.request.form() == TargetForm::Authority {
            return Err(Stop::Refuse(Refusal::Connect));
        }
        let plane = &self.caller.seat.plane;
        let head = &mut self.pair.request;
        // An authority that asks whether a name leads here is not to be sent elsewhere, whatever the table says.
        if let Some(tls) = &plane.tls
            && !self.origin.tls
            && let Some(answer) = tls.challenge(head)
        {
            return Err(Stop::Refuse(Refusal::Challenge(answer)));
        }
        // First of all: rules and middlewares go by what is known, not by what is claimed.
        let asked = strip_request(head, self.body, &[]);
        plane.ids.ensure(&mut head.fields);
        plane.forwarding.apply(head, self.caller.arrival);
        self.account.identified(head);
        let in_flight = self.find_target(&[]).await?;
        let head = &mut self.pair.request;
        if head.host().is_empty() {
            // HTTP/1.0 may do without, HTTP/1.1 may not.
            let address = in_flight.target().address.to_string();
            head.set_host(&address).map_err(|_never| Stop::Refuse(Refusal::BadGateway))?;
        }
        self.send(in_flight, asked.upgrade).await
    }

    /// Waits until the service admits the request, and counts it in flight on a target that has not been tried.
    async fn find_target(&mut self, tried: &[Arc<Target>]) -> Result<InFlight, Stop> {
        let Seat { plane, index } = self.caller.seat;
        loop {
            let facts = RequestFacts::new(&self.pair.request, self.origin.client);
            let way = match &self.changed_by {
                Some(route) => Way::Known(route),
                None => Way::Facts(&facts),
            };
            let before = Before { tried, called: self.turn.is_some() };
            match plane.decide(*index, way, &self.caller.peer.listener, before) {
                Decision::Go { route, in_flight } => {
                    self.account.routed(&route);
                    if let Some(own) = route.service.as_ref().and_then(|service| service.response_timeout) {
                        self.timeout = own;
                    }
                    return Ok(in_flight);
                }
                Decision::Change { route } => {
                    route.change(&mut self.pair.request).map_err(Stop::Refuse)?;
                    self.changed_by = Some(route);
                }
                Decision::Wait { route, place, at_most } => {
                    self.account.routed(&route);
                    self.turn = None;
                    let turn = self.unless_gone(place.turn(Instant::now() + at_most)).await?;
                    self.turn = Some(turn.ok_or(Stop::Refuse(Refusal::HeldTooLong))?);
                }
                Decision::Refuse { route, refusal } => {
                    route.iter().for_each(|route| self.account.routed(route));
                    return Err(Stop::Refuse(refusal));
                }
            }
        }
    }

    /// Does something for as long as the client is there.
    async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.down.is_through() && self.down.poll_gone(cx).is_ready() => Poll::Ready(Err(Stop::Gone)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn send(&mut self, mut in_flight: InFlight, upgrades: bool) -> Result<Outcome, Stop> {
        let Seat { plane, index } = self.caller.seat;
        let repeatable = self.body.is_empty() && !upgrades && self.pair.request.method.is_idempotent();
        let safe = repeatable && self.pair.request.method.is_safe();
        let mut tried = Vec::new();
        let mut unsent = 0;
        let mut may_reuse = repeatable;
        loop {
            let target = Arc::clone(in_flight.target());
            self.account.attempt(&target);
            let kept = if may_reuse { target.pool(*index).take(self.account.began, plane.pool_limits()) } else { None };
            let reused = kept.is_some();
            let stream = match kept {
                Some(stream) => Some(stream),
                None => self.connect(&target).await?,
            };
            let Some(stream) = stream else {
                self.account.upstream_failed();
                tried.push(target);
                in_flight = self.find_target(&tried).await?;
                continue;
            };
            let mut up = H1Upstream::new(stream, head_limits(&plane.limits));
            let again = reused || (safe && tried.is_empty());
            let failure = match self.attempt(&mut up, &target).await {
                Ok(answered) => return self.pass_on(up, in_flight, answered, upgrades).await,
                Err(failure) => failure,
            };
            if failure != Failure::Gone {
                self.account.upstream_failed();
            }
            match failure {
                Failure::Gone => return Err(Stop::Gone),
                Failure::Late => return Err(Stop::Refuse(Refusal::Timeout)),
                Failure::SlowClient => return Err(Stop::Refuse(Refusal::SlowClient)),
                Failure::BadBody => return Err(Stop::Refuse(Refusal::BadBody)),
                _ if target.is_cut() => return Err(Stop::Refuse(Refusal::CutOff)),
                Failure::Unsent if unsent < MOST_UNSENT && self.upload.relay.bytes == 0 => unsent += 1,
                Failure::Lost if again => (),
                _ => return Err(Stop::Refuse(Refusal::BadGateway)),
            }
            self.upload = Upload::default();
            may_reuse = false;
            if !reused {
                tried.push(target);
                in_flight = self.find_target(&tried).await?;
            }
        }
    }

    /// A fresh connection; nothing if there is none in time.
    async fn connect(&mut self, target: &Target) -> Result<Option<TcpStream>, Stop> {
        let deadline = self.caller.deadline;
        deadline.set(self.caller.seat.plane.limits.connect);
        let mut connecting = pin!(TcpStream::connect(target.address));
        let in_time = poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Ready(stream) => Poll::Ready(stream.ok()),
            Poll::Pending if deadline.has_passed() || target.is_cut() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let stream = self.unless_gone(in_time).await?;
        deadline.clear();
        Ok(stream.filter(|stream| stream.set_nodelay(true).is_ok() && !target.is_cut()))
    }

    /// Answers by itself.
    async fn refuse(&mut self, refusal: &Refusal) -> Outcome {
        // A client that waits to be told to send the body is not told; what it does then is not known.
        let through = self.down.is_through() || !self.expects && *refusal != Refusal::BadBody && self.discard().await;
        let Pair { request, response } = &mut *self.pair;
        refusal.write_head(response);
        self.account.status = response.status.as_u16();
        let text = refusal.text();
        let keeps = through && !self.caller.seat.plane.is_closing();
        self.down.begin(request, response, BodyLength::Fixed(text.len() as u64), keeps);
        let deadline = self.caller.deadline;
        deadline.set(self.caller.seat.plane.limits.stall);
        let mut rest = text.as_bytes();
        let sent = poll_fn(|cx| {
            while !rest.is_empty() {
                match self.down.poll_put(cx, rest) {
                    Poll::Ready(Ok(count)) => rest = &rest[count..],
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(Some(broken))),
                    Poll::Pending if deadline.has_passed() => return Poll::Ready(Err(None)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.down.end(None).map_err(Some)?;
            match self.down.poll_flush(cx) {
                Poll::Pending if deadline.has_passed() => Poll::Ready(Err(None)),
                flushed => flushed.map_err(Some),
            }
        });
        if sent.await.is_err() {
            self.account.truncated = true;
            return Outcome::Broken;
        }
        self.account.sent = text.len() as u64;
        Outcome::Answered
    }

    /// Reads what the client still sends, so that it gets to read the refusal: closing a connection with unread bytes resets
    /// it. Whether the end was reached within reason.
    async fn discard(&mut self) -> bool {
        let deadline = self.caller.deadline;
        deadline.set(DISCARDING);
        let mut left = DISCARDED;
        poll_fn(|cx| {
            loop {
                match self.down.poll_next(cx) {
                    Poll::Ready(Ok(crate::side::Next::End)) => return Poll::Ready(true),
                    Poll::Ready(Ok(crate::side::Next::Content)) if left > 0 => {
                        let count = self.down.content().len();
                        self.down.consume(count);
                        left = left.saturating_sub(count);
                    }
                    Poll::Pending if !deadline.has_passed() => return Poll::Pending,
                    _ => return Poll::Ready(false),
                }
            }
        })
        .await
    }
}

/// Keeps the connection to a target for another request, if it is fit for that.
fn keep(up: H1Upstream, target: &Arc<Target>, seat: &Seat) {
    if let Some(stream) = up.into_kept() {
        pool::keep(target, seat.index, stream, Instant::now(), seat.plane.pool_limits());
    }
}

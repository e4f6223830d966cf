//! One request: where it goes, how it is sent, and what is done when that fails.
//!
//! A request is sent a second time only if nothing of it can have had an effect: it never left, or it has no body, means
//! the same when repeated, and no byte of an answer has come.

mod attempt;
mod encoded;
mod middlewares;
mod pace;
mod reach;
mod relay;
mod repeat;
mod reply;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use coracle_proxy_http::{Arrival, BodyLength, Forwarding, Parsed, TargetForm, client_ip, strip_request};
use coracle_proxy_middleware::{Answer, Passage};
use http::Version;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::account::{Account, Origin};
use crate::balance;
use crate::deadline::Deadline;
use crate::exchange::attempt::Failure;
use crate::exchange::middlewares::Passed;
use crate::exchange::pace::Pace;
use crate::exchange::reach::Reached;
use crate::exchange::repeat::Repeats;
use crate::heads::Pair;
use crate::hold::Turn;
use crate::listener::Peer;
use crate::plane::{Before, Decision, Way};
use crate::pool;
use crate::refusal::Refusal;
use crate::route::{RequestFacts, Route, bare_host};
use crate::side::{Downstream, Relay};
use crate::target::{InFlight, Target};
use crate::tunnel::Server;
use crate::worker::Seat;

/// How often a request that never left is tried again.
const MOST_UNSENT: usize = 3;
/// Where a request comes from.
pub(crate) struct Caller<'c> {
    pub(crate) seat: &'c Seat,
    pub(crate) peer: &'c Peer,
    pub(crate) arrival: &'c Arrival,
    /// What targets are told about the client, and who is believed about it.
    pub(crate) forwarding: &'c Forwarding,
    /// The name that the handshake was for, if there was one and it was for a name.
    pub(crate) server_name: Option<&'c str>,
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
        server: Server,
        /// What the target has sent of the new protocol.
        from_server: Vec<u8>,
        upgraded: InFlight,
        /// What limits count until the new protocol has ended, too.
        passage: Option<Box<Passage>>,
    },
}

/// Why a request is not answered by a target.
pub(crate) enum Stop {
    /// It is answered here.
    Refuse(Refusal),
    /// It is answered by a middleware, or what came is answered so instead.
    Answer(Box<Answer>),
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
        Err(Stop::Answer(answer)) => exchange.reply(*answer).await,
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
    /// What follows on this connection is not to be taken for another request.
    ends: bool,
    /// The middlewares that it has passed, if there are any.
    passed: Option<Box<Passed>>,
    /// How long the request's body may be.
    body_limit: u64,
    /// If it was held: the right to go before those behind it.
    turn: Option<Turn>,
    upload: Upload,
    /// From the last byte of the request to the head of the answer.
    timeout: Duration,
    /// By which the request goes, if its service wants to be told how that ends.
    watched: Option<Arc<Route>>,
    /// How many interim answers have come.
    interim: usize,
    /// What leads the client back to its target, if it does not know.
    cookie: Option<String>,
}

/// The request's body on its way.
#[derive(Default)]
struct Upload {
    relay: Relay,
    state: Uploading,
    pace: Pace,
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
        let client = client_ip(&pair.request.fields, arrival.peer(), &caller.forwarding.trust);
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
            ends: false,
            passed: None,
            body_limit: u64::MAX,
            turn: None,
            upload: Upload::default(),
            timeout: plane.limits.response_header,
            watched: None,
            interim: 0,
            cookie: None,
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
            return Err(Stop::Answer(Box::new(answer)));
        }
        if let Some(tls) = &plane.tls
            && self.origin.tls
            && head.version() == Version::HTTP_2
            && !tls.is_for(self.caller.server_name, &bare_host(head.host()))
        {
            return Err(Stop::Refuse(Refusal::Misdirected));
        }
        if !plane.encoded_characters.allow(head.path()) {
            return Err(Stop::Refuse(Refusal::EncodedCharacter));
        }
        // First of all: rules and middlewares go by what is known, not by what is claimed.
        let passed: SmallVec<[&str; 4]> = plane.connection_fields.iter().map(String::as_str).collect();
        let asked = strip_request(head, self.body, &passed);
        plane.ids.ensure(&mut head.fields);
        self.caller.forwarding.apply(head, self.caller.arrival);
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
            let way = match &self.passed {
                Some(passed) => Way::Known(&passed.route),
                None => Way::Facts(&facts),
            };
            let before = Before { tried, called: self.turn.is_some(), fields: &self.pair.request.fields };
            match plane.decide(*index, way, &self.caller.peer.listener, before) {
                Decision::Go { route, in_flight } => {
                    self.account.routed(&route);
                    self.goes_by(route, in_flight.target());
                    return Ok(in_flight);
                }
                // Apart, so that connections whose routes have no middlewares do not carry its size.
                Decision::Pass { route } => Box::pin(self.pass(route)).await?,
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

    /// What the service of its route wants for it.
    fn goes_by(&mut self, route: Arc<Route>, target: &Arc<Target>) {
        let Some(service) = &route.service else { return };
        self.timeout = service.response_timeout.unwrap_or(self.caller.seat.plane.limits.response_header);
        self.cookie = service.balancer.cookie(target, &self.pair.request.fields);
        self.watched = service.balancer.ejects().then_some(route);
    }

    /// Tells the service that a target has answered properly to the end.
    fn target_answered(&self, target: &Target) {
        if let Some(service) = self.watched.as_ref().and_then(|route| route.service.as_ref()) {
            service.balancer.succeeded(target, Instant::now());
        }
    }

    /// Whether the answer that has come says that its target is of no use now. The service is told.
    fn says_failed(&self, target: &Target) -> bool {
        let has_failed = balance::says_failed(self.pair.response.status);
        if has_failed {
            self.target_failed(target);
        }
        has_failed
    }

    /// Tells the service that a target has not.
    fn target_failed(&self, target: &Target) {
        if let Some(service) = self.watched.as_ref().and_then(|route| route.service.as_ref()) {
            service.balancer.failed(target, Instant::now());
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
        let repeatable = self.body.is_empty() && !upgrades && self.pair.request.method.is_idempotent();
        let safe = repeatable && self.pair.request.method.is_safe();
        let mut repeats = Repeats::new(self.passed.as_deref());
        let mut tried = Vec::new();
        let mut unsent = 0;
        let mut may_reuse = repeatable;
        loop {
            let target = Arc::clone(in_flight.target());
            self.account.attempt(&target);
            let Some((mut up, reused)) = self.reach(&target, may_reuse).await? else {
                self.account.upstream_failed();
                self.target_failed(&target);
                tried.push(target);
                in_flight = self.find_other(&mut tried, &mut repeats).await?;
                continue;
            };
            let again = repeatable && (reused || (safe && tried.is_empty()));
            let failure = match self.attempt(&mut up, &target).await {
                Ok(_) if safe && repeats.wants(self.pair.response.status) => None,
                Ok(answered) => return self.pass_on(up, in_flight, answered, upgrades).await,
                Err(failure) => Some(failure),
            };
            if !matches!(failure, None | Some(Failure::Gone)) {
                self.account.upstream_failed();
            }
            let repeats_here = reused && failure.is_some();
            match failure {
                Some(failure) if failure.is_the_targets(reused) => self.target_failed(&target),
                None => drop(self.says_failed(&target)),
                Some(_) => (),
            }
            match failure {
                Some(Failure::Gone) => return Err(Stop::Gone),
                Some(Failure::Late) => return Err(Stop::Refuse(Refusal::Timeout)),
                Some(Failure::SlowClient) => return Err(Stop::Refuse(Refusal::SlowClient)),
                Some(Failure::BadBody) => return Err(Stop::Refuse(Refusal::BadBody)),
                Some(Failure::TooLarge) => return Err(Stop::Refuse(Refusal::TooLarge)),
                Some(_) if target.is_cut() => return Err(Stop::Refuse(Refusal::CutOff)),
                Some(Failure::Unsent) if unsent < MOST_UNSENT && self.upload.relay.bytes == 0 => unsent += 1,
                Some(Failure::Lost) if again => (),
                Some(Failure::Unsent | Failure::Lost) if repeatable && repeats.are_left() => self.pause(&mut repeats).await?,
                Some(_) if safe && repeats.are_left() => self.pause(&mut repeats).await?,
                Some(_) => return Err(Stop::Refuse(Refusal::BadGateway)),
                None => self.pause(&mut repeats).await?,
            }
            self.upload = Upload::default();
            may_reuse = false;
            if repeats_here {
                repeats.go_on_here();
            } else {
                tried.push(target);
                drop(up);
                in_flight = self.find_other(&mut tried, &mut repeats).await?;
            }
        }
    }
}

/// Keeps the connection to a target for another request, if it is fit for that.
fn keep(up: Reached, target: &Arc<Target>, seat: &Seat) {
    if let Reached::H1(up) = up
        && let Some(stream) = up.into_kept()
    {
        pool::keep(target, seat.index, stream, Instant::now(), seat.plane.pool_limits());
    }
}

//! What stands before every path that costs something: who calls, and whether it may.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use coracle_sandbox::Limits;
use http::HeaderMap;
use http::header::UPGRADE;

use super::Shared;
use crate::caller::{self, Caller};
use crate::keys;
use crate::problem::{Problem, ProblemKind};
use crate::rate::{Rates, Standing};

/// For each call that executes, so many that only read are allowed.
const READS_PER_CALL: u32 = 20;

/// Where a connection comes from; every request carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Lets those through who may execute, counts the call, and tells how many are left.
pub(super) async fn executing(State(context): State<Shared>, request: Request, next: Next) -> Response {
    let limit = |caller: &Caller| rate_of(&context, caller);
    pass(&context, &context.rates, limit, request, next).await
}

/// The same for calls that execute nothing.
pub(super) async fn reading(State(context): State<Shared>, request: Request, next: Next) -> Response {
    let limit = |caller: &Caller| rate_of(&context, caller).saturating_mul(READS_PER_CALL);
    pass(&context, &context.reads, limit, request, next).await
}

/// Takes further calls out of the caller's bucket, for a request that executes several programs.
pub(super) fn charge(context: &Shared, caller: &Caller, calls: u32) -> Result<(), Problem> {
    let limit = rate_of(context, caller);
    if limit == 0 || calls == 0 {
        return Ok(());
    }
    match context.rates.take(caller.client, limit, calls, Instant::now()) {
        Ok(_) => Ok(()),
        Err((standing, wait)) => Err(too_many(limit, standing, wait)),
    }
}

/// Calls an hour; 0: as many as it likes.
fn rate_of(context: &Shared, caller: &Caller) -> u32 {
    caller.rate.unwrap_or(context.settings.rate)
}

async fn pass(context: &Shared, rates: &Rates, limit: impl Fn(&Caller) -> u32, mut request: Request, next: Next) -> Response {
    if let Err(problem) = check_sender(context, &request) {
        return problem.into_response();
    }
    let caller = match identify(context, request.extensions().get::<Peer>().copied(), request.headers()).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let (client, limit) = (caller.client, limit(&caller));
    if limit == 0 {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    let (standing, mut response) = match rates.take(client, limit, 1, Instant::now()) {
        Ok(standing) => {
            request.extensions_mut().insert(caller);
            (standing, next.run(request).await)
        }
        Err((standing, wait)) => (standing, too_many(limit, standing, wait).into_response()),
    };
    standing.tell(response.headers_mut());
    response
}

/// Pages of other sites may read what they are let read anyway, but not do anything in their visitors' names; a WebSocket does
/// (RFC 6455 section 10.2), although it begins like reading.
fn check_sender(context: &Shared, request: &Request) -> Result<(), Problem> {
    let only_reads = request.method().is_safe() && !request.headers().contains_key(UPGRADE);
    if only_reads { Ok(()) } else { context.sites.check_origin(request.headers()) }
}

fn too_many(limit: u32, standing: Standing, wait: std::time::Duration) -> Problem {
    let seconds = (wait.as_secs_f64().ceil() as u64).max(1);
    let detail =
        format!("{limit} calls an hour are allowed, {} are left; there will be enough in {seconds} s", standing.remaining);
    Problem::new(ProblemKind::TooMany, detail).retry_after(seconds)
}

/// Whoever sends a key is its holder or nobody; whoever sends none is an address.
async fn identify(context: &Shared, peer: Option<Peer>, headers: &HeaderMap) -> Result<Caller, Problem> {
    let settings = &context.settings;
    let Some(Peer(peer)) = peer else {
        return Err(Problem::new(ProblemKind::Internal, "a connection without an address"));
    };
    let address = caller::address(peer, headers, &settings.trusted_proxies);
    let anonymous = Caller::anonymous(address, settings.limits);
    match keys::token(headers) {
        Some(token) => match context.keys.caller(token?).await {
            Ok(caller) => Ok(caller),
            Err(problem) => {
                // Or keys could be tried as fast as the database answers.
                if problem.kind == ProblemKind::Unauthenticated && settings.rate != 0 {
                    charge(context, &anonymous, 1)?;
                }
                Err(problem)
            }
        },
        None if settings.anonymous => Ok(anonymous),
        None => Err(Problem::new(ProblemKind::Unauthenticated, "this server executes for holders of a key only")
            .hint("send `Authorization: Bearer KEY`")),
    }
}

/// The limits that hold for a caller, for those who ask without being counted.
pub(super) async fn limits_of(context: &Shared, peer: Option<Peer>, headers: &HeaderMap) -> (Limits, u32) {
    match identify(context, peer, headers).await {
        Ok(caller) => (caller.limits, rate_of(context, &caller)),
        Err(_) => (context.settings.limits, context.settings.rate),
    }
}

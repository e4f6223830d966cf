//! What stands before every path that costs something: who calls, and whether it may.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::caller::{self, Caller};
use crate::problem::{Problem, ProblemKind};

/// Where a connection comes from; every request carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Lets those through who may execute, counts the call, and tells how many are left.
pub(super) async fn executing(State(context): State<Shared>, mut request: Request, next: Next) -> Response {
    let caller = match identify(&context, &request) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let rate = context.settings.rate;
    if rate == 0 {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    let (standing, mut response) = match context.rates.take(caller.client, rate, 1, Instant::now()) {
        Ok(standing) => {
            request.extensions_mut().insert(caller);
            (standing, next.run(request).await)
        }
        Err((standing, wait)) => {
            let seconds = wait.as_secs_f64().ceil() as u64;
            let detail = format!("{rate} calls an hour are allowed; the next one in {seconds} s");
            (standing, Problem::new(ProblemKind::TooMany, detail).retry_after(seconds.max(1)).into_response())
        }
    };
    standing.tell(response.headers_mut());
    response
}

fn identify(context: &Shared, request: &Request) -> Result<Caller, Problem> {
    let Some(Peer(peer)) = request.extensions().get::<Peer>() else {
        return Err(Problem::new(ProblemKind::Internal, "a connection without an address"));
    };
    if !context.settings.anonymous {
        return Err(Problem::new(ProblemKind::Unauthenticated, "this server executes for holders of a key only"));
    }
    Ok(Caller::anonymous(caller::address(*peer, request.headers(), &context.settings.trusted_proxies)))
}

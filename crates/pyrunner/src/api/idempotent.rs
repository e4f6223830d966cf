//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent again is carried out once.
//!
//! What is begun under a key goes on when its client goes away, for the client will come back for the answer.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use coracle_pyrunner_store::{Begun, Fingerprint, Turn};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Shared;
use super::answers::Plain;
use crate::caller::Caller;
use crate::history::unavailable;
use crate::problem::{Problem, ProblemKind};

/// How long a key and its answer are kept.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

const LONGEST_KEY: usize = 255;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A request with a key.
pub(super) struct Request<'a> {
    pub(super) caller: &'a Caller,
    pub(super) key: Bytes,
    pub(super) path: &'static str,
    pub(super) body: &'a [u8],
}

/// The key of a request, if it has one. Quotes around it, as structured fields have them (RFC 8941 section 3.3.3), are no
/// part of it.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<Bytes>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let bytes = value.as_bytes();
    let key = bytes.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(bytes);
    if key.is_empty() || key.len() > LONGEST_KEY {
        return Err(Problem::new(ProblemKind::BadRequest, format!("an Idempotency-Key has 1 to {LONGEST_KEY} bytes")));
    }
    Ok(Some(Bytes::copy_from_slice(key)))
}

/// Does the work if the request is new, and answers what was answered before if it is not.
pub(super) async fn once(
    context: &Shared,
    request: Request<'_>,
    work: impl Future<Output = Result<Plain, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    let settings = &context.settings;
    let fingerprint = Fingerprint::of(&[b"POST", request.path.as_bytes(), request.body]);
    // Longer than anything can take, unless this process dies.
    let lease = settings.limits.wall * 2 + settings.queue.patience + Duration::from_secs(30);
    let begun = context.store.begin_request(&request.caller.owner, &request.key, &fingerprint, lease, LIFETIME).await;
    let turn = match begun.map_err(|error| unavailable(&error))? {
        Begun::Fresh(turn) => turn,
        Begun::Replay(answer) => return replay(answer),
        Begun::InProgress => {
            let detail = "the request with this Idempotency-Key is still being carried out";
            return Err(Problem::new(ProblemKind::Conflict, detail).retry_after(1));
        }
        Begun::Mismatch => {
            let detail = "this Idempotency-Key was used for another request before";
            return Err(Problem::new(ProblemKind::KeyReused, detail).hint("use a new key for each request"));
        }
    };
    let task = context.tasks.spawn(carry_out(context.clone(), turn, work));
    match task.await {
        Ok(answer) => answer.map(Plain::into_response),
        Err(error) => Err(Problem::new(ProblemKind::Internal, format!("a task broke off: {error}"))),
    }
}

fn replay(answer: Bytes) -> Result<Response, Problem> {
    let answer = Plain::from_bytes(answer);
    let answer = answer.ok_or_else(|| Problem::new(ProblemKind::Internal, "the kept answer cannot be read"))?;
    let mut response = answer.into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Problems are not kept: nothing was carried out, and later it may be.
async fn carry_out(
    context: Shared,
    turn: Turn,
    work: impl Future<Output = Result<Plain, Problem>> + Send,
) -> Result<Plain, Problem> {
    let answer = work.await;
    let noted = match &answer {
        Ok(answer) => context.store.complete_request(&turn, answer.to_bytes()).await,
        Err(_) => context.store.abandon_request(&turn).await,
    };
    if let Err(error) = noted {
        tracing::warn!(%error, "the answer to a request with an Idempotency-Key is not kept");
    }
    answer
}

//! Webhooks: who sends one is proven by its signature, and by nothing else. What is sent is read while it is being verified, within
//! bounds of size, time and number, and looked at afterwards.
//!
//! A stranger learns nothing: a path that is not known is nowhere, and a body that is not signed is not read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use coracle_forge::{Event, Forge, Verification, delivery_id, read};
use coracle_model::text;
use coracle_store::ForgeRecord;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shared;
use crate::forges::Heard;

/// Bytes of a body: GitHub sends up to 25 MB, the others less.
const LARGEST: usize = 25 << 20;

/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(30);

/// Kibibytes of bodies that are read at the same time, of all senders together.
const AT_ONCE: u32 = 48 << 10;

/// Kibibytes that each counts for at least, which limits how many they are.
const AT_LEAST: u32 = 512;

/// How long somebody waits for others' bodies.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of what a path ends with.
const LONGEST_HOOK: usize = 200;

/// The memory that bodies may take.
static BODIES: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// An answer that is no success: short, and the same for whatever is wrong.
type Refused = (StatusCode, &'static str);

const UNKNOWN: Refused = (StatusCode::NOT_FOUND, "there is no such webhook\n");
const UNVERIFIED: Refused = (StatusCode::UNAUTHORIZED, "the signature is missing or wrong\n");
const TOO_LARGE: Refused = (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 25 MiB\n");
const BROKEN: Refused = (StatusCode::BAD_REQUEST, "the body broke off\n");
const LATE: Refused = (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n");
const BUSY: Refused = (StatusCode::SERVICE_UNAVAILABLE, "too much is being received at the moment\n");
const FAULT: Refused = (StatusCode::INTERNAL_SERVER_ERROR, "the server is at fault\n");

/// The route. Whoever serves it asks for no token.
pub(crate) fn of_forges(context: Shared) -> Router {
    Router::new().route(&format!("{}{{hook}}", crate::forges::HOOKS), post(take)).with_state(context)
}

async fn take(State(context): State<Shared>, Path(hook): Path<String>, request: Request) -> Response {
    match taken(&context, &hook, request).await {
        Ok(answer) => answer,
        Err(refused @ (StatusCode::SERVICE_UNAVAILABLE, _)) => ([(RETRY_AFTER, "30")], refused).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn taken(context: &Shared, hook: &str, request: Request) -> Result<Response, Refused> {
    let fault = |error: coracle_store::StoreError| {
        tracing::error!(%error, "a webhook cannot be taken");
        FAULT
    };
    let known = if hook.len() > LONGEST_HOOK { None } else { context.store.forge_by_hook(hook).await.map_err(fault)? };
    let record = known.ok_or(UNKNOWN)?;
    let forge: Forge = record.forge.parse().map_err(|_| FAULT)?;
    let (head, body) = request.into_parts();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let unverified = |_| {
        tracing::info!(app = %record.app, %forge, "a webhook was refused: its signature is missing or wrong");
        UNVERIFIED
    };
    let verification = Verification::begin(forge, &record.secret, &head.headers, now).map_err(unverified)?;
    let (_place, expected) = place(&head.headers).await?;
    let reading = tokio::time::timeout(DEADLINE, receive(body, verification, expected));
    let (body, verification, digest) = reading.await.map_err(|_| LATE)??;
    verification.finish().map_err(unverified)?;
    // From here on it is the forge that asks, and may be told what is wrong.
    let events = match understood(forge, &head.headers, &body) {
        Ok(events) => events,
        Err(why) => return Ok(told(StatusCode::BAD_REQUEST, &why)),
    };
    drop(body);
    let known_by = known_by(forge, &head.headers, &digest);
    if events != [Event::Ping] && !context.store.take_delivery(&record.app, &known_by).await.map_err(fault)? {
        return Ok(told(StatusCode::CONFLICT, "this delivery was taken before: nothing is done about it"));
    }
    match hear(context, &record, &events).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            // It may come again.
            if let Err(error) = context.store.give_back_delivery(&record.app, &known_by).await {
                tracing::warn!(%error, "a delivery that could not be taken is refused when it comes again");
            }
            Err(fault(error))
        }
    }
}

/// A place among those whose bodies are read; and how many bytes are announced.
async fn place(headers: &HeaderMap) -> Result<(SemaphorePermit<'static>, usize), Refused> {
    let announced = match headers.get(CONTENT_LENGTH) {
        None => None,
        Some(length) => Some(length.to_str().ok().and_then(|length| length.parse::<usize>().ok()).ok_or(BROKEN)?),
    };
    let expected = announced.unwrap_or(LARGEST);
    if expected > LARGEST {
        return Err(TOO_LARGE);
    }
    let weight = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX).max(AT_LEAST);
    let place = tokio::time::timeout(PATIENCE, BODIES.acquire_many(weight)).await;
    Ok((place.map_err(|_| BUSY)?.map_err(|_| FAULT)?, announced.unwrap_or_default()))
}

type Received = (Vec<u8>, Verification, [u8; 32]);

async fn receive(body: Body, mut verification: Verification, expected: usize) -> Result<Received, Refused> {
    let (mut pieces, mut kept, mut digest) = (body.into_data_stream(), Vec::with_capacity(expected), blake3::Hasher::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| BROKEN)?;
        if kept.len() + piece.len() > LARGEST {
            return Err(TOO_LARGE);
        }
        verification.update(&piece);
        digest.update(&piece);
        kept.extend_from_slice(&piece);
    }
    Ok((kept, verification, digest.finalize().into()))
}

fn understood(forge: Forge, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, String> {
    if let Some(other) = Forge::of_headers(headers).filter(|other| *other != forge) {
        return Err(format!("this comes from {}, and the app is connected with {}", other.title(), forge.title()));
    }
    let json = headers.get(CONTENT_TYPE).is_some_and(|given| given.as_bytes().starts_with(b"application/json"));
    if !json {
        return Err("the body has to be application/json: choose it in the webhook's settings".to_owned());
    }
    read(forge, headers, body).map_err(|error| error.to_string())
}

/// What a delivery is known by when it comes again: its id, and its body where no two pushes have the same. (GitHub's, Forgejo's
/// and Gitea's bodies tell when something was pushed. Those of GitLab and Bitbucket do not: one branch may well move twice between
/// the same two commits.)
fn known_by(forge: Forge, headers: &HeaderMap, digest: &[u8; 32]) -> Vec<String> {
    let hex = || digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let id = delivery_id(forge, headers).map(|id| format!("id:{id}"));
    let body = (matches!(forge, Forge::GitHub | Forge::Forgejo) || id.is_none()).then(|| format!("body:{}", hex()));
    id.into_iter().chain(body).collect()
}

async fn hear(context: &Shared, record: &ForgeRecord, events: &[Event]) -> Result<Response, coracle_store::StoreError> {
    let (mut deploys, mut beside, mut reasons) = (false, Vec::new(), Vec::new());
    for event in events {
        match context.forges.hear(record, event).await? {
            Heard::Deploys => deploys = true,
            Heard::Beside(what) => beside.push(what),
            Heard::Nothing(reason) => reasons.push(reason),
        }
    }
    let app = &record.app;
    tracing::info!(%app, deploys, events = events.len(), "a webhook was taken");
    Ok(match deploys {
        false if !beside.is_empty() => told(StatusCode::ACCEPTED, &beside.join("; ")),
        true => told(StatusCode::ACCEPTED, &format!("{} is fetched and deployed: coracle deployments -a {app}", record.branch)),
        false if reasons.is_empty() => told(StatusCode::OK, "nothing is told by it"),
        false => told(StatusCode::OK, &reasons.join("; ")),
    })
}

/// One line of plain text, as forges show it to people.
fn told(status: StatusCode, line: &str) -> Response {
    let line = text::one_line(line, 1000);
    (status, [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], format!("{line}\n")).into_response()
}

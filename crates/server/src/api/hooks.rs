//! Webhooks: who sends one is proven by its signature, and by nothing else. What is sent is read while it is being verified, within
//! bounds of size, pace and number, and looked at afterwards.
//!
//! A stranger learns nothing: a path that is not known is nowhere, and a body that is not signed is not read.

mod room;

use std::sync::LazyLock;
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
use tokio::time::Instant;

use self::room::{Full, Room, Rooms};
use super::Shared;
use crate::forges::Heard;

/// Bytes of a body: GitHub sends up to 25 MB, the others less.
const LARGEST: usize = 25 << 20;

/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take until something arrives, and then each [`STEP`] after it.
const PAUSE: Duration = Duration::from_secs(5);

/// Bytes that a sender has to bring within each [`PAUSE`].
const STEP: usize = 64 << 10;

/// Bytes of what a path ends with.
const LONGEST_HOOK: usize = 200;

/// The memory that bodies may take.
static ROOMS: LazyLock<Rooms> = LazyLock::new(Rooms::default);

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
    check_announced(&head.headers)?;
    let mut room = ROOMS.of(&record.app);
    let reading = tokio::time::timeout(DEADLINE, receive(body, verification, &mut room));
    let (body, verification, digest) = reading.await.map_err(|_| LATE)??;
    verification.finish().map_err(unverified)?;
    // From here on it is the forge that asks, and may be told what is wrong.
    let events = match understood(forge, &head.headers, &body) {
        Ok(events) => events,
        Err(why) => return Ok(told(StatusCode::BAD_REQUEST, &why)),
    };
    drop((body, room));
    let known_by = known_by(forge, &head.headers, &digest);
    if events != [Event::Ping] && !context.forges.take(&record, &events, &known_by).await.map_err(fault)? {
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

/// What is announced as too large is not read at all. Nothing else is believed of what is announced.
fn check_announced(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(()) };
    let announced = length.to_str().ok().and_then(|length| length.parse::<usize>().ok()).ok_or(BROKEN)?;
    if announced > LARGEST { Err(TOO_LARGE) } else { Ok(()) }
}

type Received = (Vec<u8>, Verification, [u8; 32]);

async fn receive(body: Body, mut verification: Verification, room: &mut Room) -> Result<Received, Refused> {
    let (mut pieces, mut kept, mut digest) = (body.into_data_stream(), Vec::new(), blake3::Hasher::new());
    let mut since = Instant::now();
    while let Some(piece) = tokio::time::timeout_at(since + patience(kept.len()), pieces.next()).await.map_err(|_| LATE)? {
        let piece = piece.map_err(|_| BROKEN)?;
        if kept.len() + piece.len() > LARGEST {
            return Err(TOO_LARGE);
        }
        verification.update(&piece);
        digest.update(&piece);
        let came = Instant::now();
        room.hold(kept.len() + piece.len()).await.map_err(|Full| BUSY)?;
        // It is not the sender's fault that there was no room.
        since += came.elapsed();
        kept.reserve_exact(room.size() - kept.len());
        kept.extend_from_slice(&piece);
    }
    Ok((kept, verification, digest.finalize().into()))
}

/// How long after the beginning more has to be there, if this many bytes are.
fn patience(received: usize) -> Duration {
    let steps = u32::try_from(received / STEP).unwrap_or(u32::MAX);
    PAUSE.saturating_mul(steps.saturating_add(1)).min(DEADLINE)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Bytes;
    use coracle_model::Secret;
    use futures::stream;

    use super::*;

    /// Receives from a sender that stops after its first bytes, or ends there.
    async fn receives(rooms: &Rooms, app: &str, begins: &'static [u8], stops: bool) -> Result<Received, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert("x-hub-signature-256", format!("sha256={}", "0".repeat(64)).parse().unwrap());
        let verification = Verification::begin(Forge::GitHub, &Secret::new("secret"), &headers, 0).unwrap();
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(begins))]);
        let body = match stops {
            true => Body::from_stream(first.chain(stream::pending())),
            false => Body::from_stream(first),
        };
        let mut room = rooms.of(&app.parse().unwrap());
        receive(body, verification, &mut room).await
    }

    #[tokio::test]
    async fn senders_that_stop_hold_nobody_up_and_are_not_waited_for() {
        let (rooms, begun) = (Rooms::default(), Instant::now());
        let stopped = futures::future::join_all((0..40).map(|_| receives(&rooms, "greedy", b"{", true)));
        let served = async {
            for app in ["greedy", "other"] {
                assert_eq!(receives(&rooms, app, b"{}", false).await.unwrap().0, b"{}");
            }
            begun.elapsed()
        };
        let (stopped, served) = tokio::join!(stopped, served);
        assert!(served < PAUSE, "{served:?}");
        assert!(stopped.into_iter().all(|ended| matches!(ended, Err(LATE))));
        assert!(begun.elapsed() < 2 * PAUSE);
    }

    #[test]
    fn whoever_brings_little_has_little_time() {
        assert_eq!((patience(0), patience(STEP - 1), patience(STEP)), (PAUSE, PAUSE, 2 * PAUSE));
        assert_eq!(patience(LARGEST), DEADLINE);
    }
}

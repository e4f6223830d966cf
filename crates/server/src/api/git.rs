//! Git's smart HTTP (gitprotocol-http(5)) under `/git/APP.git`: heads and headers here, everything else in the door.

use std::io::Error;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coracle_api::{Problem, ProblemKind};
use coracle_git_door::{Answer, DoorError, Service};
use coracle_model::AppName;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use super::Shared;
use crate::access::Caller;
use crate::problems;

/// What every path of a repository begins with.
const PREFIX: &str = "/git/";

/// The routes.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/git/{repository}/info/refs", get(advertise))
        .route("/git/{repository}/git-upload-pack", post(upload_pack))
        .route("/git/{repository}/git-receive-pack", post(receive_pack))
}

/// Whether a request is git's.
pub(crate) fn is_git(uri: &Uri) -> bool {
    uri.path().starts_with(PREFIX)
}

/// What git is told that shows no token: it asks its helpers or its person for one, and comes again.
pub(crate) fn unauthorized() -> Response {
    let problem =
        Problem::new(ProblemKind::Unauthorized, "a token is wanted as the password: one of a person's, or the server's")
            .hint("`coracle people token create` makes one; `coracle git remote` sets git up");
    let mut response = told(&problem);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Coracle\", charset=\"UTF-8\""));
    response
}

/// A problem as git shows it: lines of plain text.
pub(crate) fn told(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_server_error() {
        tracing::warn!(detail = problem.detail, "git could not be answered");
    }
    let hint = problem.hint.as_ref().map(|hint| format!("next: {hint}\n")).unwrap_or_default();
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n{hint}", problem.detail)).into_response()
}

/// A problem that git is told.
struct Refusal(Problem);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        told(&self.0)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<DoorError> for Refusal {
    fn from(error: DoorError) -> Self {
        Self(problems::door(&error))
    }
}

/// The app that a repository's name in the path belongs to.
pub(crate) fn app(repository: &str) -> Result<AppName, Problem> {
    let name = repository.strip_suffix(".git").unwrap_or(repository);
    name.parse().map_err(|error| problems::name(&error))
}

/// Whether a request of git's belongs to a push; one that does not plainly belong to a fetch does.
pub(crate) fn is_push(uri: &Uri) -> bool {
    let service = Service::UploadPack.name();
    !uri.path().ends_with(service) && uri.query().and_then(|query| query.strip_prefix("service=")) != Some(service)
}

#[derive(Deserialize)]
struct Asked {
    service: Option<String>,
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get("git-protocol").and_then(|value| value.to_str().ok())
}

async fn advertise(
    State(context): State<Shared>,
    Path(repository): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let app = app(&repository)?;
    let old = || Problem::new(ProblemKind::BadRequest, "only git's smart HTTP is spoken here").hint("use git 1.6.6 or later");
    let service = asked.service.as_deref().and_then(Service::named).ok_or_else(|| Refusal(old()))?;
    let refs = context.door.advertise(&app, service, protocol(&headers)).await?;
    Ok(answer(&format!("application/x-{}-advertisement", service.name()), Body::from(refs)))
}

async fn upload_pack(
    State(context): State<Shared>,
    Path(repository): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (app, (head, body)) = (app(&repository)?, request.into_parts());
    let compressed = check(&head.headers, Service::UploadPack)?;
    let asked = body.into_data_stream().map(|piece| piece.map_err(Error::other));
    let pack = context.door.upload_pack(&app, protocol(&head.headers), compressed, asked)?;
    Ok(streamed(Service::UploadPack, pack))
}

async fn receive_pack(
    State(context): State<Shared>,
    caller: Caller,
    Path(repository): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (app, (head, body)) = (app(&repository)?, request.into_parts());
    let compressed = check(&head.headers, Service::ReceivePack)?;
    let asked = body.into_data_stream().map(|piece| piece.map_err(Error::other));
    let report = context.door.receive_pack(&app, caller.bearer(), compressed, asked).await?;
    Ok(streamed(Service::ReceivePack, report))
}

/// Checks that it is git that asks, and tells whether it compresses what it asks. A browser cannot send this media type to
/// another site without asking first, which nobody answers.
fn check(headers: &HeaderMap, service: Service) -> Result<bool, Refusal> {
    let wrong = |detail: String| Err(Refusal(Problem::new(ProblemKind::BadRequest, detail)));
    let wanted = format!("application/x-{}-request", service.name());
    if headers.get(CONTENT_TYPE).is_none_or(|given| given.as_bytes() != wanted.as_bytes()) {
        return wrong(format!("the body must be {wanted}"));
    }
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => wrong("the body may be compressed with gzip alone".to_owned()),
    }
}

fn streamed(service: Service, pieces: Answer) -> Response {
    let pieces = futures::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, Error>(piece), pieces))
    });
    answer(&format!("application/x-{}-result", service.name()), Body::from_stream(pieces))
}

fn answer(media_type: &str, body: Body) -> Response {
    ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-cache, max-age=0, must-revalidate")], body).into_response()
}

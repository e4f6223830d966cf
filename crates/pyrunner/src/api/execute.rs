//! `POST /execute`: one program, answered when it has ended, or told piece by piece.

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::stream::Format;
use super::{Shared, answers, idempotent, query, stream};
use crate::answer::ExecutionAnswer;
use crate::body;
use crate::caller::Caller;
use crate::execution::Ongoing;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(execute))
}

/// Executes a program and answers what came of it.
///
/// With `?stream=1`, or an `Accept` of `application/x-ndjson` or `text/event-stream`, what the program writes is told as it
/// is written, as lines of JSON or as events. Without an `Idempotency-Key` the program is ended when the client goes away.
#[utoipa::path(post, path = "/execute", tag = "execution", operation_id = "execute", request_body = ProgramBody,
    params(
        ("stream" = Option<bool>, Query, description = "`1` tells everything as it happens"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same request gets the same answer, and \
                                                                    the program is executed once"),
    ),
    responses(
        (status = 200, description = "It was executed, whatever came of it", content(
            (ExecutionAnswer = "application/json"),
            (stream::StreamEvent = "application/x-ndjson"),
            (stream::StreamEvent = "text/event-stream"),
        )),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn execute(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let settings = &context.settings;
    let format = wanted_format(query.as_deref(), &headers)?;
    let bytes = body::json(&headers, body, settings).await?;
    let program: ProgramBody = read_json(&bytes)?;
    let execution = program.into_execution(&caller.limits, &settings.default_image)?;
    let key = idempotent::key(&headers)?;
    match (format, key) {
        (Some(_), Some(_)) => Err(Problem::new(
            ProblemKind::BadRequest,
            "an Idempotency-Key is for answers that can be repeated, and a stream cannot",
        )),
        (Some(format), None) => {
            let ongoing = Ongoing::start(&context, &caller, execution, "execute").await?;
            Ok(stream::response(ongoing, format))
        }
        (None, None) => {
            let answer = Ongoing::start(&context, &caller, execution, "execute").await?.finish().await?;
            Ok(answers::json(StatusCode::OK, &answer))
        }
        (None, Some(key)) => {
            let request = idempotent::Request { caller: &caller, key, path: "/execute", body: &bytes };
            let (own, caller) = (context.clone(), caller.clone());
            let work = async move {
                let answer = Ongoing::start(&own, &caller, execution, "execute").await?.finish().await?;
                Ok(answers::Plain::json(StatusCode::OK, &answer))
            };
            idempotent::once(&context, request, work).await
        }
    }
}

/// How a stream is wanted, if it is.
fn wanted_format(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Format>, Problem> {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let events = accepted.contains("text/event-stream");
    let lines = accepted.contains("application/x-ndjson");
    let mut asked = events || lines;
    for (_, value) in query::pairs(query, &["stream"])? {
        match value.as_str() {
            "1" | "true" => asked = true,
            "0" | "false" => asked = false,
            _ => return Err(Problem::new(ProblemKind::BadRequest, "`stream` is 1 or 0")),
        }
    }
    Ok(asked.then_some(if events { Format::Events } else { Format::Lines }))
}

//! `POST /execute`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers};
use crate::answer::ExecutionAnswer;
use crate::body;
use crate::caller::Caller;
use crate::execution::Ongoing;
use crate::problem::Problem;
use crate::program::{ProgramBody, read_json};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(execute))
}

/// Executes a program and answers what came of it.
#[utoipa::path(post, path = "/execute", tag = "execution", operation_id = "execute", request_body = ProgramBody, responses(
    (status = 200, body = ExecutionAnswer, description = "It was executed, whatever came of it"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn execute(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let settings = &context.settings;
    let bytes = body::json(&headers, body, settings).await?;
    let program: ProgramBody = read_json(&bytes)?;
    let execution = program.into_execution(&settings.limits, &settings.default_image)?;
    let answer = Ongoing::start(&context, &caller, execution).await?.finish().await?;
    Ok(answers::json(StatusCode::OK, &answer))
}

//! `POST /batch`: several programs at once, an answer for each.

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use futures::future::join_all;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers, gate, idempotent, query};
use crate::answer::ExecutionAnswer;
use crate::body;
use crate::caller::Caller;
use crate::execution::Ongoing;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};

/// How many programs a batch may have.
pub(super) const MOST: usize = 20;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(batch))
}

/// Several programs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBody {
    /// 1 to 20 programs, each as `POST /execute` takes it.
    #[schema(value_type = Vec<ProgramBody>)]
    executions: Vec<serde_json::Value>,
}

/// The answers, in the order of the programs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    results: Vec<BatchItem>,
}

/// What came of one program.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchItem {
    /// It was executed.
    Executed(Box<ExecutionAnswer>),
    /// It was not.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// Executes several programs and answers when all of them have ended. Each counts as a call.
#[utoipa::path(post, path = "/batch", tag = "execution", operation_id = "execute_batch", request_body = BatchBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "As of `POST /execute`")),
    responses(
        (status = 200, body = BatchAnswer, description = "An answer for each"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn batch(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::pairs(query.as_deref(), &[])?;
    let bytes = body::json(&headers, body, &context.settings).await?;
    let BatchBody { executions } = read_json(&bytes)?;
    if executions.is_empty() || executions.len() > MOST {
        let detail = format!("executions has {} programs; 1 to {MOST} are taken", executions.len());
        return Err(Problem::new(ProblemKind::BadRequest, detail));
    }
    let key = idempotent::key(&headers)?;
    let (own, caller) = (context.clone(), caller);
    let sender = caller.clone();
    let work = async move {
        // One has been counted at the gate.
        gate::charge(&own, &caller, u32::try_from(executions.len() - 1).unwrap_or(u32::MAX))?;
        let results = join_all(executions.into_iter().map(|program| item(&own, &caller, program))).await;
        Ok(answers::Plain::json(StatusCode::OK, &BatchAnswer { results }))
    };
    match key {
        None => work.await.map(axum::response::IntoResponse::into_response),
        Some(key) => {
            let request = idempotent::Request { caller: &sender, key, path: "/batch", body: &bytes };
            idempotent::once(&context, request, work).await
        }
    }
}

async fn item(context: &Shared, caller: &Caller, program: serde_json::Value) -> BatchItem {
    match execute(context, caller, program).await {
        Ok(answer) => BatchItem::Executed(Box::new(answer)),
        Err(problem) => BatchItem::Refused { problem },
    }
}

async fn execute(context: &Shared, caller: &Caller, program: serde_json::Value) -> Result<ExecutionAnswer, Problem> {
    let bytes = serde_json::to_vec(&program).unwrap_or_else(|_| unreachable!("it was JSON before"));
    let program: ProgramBody = read_json(&bytes)?;
    let execution = program.into_execution(&caller.limits, &context.settings.default_image)?;
    Ongoing::start(context, caller, execution, "batch").await?.finish().await
}

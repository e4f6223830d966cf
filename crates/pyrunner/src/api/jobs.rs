//! `/jobs`: programs that are executed when there is room.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use coracle_pyrunner_store::{Cancellation, Id, Job, JobState, NewJob};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers, idempotent, query};
use crate::answer::ExecutionAnswer;
use crate::body;
use crate::callback::Target;
use crate::caller::Caller;
use crate::history::unavailable;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};

/// Jobs of one caller that have not ended.
const MOST_OPEN: u64 = 1000;

pub(super) fn submitting() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(submit))
}

pub(super) fn reading() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(show, cancel))
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobAnswer {
    /// Its name.
    id: String,
    /// `queued`, `running`, `done` (it was executed, whatever came of it), `cancelled` or `failed` (it was not executed).
    state: &'static str,
    /// When it was accepted (RFC 3339).
    created_at: String,
    /// When it was last begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    /// Whom its end is told, and how far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<CallbackAnswer>,
    /// What came of it, if it is `done`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ExecutionAnswer>)]
    result: Option<serde_json::Value>,
    /// Why it could not be executed, if it `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Problem>)]
    problem: Option<serde_json::Value>,
}

/// A call back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallbackAnswer {
    /// Where.
    url: String,
    /// `waiting` (for the job's end), `due`, `delivered` or `failed`.
    state: &'static str,
    /// How often it has been tried.
    attempts: u32,
}

impl From<&Job> for JobAnswer {
    fn from(job: &Job) -> Self {
        let outcome = job.result.as_ref().and_then(|result| serde_json::from_slice(result).ok());
        let (result, problem) = match job.state {
            JobState::Done => (outcome, None),
            JobState::Failed => (None, outcome),
            _ => (None, None),
        };
        Self {
            id: job.id.to_string(),
            state: job.state.as_str(),
            created_at: job.created_at.to_string(),
            started_at: job.started_at.map(|moment| moment.to_string()),
            finished_at: job.finished_at.map(|moment| moment.to_string()),
            callback: job.callback.as_ref().map(|callback| CallbackAnswer {
                url: callback.url.clone(),
                state: callback.state.as_str(),
                attempts: callback.attempts,
            }),
            result,
            problem,
        }
    }
}

/// A job as `GET /jobs/{id}` tells it, for whoever is called back.
pub(crate) fn job_json(job: &Job) -> Bytes {
    serde_json::to_vec(&JobAnswer::from(job)).unwrap_or_else(|_| unreachable!("answers are plain data")).into()
}

/// Accepts a program that is executed when there is room.
#[utoipa::path(post, path = "/jobs", tag = "jobs", operation_id = "submit_job", request_body = ProgramBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "As of `POST /execute`")),
    responses(
        (status = 202, body = JobAnswer, description = "It is accepted; `Location` tells where to look for it"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn submit(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::pairs(query.as_deref(), &[])?;
    let bytes = body::json(&headers, body, &context.settings).await?;
    let mut program: ProgramBody = read_json(&bytes)?;
    let callback_url = program.callback_url.take();
    // What cannot be executed is refused now; the caller's own limits are written into it.
    let execution = program.clone().into_execution(&caller.limits, &context.settings.default_image)?;
    program.limits = Some(execution.limits.into());
    if let Some(url) = &callback_url {
        check_callback(&context, url).await?;
    }
    let key = idempotent::key(&headers)?;
    let own = context.clone();
    let sender = caller.clone();
    let work = async move { accept(&own, &caller, &program, callback_url).await };
    match key {
        None => work.await.map(IntoResponse::into_response),
        Some(key) => {
            let request = idempotent::Request { caller: &sender, key, path: "/jobs", body: &bytes };
            idempotent::once(&context, request, work).await
        }
    }
}

async fn check_callback(context: &Shared, url: &str) -> Result<(), Problem> {
    let refused = |error: crate::callback::CallbackError| {
        Problem::new(ProblemKind::CallbackRefused, error.to_string()).hint("give a public http:// or https:// address")
    };
    let target = Target::read(url).map_err(refused)?;
    target.resolve(&context.settings.callback_networks).await.map(drop).map_err(refused)
}

async fn accept(
    context: &Shared,
    caller: &Caller,
    program: &ProgramBody,
    callback_url: Option<String>,
) -> Result<answers::Plain, Problem> {
    let scope = coracle_pyrunner_store::Scope::Owner(caller.owner.clone());
    let open = context.store.open_jobs(&scope).await.map_err(|error| unavailable(&error))?;
    if open >= MOST_OPEN {
        let detail = format!("{open} of your jobs have not ended; {MOST_OPEN} is the most");
        return Err(Problem::new(ProblemKind::TooMany, detail).retry_after(10));
    }
    let id = Id::new(Timestamp::now()).map_err(|error| unavailable(&error))?;
    let request = serde_json::to_vec(program).unwrap_or_else(|_| unreachable!("a program is plain data")).into();
    let job = NewJob { id, owner: caller.owner.clone(), request, callback_url };
    context.store.insert_job(job).await.map_err(|error| unavailable(&error))?;
    context.jobs.announce();
    let job = find(context, caller, id).await?;
    Ok(answers::Plain::json(StatusCode::ACCEPTED, &JobAnswer::from(&job)).at(format!("/jobs/{id}")))
}

async fn find(context: &Shared, caller: &Caller, id: Id) -> Result<Job, Problem> {
    let job = context.store.job(id, &caller.scope()).await.map_err(|error| unavailable(&error))?;
    job.ok_or_else(|| no_such_job(id))
}

fn no_such_job(id: Id) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no job {id} of yours"))
}

/// How a job stands, and what came of it.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", operation_id = "show_job", params(("id" = String, Path)), responses(
    (status = 200, body = JobAnswer),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = find(&context, &caller, super::id(&id)?).await?;
    Ok(answers::json(StatusCode::OK, &JobAnswer::from(&job)))
}

/// Cancels a job. One that runs ends soon; one that has ended stays as it is.
#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", operation_id = "cancel_job", params(("id" = String, Path)), responses(
    (status = 200, body = JobAnswer, description = "It is cancelled, or had ended"),
    (status = 202, body = JobAnswer, description = "It is ending"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn cancel(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = super::id(&id)?;
    let cancelled = context.store.cancel_job(id, &caller.scope()).await.map_err(|error| unavailable(&error))?;
    let status = match cancelled {
        None => return Err(no_such_job(id)),
        Some(Cancellation::Requested) => {
            context.jobs.cancel(id);
            StatusCode::ACCEPTED
        }
        Some(Cancellation::Cancelled | Cancellation::Ended(_)) => StatusCode::OK,
    };
    context.jobs.ended.notify_one();
    let job = find(&context, &caller, id).await?;
    Ok(answers::json(status, &JobAnswer::from(&job)))
}

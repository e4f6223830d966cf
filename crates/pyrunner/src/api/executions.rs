//! `/executions`: what was executed, newest first, one's own only (an `admin` key sees everybody's).

use axum::Extension;
use axum::extract::{Path, Query, State, rejection::QueryRejection};
use axum::response::Response;
use coracle_pyrunner_store::{Cursor, PAGE_MAX, Record};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers};
use crate::answer::{Truncation, Usage, signal_name};
use crate::caller::Caller;
use crate::history::unavailable;
use crate::problem::{Problem, ProblemKind};

/// Records of a page, and bytes of each text in it, when nothing else is asked for.
const USUAL_PAGE: u32 = 20;
const USUAL_EXCERPT: u32 = 1024;
const LONGEST_EXCERPT: u32 = 65536;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// What `next` of the page before was.
    cursor: Option<String>,
    /// Executions on the page, 1 to 1000; otherwise 20.
    limit: Option<u32>,
    /// Bytes kept of each text, at most 65536; otherwise 1024.
    excerpt: Option<u32>,
}

/// A part of history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    /// Newest first; long texts are cut.
    executions: Vec<PastExecution>,
    /// The `cursor` of the next page; `null` at the end.
    next: Option<String>,
}

/// An execution of the past. Bytes that are no UTF-8 are U+FFFD in its texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PastExecution {
    id: String,
    /// `key:` and the key's id, or `address:` and the client's.
    owner: String,
    /// When it was accepted (RFC 3339).
    started_at: String,
    /// Which way it came: `execute`, `batch`, `job`, `ws`, `piston`, `snekbox`, `page`.
    origin: String,
    image: String,
    /// `zygote` or `exec`.
    mode: String,
    code: String,
    stdin: String,
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    signal: Option<String>,
    reason: String,
    /// The limits that it met: `wall`, `cpu`, `memory`, `output`, `files`.
    limits_hit: Vec<String>,
    truncated: Truncation,
    usage: Usage,
    /// Arguments, and the names of variables and files.
    details: Option<serde_json::Value>,
}

impl From<Record> for PastExecution {
    fn from(record: Record) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let milliseconds = |micros: u64| micros as f64 / 1000.0;
        Self {
            id: record.id.to_string(),
            owner: record.owner,
            started_at: record.started_at.to_string(),
            origin: record.origin,
            image: record.image,
            mode: record.mode,
            code: text(&record.code),
            stdin: record.stdin.as_deref().map(text).unwrap_or_default(),
            stdout: text(&record.stdout),
            stderr: text(&record.stderr),
            exit_code: record.exit_code,
            signal: record.signal.map(signal_name),
            reason: record.reason,
            truncated: Truncation {
                stdout: record.stdout_truncated,
                stderr: record.stderr_truncated,
                files: record.limits_hit.iter().any(|limit| limit == "files"),
            },
            limits_hit: record.limits_hit,
            usage: Usage {
                wall_ms: milliseconds(record.usage.wall_us),
                cpu_ms: milliseconds(record.usage.cpu_us),
                memory_peak: record.usage.memory_peak,
                queue_ms: milliseconds(record.usage.queue_us),
            },
            details: record.details.as_deref().and_then(|details| serde_json::from_slice(details).ok()),
        }
    }
}

/// The caller's executions, newest first.
#[utoipa::path(get, path = "/executions", tag = "history", operation_id = "list_executions", params(Paging), responses(
    (status = 200, body = History),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(paging) = paging.map_err(|error| Problem::new(ProblemKind::BadRequest, error.body_text()))?;
    let cursor = paging.cursor.map(|cursor| cursor.parse::<Cursor>()).transpose();
    let cursor = cursor.map_err(|error| Problem::new(ProblemKind::BadRequest, format!("cursor: {error}")))?;
    let limit = paging.limit.unwrap_or(USUAL_PAGE);
    if limit == 0 || limit > PAGE_MAX {
        return Err(Problem::new(ProblemKind::BadRequest, format!("limit is {limit}; 1 to {PAGE_MAX} are given")));
    }
    let excerpt = paging.excerpt.unwrap_or(USUAL_EXCERPT).min(LONGEST_EXCERPT);
    let page = context.store.page(&caller.scope(), cursor, limit, excerpt).await.map_err(|error| unavailable(&error))?;
    let executions = page.records.into_iter().map(|excerpt| excerpt.record.into()).collect();
    Ok(answers::json(StatusCode::OK, &History { executions, next: page.next.map(|next| next.to_string()) }))
}

/// One execution of the caller's, whole.
#[utoipa::path(get, path = "/executions/{id}", tag = "history", operation_id = "show_execution", params(("id" = String, Path)),
    responses(
        (status = 200, body = PastExecution),
        (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn show(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = super::id(&id)?;
    let record = context.store.record(id, &caller.scope()).await.map_err(|error| unavailable(&error))?;
    let missing = || {
        let detail = format!("there is no execution {id} of yours");
        Problem::new(ProblemKind::NotFound, detail).hint("a new one is written down a moment after its end")
    };
    Ok(answers::json(StatusCode::OK, &PastExecution::from(record.ok_or_else(missing)?)))
}

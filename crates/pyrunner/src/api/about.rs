//! What the server offers and how it is: never limited, open to everybody.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_sandbox::{ClientError, Health, ImageInfo, Limits};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Peer, Shared, answers, gate};
use crate::problem::{Problem, ProblemKind};
use crate::program::milliseconds;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(runtimes))
        .routes(routes!(limits))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// That the server answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Healthy {
    /// `healthy`.
    status: &'static str,
    version: &'static str,
}

/// Whether the server answers; never limited. Whether it can execute is told by `/ready`.
#[utoipa::path(get, path = "/health", tag = "server", operation_id = "health", responses((status = 200, body = Healthy)))]
async fn health() -> Response {
    answers::json(StatusCode::OK, &Healthy { status: "healthy", version: env!("CARGO_PKG_VERSION") })
}

/// Whether programs can be executed now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether programs can be executed now.
    ready: bool,
    /// Why not; empty if they can.
    troubles: Vec<String>,
    /// How programs are isolated: `zygote`, `exec`, `docker` or `nothing`.
    isolation: Option<String>,
    /// Why in this way.
    why: Option<String>,
    /// What is weaker than it could be.
    weaker: Vec<String>,
    /// `cgroup v1` or `cgroup v2`.
    cgroups: Option<String>,
    /// Executions running and waiting now.
    running: usize,
    waiting: usize,
    history: HistoryState,
}

/// How the history is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryState {
    /// Why records cannot be written, if they cannot.
    trouble: Option<String>,
    /// Records that wait to be written.
    queued: usize,
    /// Records written since the start.
    written: u64,
    /// Records dropped since the start, because the database could not keep up.
    dropped: u64,
}

/// Whether programs can be executed now, and how they are isolated.
#[utoipa::path(get, path = "/ready", tag = "server", operation_id = "ready", responses(
    (status = 200, body = Readiness),
    (status = 503, body = Readiness, description = "Not now"),
))]
async fn ready(State(context): State<Shared>) -> Response {
    let asked = ask(&context).await;
    let mut troubles = Vec::new();
    if context.draining() {
        troubles.push("the server is ending".to_owned());
    }
    let health = match asked {
        Ok((health, images)) => {
            let usable = images.iter().find(|image| image.name == context.settings.default_image);
            match usable.map(|image| image.trouble.clone()) {
                Some(None) => {}
                Some(Some(trouble)) => troubles.push(format!("image {}: {trouble}", context.settings.default_image)),
                None => troubles.push(format!("there is no image {}", context.settings.default_image)),
            }
            Some(health)
        }
        Err(error) => {
            troubles.push(error.to_string());
            None
        }
    };
    if let Err(why) = context.history.ready() {
        troubles.push(why);
    }
    let (running, waiting) = context.queue.counts();
    let history = context.history.recorder.health();
    let readiness = Readiness {
        ready: troubles.is_empty(),
        troubles,
        isolation: health.as_ref().map(|health| health.isolation.clone()),
        why: health.as_ref().map(|health| health.why.clone()),
        weaker: health.as_ref().map(|health| health.weaker.clone()).unwrap_or_default(),
        cgroups: health.map(|health| health.cgroups),
        running,
        waiting,
        history: HistoryState {
            trouble: history.failing.map(|failing| failing.error),
            queued: history.queued_records,
            written: history.written,
            dropped: history.dropped.total(),
        },
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answers::json(status, &readiness)
}

async fn ask(context: &Shared) -> Result<(Health, Vec<ImageInfo>), ClientError> {
    let sandbox = context.sandbox().await?;
    Ok((sandbox.health().await?, sandbox.images().await?))
}

/// What programs can run in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Runtimes {
    runtimes: Vec<Runtime>,
}

/// An image with its interpreter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Runtime {
    /// What `image` of a program can be.
    image: String,
    /// `python`.
    language: &'static str,
    /// `cpython`, `pypy`; `null` while it starts.
    interpreter: Option<String>,
    /// `3.12.1`; `null` while it starts.
    version: Option<String>,
    /// Whether programs that name no image run in it.
    default: bool,
    /// Sandboxes that wait ready now, and how many should.
    ready: u32,
    slots: u32,
    /// Why it cannot be used, if it cannot.
    trouble: Option<String>,
}

/// The images that programs can run in.
#[utoipa::path(get, path = "/runtimes", tag = "server", operation_id = "list_runtimes", responses(
    (status = 200, body = Runtimes),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn runtimes(State(context): State<Shared>) -> Result<Response, Problem> {
    let (_, images) = ask(&context).await.map_err(|error| crate::execution::not_started(&error))?;
    let runtimes = images.into_iter().map(|image| {
        let known = image.interpreter.split_once(' ');
        Runtime {
            default: image.name == context.settings.default_image,
            language: "python",
            interpreter: known.map(|(name, _)| name.to_owned()),
            version: known.map(|(_, version)| version.to_owned()),
            image: image.name,
            ready: image.ready,
            slots: image.slots,
            trouble: image.trouble,
        }
    });
    Ok(answers::json(StatusCode::OK, &Runtimes { runtimes: runtimes.collect() }))
}

/// What a caller may.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsAnswer {
    /// The limits of an execution: what holds when nothing is asked for, and the most that can be.
    execution: ExecutionLimits,
    /// Calls an hour that execute; 0: as many as one likes.
    calls_per_hour: u32,
    /// Executions of one client at the same time, and how many wait.
    concurrent: usize,
    waiting: usize,
    /// Bytes of a request.
    body_bytes: usize,
    /// Programs in a batch.
    batch: usize,
}

/// The limits of an execution.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecutionLimits {
    wall_ms: u64,
    cpu_ms: u64,
    memory_bytes: u64,
    pids: u64,
    output_bytes: u64,
    /// Share of the processor, in cores. It cannot be chosen.
    cores: f64,
}

impl From<&Limits> for ExecutionLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            wall_ms: milliseconds(limits.wall),
            cpu_ms: milliseconds(limits.cpu),
            memory_bytes: limits.memory_bytes,
            pids: u64::from(limits.pids),
            output_bytes: limits.output_bytes,
            cores: f64::from(limits.cpu_milli) / 1000.0,
        }
    }
}

/// The limits that hold for the caller.
#[utoipa::path(get, path = "/limits", tag = "server", operation_id = "show_limits", responses((status = 200, body = LimitsAnswer)))]
async fn limits(State(context): State<Shared>, peer: Option<Extension<Peer>>, headers: HeaderMap) -> Response {
    let (limits, calls_per_hour) = gate::limits_of(&context, peer.map(|Extension(peer)| peer), &headers).await;
    let answer = LimitsAnswer {
        execution: ExecutionLimits::from(&limits),
        calls_per_hour,
        concurrent: context.settings.queue.running_per_client,
        waiting: context.settings.queue.waiting_per_client,
        body_bytes: context.settings.most_body,
        batch: super::batch::MOST,
    };
    answers::json(StatusCode::OK, &answer)
}

/// What is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", operation_id = "metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
async fn metrics(State(context): State<Shared>) -> Result<Response, Problem> {
    let text = context.metrics.text(&context);
    let text = text.map_err(|error| Problem::new(ProblemKind::Internal, format!("the metrics cannot be written: {error}")))?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "server", operation_id = "openapi", responses(
    (status = 200, body = Object, description = "OpenAPI 3.1"),
))]
async fn openapi(State(context): State<Shared>) -> Response {
    answers::json(StatusCode::OK, &super::document(&context))
}

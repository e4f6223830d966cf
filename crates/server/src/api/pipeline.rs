//! Runs of pipelines: listed, shown, searched, and what their steps handed over.

use std::time::Duration;

use axum::Json as Answered;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_api::{
    Deployment, Outcome, PipelineArtifactOptions, PipelineLogLine, PipelineLogOptions, PipelineRun, PipelineRunList,
    PipelineRunState, PipelineStep, Problem, ProblemKind,
};
use coracle_model::{DeploymentId, StepState};
use coracle_orchestrator::RunLog;
use coracle_store::RunRecord;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use tokio_util::io::ReaderStream;

use super::extract::{App, Id, Options};
use super::{Answer, Shared, answer};
use crate::wire;

/// How many runs a list shows.
const LISTED: u32 = 50;
/// How often the log of a run that goes on is looked at for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the longest text that is searched for.
const LONGEST_SEARCH: usize = 1024;

/// The latest runs of an app's pipeline, newest first.
#[utoipa::path(get, path = "/apps/{app}/runs", tag = "deployments", operation_id = "list_runs", params(("app" = String, Path)), responses(
    (status = 200, body = PipelineRunList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>, App(app): App) -> Answer<Answered<PipelineRunList>> {
    let runs = context.store.runs(&app, LISTED).await?;
    Ok(Answered(PipelineRunList { runs: runs.into_iter().map(told).collect() }))
}

/// The run of a deployment.
#[utoipa::path(get, path = "/deployments/{id}/run", tag = "deployments", operation_id = "show_run", params(("id" = String, Path, example = "d12")), responses(
    (status = 200, body = PipelineRun),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>, Id(id): Id) -> Answer<Answered<PipelineRun>> {
    Ok(Answered(told(recorded(&context, id).await?)))
}

async fn recorded(context: &Shared, id: DeploymentId) -> Answer<RunRecord> {
    let missing = || {
        Problem::new(
            ProblemKind::NotFound,
            format!("{id} has no run: only deployments of new source have one, and it goes with its app"),
        )
    };
    Ok(context.store.run(id).await?.ok_or_else(missing)?)
}

fn told(record: RunRecord) -> PipelineRun {
    let RunRecord { deployment, source, mut steps } = record;
    let deployment = Deployment::from(deployment);
    let cause = match &deployment.outcome {
        Some(Outcome::Failed { phase, cause, .. }) => Some(format!("{phase}: {cause}")),
        _ => None,
    };
    if deployment.outcome.is_some() {
        // Those of a server that died went with it.
        for step in steps.iter_mut().filter(|step| !step.state.is_over()) {
            step.state = StepState::Cancelled;
        }
    }
    PipelineRun {
        id: deployment.id,
        state: PipelineRunState::of(&deployment),
        cause,
        commit: source.commit,
        reference: source.reference,
        by: source.person,
        steps: steps.into_iter().map(PipelineStep::from).collect(),
        app: deployment.app,
        release: deployment.to,
        started_at: deployment.started_at,
        finished_at: deployment.finished_at,
    }
}

/// Lines of the log of a run, in the order in which they were written; lines of JSON. Closing the connection calls nothing off.
#[utoipa::path(get, path = "/deployments/{id}/log", tag = "deployments", operation_id = "read_run_log", params(("id" = String, Path, example = "d12"), PipelineLogOptions), responses(
    (status = 200, body = PipelineLogLine, content_type = "application/x-ndjson"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn log(
    State(context): State<Shared>,
    Id(id): Id,
    Options(options): Options<PipelineLogOptions>,
) -> Answer<Response> {
    let searched = options.grep.iter().chain(&options.step).map(String::len).max().unwrap_or_default();
    if searched > LONGEST_SEARCH {
        return Err(Problem::new(ProblemKind::BadRequest, format!("at most {LONGEST_SEARCH} bytes are searched for")).into());
    }
    let record = recorded(&context, id).await?;
    let log = context.orchestrator.run_log(&record.deployment.app, id);
    let reading = Reading { log, options, context: context.clone(), id, was_over: false };
    let lines = futures::stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) });
    Ok(answer::lines(lines, context.stop.clone()))
}

struct Reading {
    log: RunLog,
    options: PipelineLogOptions,
    context: Shared,
    id: DeploymentId,
    /// Whether the run was over when the log was last looked at.
    was_over: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<PipelineLogLine> {
        loop {
            match self.log.next().await {
                Ok(Some(line)) => {
                    let PipelineLogOptions { step, grep, .. } = &self.options;
                    if step.as_ref().is_none_or(|step| line.is_of(step))
                        && grep.as_ref().is_none_or(|text| line.text.contains(text))
                    {
                        let stream = wire::stream(line.stream);
                        return Some(PipelineLogLine { at: line.at, step: line.step, stream, text: line.text });
                    }
                }
                // What was written between the last look and the end is still read.
                Ok(None) if !self.options.follow || self.was_over => return None,
                Ok(None) => {
                    let running = self.context.deployments.journal(self.id).is_some_and(|journal| !journal.has_ended());
                    self.was_over = !running;
                    if running {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(run = %self.id, %error, "its log cannot be read");
                    return None;
                }
            }
        }
    }
}

/// What a step handed over in a run: a gzip-compressed tar archive of plain files and folders.
#[utoipa::path(get, path = "/deployments/{id}/artifacts", tag = "deployments", operation_id = "download_artifacts", params(("id" = String, Path, example = "d12"), PipelineArtifactOptions), responses(
    (status = 200, body = String, content_type = "application/gzip"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn artifacts(
    State(context): State<Shared>,
    Id(id): Id,
    Options(options): Options<PipelineArtifactOptions>,
) -> Answer<Response> {
    let record = recorded(&context, id).await?;
    let missing = |detail: String| Problem::new(ProblemKind::NotFound, detail);
    // Only names that the run itself has lead to a file.
    let Some(step) = record.steps.iter().find(|step| step.name == options.step) else {
        let names: Vec<&str> = record.steps.iter().map(|step| step.name.as_str()).collect();
        return Err(missing(format!("{id} has no step of that name; it has: {}", names.join(", "))).into());
    };
    let path = context.orchestrator.run_artifact(&record.deployment.app, id, &step.name);
    let opened = async {
        let file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    let Ok((file, length)) = opened.await else {
        let detail = match step.artifacts {
            Some(_) => format!("what {} handed over in {id} is not kept any more", step.name),
            None => format!("{} handed nothing over in {id}", step.name),
        };
        return Err(missing(detail).into());
    };
    let headers = [
        (CONTENT_TYPE, "application/gzip".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

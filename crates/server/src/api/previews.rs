//! Branches: the one that is deployed, and previews of others.

use std::time::Duration;

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{BranchChange, DeployBranch, Preview, PreviewBranch, PreviewList, Problem, ProblemKind};
use coracle_model::{AppName, text};
use coracle_store::PreviewRecord;
use http::StatusCode;

use super::extract::{App, Json, Options};
use super::{Answer, Shared};
use crate::{problems, wire};

/// How long a push that is under way may keep the branch from being changed.
const PATIENCE: Duration = Duration::from_secs(10);

fn preview(context: &Shared, record: PreviewRecord) -> Preview {
    let urls = wire::urls(std::iter::once((record.host.as_str(), "/")), &context.http);
    let PreviewRecord { app, parent, branch, commit, created_at, pushed_at, expires_at, .. } = record;
    Preview { branch, app, parent, urls, commit, created_at, pushed_at, expires_at }
}

/// The previews of an app, by branch.
#[utoipa::path(get, path = "/apps/{app}/previews", tag = "branches", operation_id = "list_previews", params(("app" = String, Path)), responses(
    (status = 200, body = PreviewList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>, App(app): App) -> Answer<Answered<PreviewList>> {
    context.store.app(&app).await?;
    let previews = context.store.previews(Some(&app)).await?;
    Ok(Answered(PreviewList { previews: previews.into_iter().map(|record| preview(&context, record)).collect() }))
}

/// Ends the preview of a branch: instances, volumes, artifacts, releases, configuration. The branch itself stays.
#[utoipa::path(delete, path = "/apps/{app}/previews", tag = "branches", operation_id = "remove_preview", params(("app" = String, Path), PreviewBranch), responses(
    (status = 204, description = "It is gone"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn remove(
    State(context): State<Shared>,
    App(app): App,
    Options(PreviewBranch { branch }): Options<PreviewBranch>,
) -> Answer<StatusCode> {
    let preview = context.previews.of_branch(&app, &branch).await?;
    context.previews.end(&preview.app).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the preview of a branch live on from now, for as long as after a push.
#[utoipa::path(post, path = "/apps/{app}/previews/extension", tag = "branches", operation_id = "extend_preview", params(("app" = String, Path), PreviewBranch), responses(
    (status = 200, body = Preview),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn extend(
    State(context): State<Shared>,
    App(app): App,
    Options(PreviewBranch { branch }): Options<PreviewBranch>,
) -> Answer<Answered<Preview>> {
    let record = context.previews.extend(&app, &branch).await?;
    Ok(Answered(preview(&context, record)))
}

/// The branch that is deployed when it is pushed.
#[utoipa::path(get, path = "/apps/{app}/branch", tag = "branches", operation_id = "show_deploy_branch", params(("app" = String, Path)), responses(
    (status = 200, body = DeployBranch),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn branch(State(context): State<Shared>, App(app): App) -> Answer<Answered<DeployBranch>> {
    Ok(Answered(DeployBranch { branch: deployed(&context, &app).await? }))
}

async fn deployed(context: &Shared, app: &AppName) -> Answer<Option<String>> {
    let Some(repository) = context.door.repository(app) else {
        // Whoever mistypes a name is told.
        context.store.app(app).await?;
        return Ok(None);
    };
    let candidates = repository.candidates().await.map_err(|error| problems::door(&error))?;
    // Several: nothing has been pushed that would decide it.
    Ok(match candidates.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    })
}

/// Has another branch be the one that is deployed. Deploys nothing: the next push of it does. A preview of it ends.
#[utoipa::path(put, path = "/apps/{app}/branch", tag = "branches", operation_id = "set_deploy_branch", params(("app" = String, Path)), request_body = BranchChange, responses(
    (status = 200, body = DeployBranch),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn set_branch(
    State(context): State<Shared>,
    App(app): App,
    Json(BranchChange { branch }): Json<BranchChange>,
) -> Answer<Answered<DeployBranch>> {
    let told = |error| problems::door(&error);
    context.store.app(&app).await?;
    context.deployments.refuse_previews(&app).await?;
    let repository = context.door.ensure(&app).await.map_err(told)?;
    if !repository.is_branch_name(&branch).await.map_err(told)? {
        let detail = format!("{:?} is not the name of a branch", text::one_line(&branch, 80));
        return Err(Problem::new(ProblemKind::BadRequest, detail).into());
    }
    let changing = tokio::time::timeout(PATIENCE, context.door.set_branch(&app, &branch)).await;
    let busy = |_| Problem::new(ProblemKind::Busy, format!("a push to {app} is under way")).hint("try again when it has ended");
    changing.map_err(busy)?.map_err(told)?;
    context.previews.branch_gone(&app, &branch).await?;
    Ok(Answered(DeployBranch { branch: Some(branch) }))
}

//! Compose projects that run beside the apps.

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{ComposeProjectList, Problem};

use super::{Answer, Shared};

/// The compose projects of this machine, as their containers' labels tell; `deploy_app` with `import` takes the place of one.
#[utoipa::path(get, path = "/projects", tag = "machine", operation_id = "list_projects", responses(
    (status = 200, body = ComposeProjectList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>) -> Answer<Answered<ComposeProjectList>> {
    Ok(Answered(ComposeProjectList { projects: context.sources.successions.projects().await? }))
}

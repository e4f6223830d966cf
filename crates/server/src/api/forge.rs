//! Repositories at forges: connected, shown, disconnected.

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{ForgeConnected, ForgeConnection, ForgeRequest, Problem};
use http::StatusCode;

use super::extract::{App, Json};
use super::{Answer, Shared};
use crate::access::Caller;

/// How an app is connected with a repository at a forge.
#[utoipa::path(get, path = "/apps/{app}/forge", tag = "forges", operation_id = "show_forge", params(("app" = String, Path)), responses(
    (status = 200, body = ForgeConnection),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>, App(app): App) -> Answer<Answered<ForgeConnection>> {
    let record = context.forges.connection(&app).await?;
    Ok(Answered(context.forges.described(record)))
}

/// Connects an app with a repository at a forge, in place of the one before. The app is made if it is not there. Connected again
/// with the same repository, it keeps its webhook, its key, and what is not said.
#[utoipa::path(put, path = "/apps/{app}/forge", tag = "forges", operation_id = "connect_forge", params(("app" = String, Path)),
    request_body = ForgeRequest, responses(
    (status = 200, body = ForgeConnected),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn connect(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Json(request): Json<ForgeRequest>,
) -> Answer<Answered<ForgeConnected>> {
    Ok(Answered(context.forges.connect(&caller, &app, &request).await?))
}

/// Disconnects an app from its repository: its webhook is taken no more, and its secrets are forgotten. The app goes on.
#[utoipa::path(delete, path = "/apps/{app}/forge", tag = "forges", operation_id = "disconnect_forge", params(("app" = String, Path)), responses(
    (status = 204, description = "It is not connected any more"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn disconnect(State(context): State<Shared>, App(app): App) -> Answer<StatusCode> {
    context.forges.connection(&app).await?;
    context.store.disconnect_forge(&app).await?;
    tracing::info!(%app, "disconnected from its repository");
    Ok(StatusCode::NO_CONTENT)
}

/// Has the branch fetched and deployed, if it is not live already, as if a webhook had come.
#[utoipa::path(post, path = "/apps/{app}/forge/deployments", tag = "forges", operation_id = "deploy_from_forge",
    params(("app" = String, Path)), responses(
    (status = 202, description = "It is going to be fetched; the app's deployments, and how it is connected, tell what comes of it"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn deploy(State(context): State<Shared>, App(app): App) -> Answer<StatusCode> {
    context.forges.connection(&app).await?;
    context.forges.deploy(&app).await?;
    Ok(StatusCode::ACCEPTED)
}

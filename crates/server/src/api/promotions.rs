//! Promotions: one app takes over what another runs.

use axum::Json as Answered;
use axum::extract::State;
use axum::response::Response;
use coracle_api::{ChangeOptions, DeploymentEvent, DeploymentPlan, Problem, PromotionRequest};
use coracle_model::{AppName, Role};

use super::deployments::{opened, stateful_changes};
use super::extract::{App, Json, Options};
use super::{Answer, Shared};
use crate::access::Caller;
use crate::deployments::Work;

/// Makes a release of what another app runs: the same image, built no second time, with this app's own configuration. Whoever
/// asks needs a role in both.
#[utoipa::path(post, path = "/apps/{app}/promotion", tag = "deployments", operation_id = "promote_app", params(("app" = String, Path), ChangeOptions),
    request_body = PromotionRequest, responses(
    (status = 200, body = DeploymentEvent, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn promote(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<ChangeOptions>,
    Json(request): Json<PromotionRequest>,
) -> Answer<Response> {
    admit(&caller, &app, &request)?;
    let stateful = stateful_changes(request.recreate_services.as_deref())?;
    let trusted = caller.is_administrator();
    let work = Work::Promote { from: request.from, release: request.release, stateful, trusted };
    let journal = context.deployments.begin_for(&caller, app, work, options);
    opened(&journal, options.detach).await
}

/// What a promotion would do, without doing it.
#[utoipa::path(post, path = "/apps/{app}/promotion/plan", tag = "deployments", operation_id = "plan_promotion", params(("app" = String, Path)),
    request_body = PromotionRequest, responses(
    (status = 200, body = DeploymentPlan),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn plan(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Json(request): Json<PromotionRequest>,
) -> Answer<Answered<DeploymentPlan>> {
    admit(&caller, &app, &request)?;
    context.deployments.refuse_previews(&app).await?;
    let stateful = stateful_changes(request.recreate_services.as_deref())?;
    let promotion = context.orchestrator.promotion(&request.from, request.release, &app).await?;
    if !caller.is_administrator() {
        context.sources.refuse_more(&app, &promotion.spec).await?;
    }
    Ok(Answered(DeploymentPlan {
        steps: context.orchestrator.plan_promotion(&promotion, &stateful).await?,
        findings: Vec::new(),
    }))
}

/// The table of rules has seen to the role in the app that the path names.
fn admit(caller: &Caller, app: &AppName, request: &PromotionRequest) -> Result<(), Problem> {
    caller.demand(&request.from, Role::Deployer, "promoting what it runs")?;
    if request.recreate_services.is_some() {
        caller.demand(app, Role::Owner, "changing services that keep data")?;
    }
    Ok(())
}
